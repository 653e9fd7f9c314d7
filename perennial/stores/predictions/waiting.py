"""What waits in a spool: segments on their way to a table, and who still needs them.

```
<spool>/<session>/lock                              held while the server that appends here lives
<spool>/<session>/<model>/<kind>/<number>.segment
<spool>/<session>/<model>/<kind>/<number>.<reader>.done
<spool>/damaged/…                                   what could not be read in full, for a person
```
A segment has at most two readers: *live* commits its rows, *shadow* (only when a record asks for
it) scores them with shadow versions. The last one to finish removes the file. Each reader takes
the segments of a stream in the order of their numbers, which is what makes one number say how far
a table has come.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from perennial.contracts.errors import IntegrityError
from perennial.contracts.serving import SpoolLag
from perennial.stores.predictions.segments import SUFFIX, Kind, read_head, read_opening

Reader = Literal["live", "shadow"]

LOCK = "lock"
DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A segment on disk. ``number`` counts within the stream: session, model and kind."""

    path: Path
    session: str
    model: str
    kind: Kind
    number: int
    bytes: int


def segment_name(number: int) -> str:
    return f"{number:012d}{SUFFIX}"


def sessions(spool: Path) -> list[Path]:
    """The folders of all servers, living and dead, that have appended here."""
    return [folder for folder in _entries(spool) if (folder / LOCK).exists()]


def segments(spool: Path) -> Iterator[Waiting]:
    """All segments, open ones too, stream by stream and oldest first."""
    for session in sessions(spool):
        for model in _entries(session):
            for kind in _entries(model):
                for path in _entries(kind):
                    if path.suffix == SUFFIX:
                        yield Waiting(
                            path=path,
                            session=session.name,
                            model=model.name,
                            kind=cast("Kind", kind.name),
                            number=int(path.stem),
                            bytes=_size(path),
                        )


def waiting(spool: Path, reader: Reader = "live", most: int = 256) -> list[list[Waiting]]:
    """The sealed segments that a reader has yet to finish: for each stream at most ``most``, oldest
    first. Nothing behind a segment that is still open is given out."""
    streams: dict[Path, list[Waiting]] = {}
    stopped: set[Path] = set()
    for segment in segments(spool):
        stream = segment.path.parent
        if stream in stopped or len(streams.get(stream, ())) == most:
            continue
        try:
            head = read_head(segment.path)
        except FileNotFoundError:  # finished by another reader meanwhile
            continue
        except IntegrityError:
            head = None
        if head is not None and not head.sealed_bytes:
            stopped.add(stream)
        elif reader == "shadow" and (head is None or not head.shadowed):
            continue
        elif not _mark(segment.path, reader).exists():
            streams.setdefault(stream, []).append(segment)
    return list(streams.values())


def finish(segment: Path, reader: Reader) -> None:
    """Say that a reader needs a segment no more; its last reader thereby removes it.

    May be called again, and by both readers at once.
    """
    try:
        shadowed = read_head(segment).shadowed
    except FileNotFoundError:
        return
    except IntegrityError:
        shadowed = False
    if shadowed:
        _mark(segment, reader).touch()
    others: dict[Reader, Reader] = {"live": "shadow", "shadow": "live"}
    if not shadowed or _mark(segment, others[reader]).exists():
        segment.unlink(missing_ok=True)
        for name in others:
            _mark(segment, name).unlink(missing_ok=True)


def done_live(segment: Path) -> bool:
    """Whether a segment only waits to be scored by shadow versions."""
    return _mark(segment, "live").exists()


def give_up_shadows(spool: Path, older_than_seconds: float, most_bytes: int) -> int:
    """Remove segments that shadow versions let wait for too long, or that are too many; returns how
    many. What shadows need must never fill the disk under what is live."""
    left = [segment for segment in segments(spool) if done_live(segment.path)]
    left.sort(key=lambda segment: _age(segment.path), reverse=True)
    size, given_up = sum(segment.bytes for segment in left), 0
    for segment in left:
        if size <= most_bytes and _age(segment.path) <= older_than_seconds:
            break
        finish(segment.path, "shadow")
        size -= segment.bytes
        given_up += 1
    return given_up


class Stock:
    """What is on disk in a spool, as of the last ``count``."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._created: dict[Path, float] = {}
        self._segments = 0
        self._bytes = 0
        self._oldest = float("inf")
        self.all_bytes = 0
        """Also of what only shadow versions wait for."""

    @property
    def lag(self) -> SpoolLag:
        """What has yet to reach its table."""
        age = max(0.0, time.time() - self._oldest) if self._created else 0.0
        return SpoolLag(segments=self._segments, bytes=self._bytes, oldest_seconds=age)

    def count(self) -> None:
        """Raises OSError when the folder can't be read."""
        count, live_bytes, all_bytes = 0, 0, 0
        created: dict[Path, float] = {}
        for segment in segments(self._spool):
            all_bytes += segment.bytes
            if done_live(segment.path):
                continue
            count += 1
            live_bytes += segment.bytes
            when = self._created.get(segment.path) or _created_at(segment.path)
            if when is not None:
                created[segment.path] = when
        self._segments, self._bytes, self.all_bytes = count, live_bytes, all_bytes
        self._oldest = min(created.values(), default=float("inf"))
        self._created = created


def _created_at(segment: Path) -> float | None:
    """When a segment was begun; None when that can't be read (yet)."""
    try:
        opening = read_opening(segment)
    except FileNotFoundError:
        return None
    return None if opening is None else opening.created_at


def _mark(segment: Path, reader: Reader) -> Path:
    return segment.with_suffix(f".{reader}.done")


def _entries(folder: Path) -> list[Path]:
    """What a folder holds, sorted; nothing when it is gone."""
    try:
        return sorted(Path(entry.path) for entry in os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
