"""Folders and files that are written whole or not at all; folders named by what is in them."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from perennial.contracts.errors import InputError

_UNFINISHED = ".writing-"
_HOST = platform.node()


@contextmanager
def new_folder(parent: Path) -> Iterator[Path]:
    """A temporary folder beside its future place; gone afterwards unless ``keep_folder`` took it.

    Raises InputError when the disk is full; nothing half-written stays.
    """
    parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(parent)
    folder = Path(tempfile.mkdtemp(prefix=f"{_UNFINISHED}{_HOST}-{os.getpid()}-", dir=parent))
    try:
        yield folder
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise InputError(
                f"no space left while writing below {parent}; nothing was kept. "
                "Free some space and run again: finished stages are not repeated"
            ) from None
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(parent: Path) -> None:
    """Remove what killed writers of this machine left behind."""
    own = f"{_UNFINISHED}{_HOST}-"  # another host's process ids say nothing here
    for folder in parent.glob(f"{own}*"):
        writer = folder.name.removeprefix(own).split("-")[0]
        try:
            os.kill(int(writer), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except PermissionError:  # alive, another user's
            continue


def keep_folder(folder: Path) -> tuple[Path, str]:
    """Give a finished folder its final name, its digest, in one step. Returns the place and digest.

    Content that is there already is kept: two runs that make the same thing make one.
    """
    digest = folder_digest(folder)
    place = folder.parent / digest
    if place.is_dir() and folder_digest(place) != digest:
        shutil.rmtree(place)  # damaged since it was written
    if not place.is_dir():
        try:
            folder.rename(place)
        except OSError:
            if not place.is_dir():  # otherwise another run was first, with the same content
                raise
    return place, digest


def remove_folder(folder: Path) -> None:
    """Remove a folder: it is whole or gone at any time. Leftovers of a kill go with the next
    ``new_folder`` beside it. Raises OSError."""
    with new_folder(folder.parent) as new:
        folder.rename(new / folder.name)


def folder_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of a folder's files (its first 32 hexadecimal digits)."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def write_file(path: Path, content: str) -> None:
    """Write a text file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(path.parent) as folder:
        (folder / path.name).write_text(content, encoding="utf-8")
        (folder / path.name).replace(path)
