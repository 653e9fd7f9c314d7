"""A file's stamp changes with the file, through links too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from perennial.stores.stamps import stamp, stamp_of, stamp_or_none


def test_a_file_replaced_by_one_of_the_same_size_and_time_has_another_stamp(tmp_path: Path) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_text("one")
    other.write_text("two")
    before = stamp(path)
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    assert stamp(path) == before

    other.replace(path)

    assert stamp(path) != before


def test_a_link_that_points_at_another_file_has_another_stamp(tmp_path: Path) -> None:
    link = tmp_path / "current"
    for name in ("old", "new"):
        (tmp_path / name).write_text("same")
    link.symlink_to("old")
    before = stamp(link)

    link.unlink()
    link.symlink_to("new")

    assert stamp(link) != before
    assert stamp(link) == stamp(tmp_path / "new")


def test_an_open_file_has_the_stamp_of_its_path(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("one")
    with path.open() as file:
        assert stamp_of(os.fstat(file.fileno())) == stamp(path) == stamp_or_none(path)


def test_a_file_that_is_gone_has_none(tmp_path: Path) -> None:
    assert stamp_or_none(tmp_path / "gone") is None
    with pytest.raises(FileNotFoundError):
        stamp(tmp_path / "gone")
