"""A folder that was written here, put into the storage.

Its files are sent one by one, the one that makes it whole last: a bundle's manifest, a report's
JSON. Who reads asks for that one first, or knows the folder's digest, so a folder of which only a
part was sent is one that isn't there. What is there already, to the byte, isn't sent again.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection
from pathlib import Path

from perennial.stores.storage.objects import Objects
from perennial.stores.storage.places import is_remote


def publish(folder: Path, uri: str, last: str, beside: Collection[str] = ()) -> str:
    """Make what is at ``uri`` the folder's content, the file ``last`` last. Returns ``uri``.

    A folder that is at its place already stays as it is. May be repeated, also after a kill: it
    goes on where it stopped. What is there and is none of the folder's is removed, but for files
    named ``beside``, which others may have put there. Raises as ``Objects``.
    """
    if not is_remote(uri) and Path(uri) == folder:
        return uri
    place, files = Objects(uri), files_of(folder)
    there = place.sizes()
    place.remove([name for name in there if name not in files and name not in beside])
    differing = [name for name in files if not _same(folder / name, place, name, there)]
    for name in sorted(differing, key=lambda name: (name == last, name)):
        place.write(name, folder / name)
    return uri


def replace(folder: Path, uri: str, last: str) -> None:
    """Put a folder in the place of another that is known by its name, not by its content. On this
    machine at once; elsewhere file by file, the one that refers to the others last."""
    if is_remote(uri):
        publish(folder, uri, last)
        return
    shutil.rmtree(uri, ignore_errors=True)
    Path(uri).parent.mkdir(parents=True, exist_ok=True)
    folder.rename(uri)


def published(folder: Path, uri: str, beside: Collection[str] = ()) -> bool:
    """Whether what is at ``uri`` is the folder's content, to the byte, whatever is ``beside`` it.
    Reads it all."""
    place = Objects(uri)
    there, files = place.sizes(), set(files_of(folder)) - set(beside)
    return set(there) - set(beside) == files and all(
        _same(folder / name, place, name, there) for name in files
    )


def files_of(folder: Path) -> list[str]:
    """The names of all files below a folder."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def _same(path: Path, place: Objects, name: str, there: dict[str, int]) -> bool:
    if there.get(name) != path.stat().st_size:
        return False
    with path.open("rb") as file:
        return place.sha256(name) == hashlib.file_digest(file, "sha256").hexdigest()
