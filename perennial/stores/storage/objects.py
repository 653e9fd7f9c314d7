"""Single files of a storage, in a folder or in a bucket, over one library: obstore, which speaks to
stores with the same code as Delta's.

A file is written whole or not at all, and a reader sees the former one until the new one is whole.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from perennial.contracts.errors import PerennialError
from perennial.stores.folders import write_file
from perennial.stores.storage.faults import fault, no_bucket
from perennial.stores.storage.places import Endpoint, bucket_of, check_address, is_remote

_CHUNK = 8 * 2**20
_PART = 8 * 2**20
"""Larger files are sent in parts of this size."""
_CONNECT, _WHOLE_REQUEST = "5s", "300s"
_RETRY_SECONDS = 60


class Objects:
    """The files below a folder or an ``s3://`` address, by their names relative to it.

    A store that is busy (503 SlowDown) or lost on the way is asked again, ever more slowly, for a
    minute at most. Then, and for what asking again can't mend, methods raise InputError or
    UnavailableError (see ``faults.fault``).
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._prefix = ""
        if is_remote(uri):
            check_address(uri)
            bucket, key = bucket_of(uri)
            self._prefix = f"{key}/" if key else ""
            self._store = _bucket(bucket, Endpoint.current(), _identity())
        else:
            self._store = _folder(self.uri)

    def read(self, name: str) -> bytes | None:
        """A file's content; None when there is no such file."""
        import obstore

        with self._told():
            try:
                return bytes(obstore.get(self._store, self._prefix + name).bytes())
            except FileNotFoundError as error:
                _insist_on_bucket(error)
                return None

    def write(self, name: str, content: bytes | Path) -> None:
        """Write a file, in place of the one that is there; a large one in parts."""
        import obstore

        with self._told():
            obstore.put(self._store, self._prefix + name, content, chunk_size=_PART)

    def create(self, name: str, content: bytes) -> bool:
        """Write a file unless there is one. Of several writers one gets True."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        with self._told():
            try:
                obstore.put(self._store, self._prefix + name, content, mode="create")
            except AlreadyExistsError:
                return False
            return True

    def sizes(self, below: str = "") -> dict[str, int]:
        """The names of all files below a folder with their sizes in bytes."""
        return dict(self.listed(below))

    def listed(self, below: str = "") -> Iterator[tuple[str, int]]:
        """As ``sizes``, one by one, in no order: no more is asked for than is taken."""
        import obstore

        start = (self._prefix + below).rstrip("/")
        with self._told():
            for chunk in obstore.list(self._store, start or None, chunk_size=1000):
                for each in chunk:
                    yield each["path"].removeprefix(self._prefix), each["size"]

    def chunks(self, name: str) -> Iterator[bytes]:
        """A file's content, a few MB at a time. Raises FileNotFoundError when there is none."""
        import obstore

        with self._told():
            for chunk in obstore.get(self._store, self._prefix + name).stream(_CHUNK):
                yield bytes(chunk)

    def sha256(self, name: str) -> str:
        """The digest of a file's content, read anew; "" when there is no such file."""
        digest = hashlib.sha256()
        try:
            for chunk in self.chunks(name):
                digest.update(chunk)
        except FileNotFoundError:
            return ""
        return digest.hexdigest()

    def remove(self, names: Sequence[str]) -> None:
        """Remove files. One that isn't there is no mistake."""
        import obstore

        with self._told():
            for name in names:
                try:
                    obstore.delete(self._store, self._prefix + name)
                except FileNotFoundError as error:
                    _insist_on_bucket(error)

    @contextmanager
    def _told(self) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except PerennialError:
            raise
        except FileNotFoundError as error:
            if no_bucket(error):
                raise fault(error, self.uri) from None
            raise
        except (BaseError, OSError, ValueError) as error:
            raise fault(error, self.uri) from None


def read(uri: str) -> bytes | None:
    """One file's content by its address or path; None when there is no such file."""
    if not is_remote(uri):
        try:
            return Path(uri).read_bytes()
        except FileNotFoundError:
            return None
    folder, _, name = uri.rpartition("/")
    return Objects(folder).read(name)


def write(uri: str, text: str) -> None:
    """Write one text file at an address or path, in place of the one that is there."""
    if not is_remote(uri):
        write_file(Path(uri), text)
        return
    folder, _, name = uri.rpartition("/")
    Objects(folder).write(name, text.encode())


def remove(uri: str) -> None:
    """Remove one file. That it isn't there is no mistake."""
    if not is_remote(uri):
        Path(uri).unlink(missing_ok=True)
        return
    folder, _, name = uri.rpartition("/")
    Objects(folder).remove([name])


def _insist_on_bucket(error: FileNotFoundError) -> None:
    if no_bucket(error):
        raise error


@lru_cache(maxsize=16)
def _bucket(bucket: str, endpoint: Endpoint, identity: tuple[tuple[str, str], ...]) -> Any:  # noqa: ARG001
    """The store of a bucket; of who asks, the library reads the environment itself."""
    from obstore.store import S3Store

    return S3Store(
        bucket,
        region=endpoint.region,
        **({"endpoint": endpoint.url} if endpoint.url else {}),  # type: ignore[arg-type]
        client_options={
            "allow_http": endpoint.plain_http,
            "connect_timeout": _CONNECT,
            "timeout": _WHOLE_REQUEST,
        },
        retry_config={
            "max_retries": endpoint.attempts - 1,
            "retry_timeout": timedelta(seconds=_RETRY_SECONDS),
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=5),
                "base": 3,
            },
        },
    )


@lru_cache(maxsize=16)
def _folder(path: str) -> Any:
    from obstore.store import LocalStore

    return LocalStore(path, mkdir=True)


def _identity() -> tuple[tuple[str, str], ...]:
    return tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith("AWS_")))
