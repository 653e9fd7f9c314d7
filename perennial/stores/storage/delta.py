"""Delta tables on the storage: how Delta's own library is told to reach it, and what it leaves to
the caller."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from perennial.stores.storage.objects import Objects
from perennial.stores.storage.places import Endpoint, check_place, is_remote

_LOG_FILE = re.compile(r"\d{20}\.(json|checkpoint.*\.parquet)")
_BOUNDS = {
    "connect_timeout": "5s",
    "timeout": "300s",
    "retry_timeout": "60s",
    "backoff_config.max_backoff": "5s",
    "backoff_config.base": "3",
}


def delta_options(uri: str, **bounds: str) -> dict[str, str] | None:
    """The storage options of a table: the endpoint, the region, plain HTTP only where the endpoint
    says so, commits by conditional put, and bounded retries. Credentials are the environment's.
    None for a table on this machine's disk. Raises InputError for a place that can't hold one."""
    check_place(uri)
    if not is_remote(uri):
        return None
    endpoint = Endpoint.current()
    return {
        **_BOUNDS,
        "max_retries": str(endpoint.attempts - 1),
        **bounds,
        "aws_region": endpoint.region,
        "aws_conditional_put": "etag",
        "allow_http": str(endpoint.plain_http).lower(),
        **({"aws_endpoint_url": endpoint.url} if endpoint.url else {}),
    }


def has_log(uri: str) -> bool:
    """Whether there is a Delta log with a commit in it. Raises as ``Objects``."""
    if is_remote(uri):
        names = [name.rpartition("/")[2] for name in Objects(uri).sizes("_delta_log")]
    else:
        log = Path(uri) / "_delta_log"
        names = [path.name for path in log.iterdir()] if log.is_dir() else []
    return any(_LOG_FILE.fullmatch(name) for name in names)


def files_there(uri: str, sizes: Mapping[str, int]) -> bool:
    """Whether all files of a table are there in full: their sizes in bytes, by path. Raises as
    ``Objects``."""
    if is_remote(uri):
        there = Objects(uri).sizes()
        return all(there.get(path) == size for path, size in sizes.items())
    places = [(Path(uri) / path, size) for path, size in sizes.items()]
    return all(path.is_file() and path.stat().st_size == size for path, size in places)
