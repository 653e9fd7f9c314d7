"""Folders that are written whole: what was there stays when the new one can't be."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from perennial.contracts.errors import InputError
from perennial.stores.exports import MARK, write_export


@contextmanager
def files_of_at_most(count: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: what a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_files_are_written_below_the_folder_with_what_they_are_of(tmp_path: Path) -> None:
    place = tmp_path / "out"
    write_export(place, {"a": b"1", "deep/er/b": b"2"}, {"version": 3}, force=False)
    assert (place / "deep" / "er" / "b").read_bytes() == b"2"
    assert (place / MARK).read_text() == '{\n "version": 3\n}\n'
    (tmp_path / "plain").mkdir()
    assert place.stat().st_mode == (tmp_path / "plain").stat().st_mode  # others may read it too


@pytest.mark.parametrize("former", [True, False])
def test_a_full_disk_changes_nothing(tmp_path: Path, former: bool) -> None:
    place = tmp_path / "out"
    if former:
        write_export(place, {"a": b"former"}, {}, force=False)
    with files_of_at_most(1000), pytest.raises(InputError, match="no space left"):
        write_export(place, {"a": b"new", "b": b"2" * 10_000}, {}, force=True)
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if former else [])
    if former:
        assert {path.name: path.read_bytes() for path in place.iterdir()} == {
            "a": b"former",
            MARK: b"{}\n",
        }


def test_an_empty_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    write_export(tmp_path, {"a": b"1"}, {}, force=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [MARK, "a"]
