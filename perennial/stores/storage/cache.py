"""Folders of the storage, here again: each is fetched once, checked, and kept a while."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from perennial.contracts.errors import IntegrityError, Problem
from perennial.stores.folders import folder_digest, new_folder
from perennial.stores.storage.objects import Objects
from perennial.stores.storage.places import is_remote

T = TypeVar("T")

KEPT = 50
"""Folders that a project's cache holds; the one that was not used for longest goes first."""

_MISSING = "restore it from a copy, or run again: what is missing is made anew"


def fetch(uri: str, cache: Path, opened: Callable[[Path], T], kept: int = KEPT) -> T:
    """A folder of the storage, opened on this machine: itself where the storage is local, else a
    copy in ``cache``, of ``kept`` folders, under its own name, which is the digest of its content.

    ``opened`` gives what a folder is to its reader, never None, and raises IntegrityError for one
    that isn't what it should be. A copy that fails it is fetched anew; what fails it as it comes
    from the storage is not kept, and the error says so. Processes that want the same folder at once
    fetch it one after the other. Raises as ``Objects``.
    """
    if not is_remote(uri):
        return opened(Path(uri))
    place = cache / uri.rstrip("/").rpartition("/")[2]
    found = _kept(place, opened)
    if found is None:
        cache.mkdir(parents=True, exist_ok=True)
        with _turn(cache, place.name):
            found = _kept(place, opened)
            if found is None:
                _download(uri, place, opened)
                found = opened(place)
        _prune(cache, kept)
    with suppress(FileNotFoundError):  # the next reader's, who finds it gone and fetches it
        os.utime(place)
    return found


def fetch_folder(uri: str, cache: Path, digest: str, kept: int = KEPT) -> Path:
    """``fetch`` for a folder that is named by ``folders.folder_digest``: where it is now."""

    def opened(folder: Path) -> Path:
        actual = folder_digest(folder)
        if actual != digest:
            what = f"its content has the digest {actual}, expected {digest}"
            raise IntegrityError(Problem(str(folder), what, _MISSING))
        return folder

    return fetch(uri, cache, opened, kept)


def _kept(place: Path, opened: Callable[[Path], T]) -> T | None:
    if not place.is_dir():
        return None
    try:
        return opened(place)
    except IntegrityError:
        return None


def _download(uri: str, place: Path, opened: Callable[[Path], object]) -> None:
    there = Objects(uri)
    names = there.sizes()
    if not names:
        raise IntegrityError(Problem(uri, "there is nothing", _MISSING))
    with new_folder(place.parent) as folder:
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with path.open("wb") as file:
                    file.writelines(there.chunks(name))
            except FileNotFoundError:
                raise IntegrityError(Problem(f"{uri}/{name}", "is gone", _MISSING)) from None
        try:
            opened(folder)
        except IntegrityError as error:
            raise IntegrityError([_said_of(uri, folder, each) for each in error.problems]) from None
        shutil.rmtree(place, ignore_errors=True)  # damaged
        folder.rename(place)


def _said_of(uri: str, folder: Path, problem: Problem) -> Problem:
    where, what = (text.replace(str(folder), uri) for text in (problem.where, problem.what))
    return Problem(where, what, problem.fix)


@contextmanager
def _turn(cache: Path, name: str) -> Iterator[None]:
    """Wait for others who fetch the same. The lock ends with its holder, however that ends."""
    with (cache / f".{name[:1]}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _prune(cache: Path, kept: int) -> None:
    """Remove the folders that were not used for longest."""
    used: list[tuple[float, Path]] = []
    for place in cache.iterdir():
        if place.name.startswith("."):
            continue
        try:
            used.append((place.stat().st_mtime, place))
        except FileNotFoundError:
            continue
    for _, place in sorted(used, reverse=True)[kept:]:
        shutil.rmtree(place, ignore_errors=True)
