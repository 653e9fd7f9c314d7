"""Folders that a user names and another program reads: written whole, never over other work."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from perennial.contracts.errors import InputError, Problem
from perennial.stores.folders import new_folder

MARK = ".perennial-export"
"""A file that says what was exported: a folder without it is not replaced."""


def check_place(place: Path, force: bool) -> None:
    """Raises InputError when an export can't go there: a file, or a folder with something in it
    (with ``force``: with something else in it than a former export)."""
    if not place.is_dir():
        if place.exists():
            raise InputError(Problem(str(place), "is a file", "give a folder"))
        return
    if not any(place.iterdir()):
        return
    if not force:
        fix = "give another --output, or --force to replace a former export"
        raise InputError(Problem(str(place), "the folder is not empty", fix))
    if not (place / MARK).is_file():
        what = f"not replaced: the folder has no {MARK}, so it is no former export"
        raise InputError(Problem(str(place), what, "give another --output, or empty it yourself"))


def write_export(
    place: Path, files: Mapping[str, bytes], about: Mapping[str, object], force: bool
) -> None:
    """Write files, by path below the folder, and ``MARK``. Raises as ``new_export``."""
    with new_export(place, about, force) as made:
        for name, content in files.items():
            path = made / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


@contextmanager
def new_export(place: Path, about: Mapping[str, object], force: bool) -> Iterator[Path]:
    """A folder to write files to; ``MARK`` is added, and it takes its place whole.

    Raises InputError as ``check_place``, and when it can't be written; then what was there is there
    still."""
    check_place(place, force)
    try:
        with new_folder(place.parent) as working:
            made = working / "new"
            made.mkdir()
            yield made
            (made / MARK).write_bytes(_text(about))
            _exchange(place, made, working / "former")
    except OSError as error:
        what = f"can't be written: {error.strerror or error}; nothing was changed"
        raise InputError(Problem(str(place), what, "give another --output")) from None


def _exchange(place: Path, made: Path, former: Path) -> None:
    if not place.exists():
        made.rename(place)
        return
    place.rename(former)
    try:
        made.rename(place)
    except OSError:
        former.rename(place)
        raise


def _text(about: Mapping[str, object]) -> bytes:
    return (json.dumps(about, indent=1) + "\n").encode()
