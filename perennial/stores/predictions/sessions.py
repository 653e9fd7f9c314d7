"""Whose segments are whose: a lock for each server, and taking over from those that died."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from perennial.contracts.errors import IntegrityError
from perennial.stores.locks import taken
from perennial.stores.predictions.segments import SUFFIX, seal_left
from perennial.stores.predictions.waiting import DAMAGED, LOCK, sessions

_NEW = ".new-"
_FORGOTTEN_SECONDS = 3600.0


class Session:
    """A new folder for one server's segments, locked as long as its process lives."""

    def __init__(self, spool: Path) -> None:
        spool.mkdir(parents=True, exist_ok=True)
        self.name = uuid.uuid4().hex
        self.folder = spool / self.name
        hidden = spool / f"{_NEW}{self.name}"  # nobody sees the folder before it is locked
        hidden.mkdir()
        self._fd = os.open(hidden / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        hidden.rename(self.folder)

    def close(self) -> None:
        os.close(self._fd)


def take_over(spool: Path, known: set[str] | None = None) -> int:
    """Seal what dead servers left open, and remove their folders once they are empty.

    A living server's folder is never touched: it holds a lock that ends with its process, however
    it ends. Segments that can't be sealed are put aside. ``known`` are the names of sessions that
    are sealed already; it is added to. Returns how many segments were sealed or put aside.
    """
    taken = 0
    known = set() if known is None else known
    for session in sessions(spool):
        with _lock_of(session) as dead:
            if not dead:
                continue
            if session.name not in known:
                taken += _seal_all(spool, session)
                known.add(session.name)
            if not any(session.glob(f"*/*/*{SUFFIX}")):
                shutil.rmtree(session, ignore_errors=True)
    for hidden in spool.glob(f"{_NEW}*"):
        if time.time() - hidden.stat().st_mtime > _FORGOTTEN_SECONDS:
            shutil.rmtree(hidden, ignore_errors=True)
    return taken


def _seal_all(spool: Path, session: Path) -> int:
    taken = 0
    for path in sorted(session.glob(f"*/*/*{SUFFIX}")):
        try:
            taken += seal_left(path)
        except FileNotFoundError:  # committed and removed by another keeper
            continue
        except IntegrityError:
            put_aside(spool, path)
            taken += 1
    return taken


def put_aside(spool: Path, segment: Path) -> Path:
    """Move a damaged segment to where no reader looks, for a person to see."""
    place = spool / DAMAGED / "-".join(segment.relative_to(spool).parts)
    place.parent.mkdir(exist_ok=True)
    segment.replace(place)
    return place


def aside(spool: Path) -> list[Path]:
    """The damaged segments that were put aside and nobody has removed, in the order of writing."""
    return sorted((spool / DAMAGED).glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime)


@contextmanager
def _lock_of(session: Path) -> Iterator[bool]:
    """The lock of a session; False when its server lives, or the folder is gone."""
    try:
        fd = os.open(session / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        yield taken(fd) and (session / LOCK).exists()
    finally:
        os.close(fd)
