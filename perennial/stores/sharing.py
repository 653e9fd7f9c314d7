"""Matrices where the workers of a cluster find them: on a disk that they see, or in the storage."""

from __future__ import annotations

from pathlib import Path

from perennial.stores.project import Project
from perennial.stores.storage.cache import fetch_folder
from perennial.stores.storage.places import is_remote
from perennial.stores.storage.publishing import publish

KEPT = 2
"""Matrices that a worker keeps, on its own disk and for as long as it lives."""


def share(project: Project, folder: Path) -> str:
    """Where workers find a folder of matrices that is named by its digest: as it lies where the
    storage is a disk, which they see then; else in the storage, where it is put unless it is there.

    Raises as ``publish``.
    """
    if not is_remote(project.storage):
        return str(folder)
    uri = project.uri("features", folder.parent.name)
    return publish(folder, f"{uri}/{folder.name}", last="schema.json")


def fetched(place: str) -> Path:
    """On a worker: the folder that ``share`` gave the place of. Raises as ``fetch_folder``."""
    if not is_remote(place):
        return Path(place)
    from distributed import get_worker

    own = Path(get_worker().local_directory) / "matrices"
    return fetch_folder(place, own, place.rpartition("/")[2], KEPT)
