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
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
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
    for stream in _streams(spool):
        for number in stream.numbers:
            yield stream.segment(number)


def waiting(spool: Path, reader: Reader = "live", most: int = 256) -> list[list[Waiting]]:
    """The sealed segments that a reader has yet to finish: for each stream at most ``most``, oldest
    first. Nothing behind a segment that is still open is given out."""
    found = []
    for stream in _streams(spool):
        given = list(islice(_given_out(stream, reader), most))
        if given:
            found.append(given)
    return found


def _given_out(stream: _Stream, reader: Reader) -> Iterator[Waiting]:
    for number in stream.numbers:
        if stream.is_marked(number, reader):
            continue
        segment = stream.segment(number)
        try:
            head = read_head(segment.path)
        except FileNotFoundError:  # finished by another reader meanwhile
            continue
        except IntegrityError:
            head = None
        if head is not None and not head.sealed_bytes:
            return
        if reader == "live" or (head is not None and head.shadowed):
            yield segment


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
    others: dict[Reader, Reader] = {"live": "shadow", "shadow": "live"}
    if shadowed and not _mark(segment, others[reader]).exists():  # the last may have no room left
        _mark(segment, reader).touch()
    if not shadowed or _mark(segment, others[reader]).exists():
        segment.unlink(missing_ok=True)
        for name in others:
            _mark(segment, name).unlink(missing_ok=True)


def give_up_shadows(spool: Path, older_than_seconds: float, most_bytes: int) -> int:
    """Remove segments that shadow versions let wait for too long, or that are too many; returns how
    many. What shadows need must never fill the disk under what is live."""
    left = [
        (_written_at(segment.path), segment)
        for stream in _streams(spool)
        for segment in map(stream.segment, stream.numbers)
        if stream.is_marked(segment.number, "live")
    ]
    left.sort(key=lambda one: one[0])
    size, given_up = sum(segment.bytes for _, segment in left), 0
    for written_at, segment in left:
        if size <= most_bytes and time.time() - written_at <= older_than_seconds:
            break
        finish(segment.path, "shadow")
        size -= segment.bytes
        given_up += 1
    return given_up


class Stock:
    """What is on disk in a spool, as of the last ``count``.

    How long a segment waits is told by the monotonic clock, since it was first seen. Of one that
    was there at the first ``count`` its own words count, and they are of the machine's time.
    """

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._since: dict[Path, dict[int, float | None]] | None = None
        self._segments = 0
        self._bytes = 0
        self._oldest = float("inf")
        self.all_bytes = 0
        """Also of what only shadow versions wait for."""

    @property
    def lag(self) -> SpoolLag:
        """What has yet to reach its table."""
        age = max(0.0, time.monotonic() - self._oldest)
        return SpoolLag(segments=self._segments, bytes=self._bytes, oldest_seconds=age)

    def count(self) -> None:
        """Raises OSError when the folder can't be read."""
        count, live_bytes, all_bytes = 0, 0, 0
        first, now = self._since is None, time.monotonic()
        known, since = self._since or {}, {}
        oldest = []
        for stream in _streams(self._spool):
            all_bytes += sum(stream.sizes.values())
            numbers = [n for n in stream.numbers if not stream.is_marked(n, "live")]
            count += len(numbers)
            live_bytes += sum(stream.sizes[n] for n in numbers)
            if numbers:  # the oldest of a stream has the lowest number
                before, new = known.get(stream.folder, {}), None if first else now
                seen = since[stream.folder] = {n: before.get(n, new) for n in numbers}
                if seen[numbers[0]] is None:
                    seen[numbers[0]] = _created_at(stream.segment(numbers[0]).path)
                oldest.append(seen[numbers[0]])
        self._segments, self._bytes, self.all_bytes = count, live_bytes, all_bytes
        self._oldest = min((at for at in oldest if at is not None), default=float("inf"))
        self._since = since


@dataclass(frozen=True, slots=True)
class _Stream:
    """The segments of one session, model and kind, as its folder lists them."""

    folder: Path
    sizes: Mapping[int, int]
    """In bytes, by number."""
    marks: frozenset[str]

    @property
    def numbers(self) -> list[int]:
        return sorted(self.sizes)

    def segment(self, number: int) -> Waiting:
        return Waiting(
            path=self.folder / segment_name(number),
            session=self.folder.parts[-3],
            model=self.folder.parts[-2],
            kind=cast("Kind", self.folder.parts[-1]),
            number=number,
            bytes=self.sizes[number],
        )

    def is_marked(self, number: int, reader: Reader) -> bool:
        return bool(self.marks) and f"{number:012d}.{reader}.done" in self.marks


def _streams(spool: Path) -> Iterator[_Stream]:
    """There may be very many segments, so this does little for each."""
    for session in sessions(spool):
        for model in _entries(session):
            for folder in _entries(model):
                sizes: dict[int, int] = {}
                marks: list[str] = []
                try:
                    with os.scandir(folder) as entries:
                        for entry in entries:
                            number, _, suffix = entry.name.partition(".")
                            if f".{suffix}" != SUFFIX or not number.isdecimal():
                                marks.append(entry.name)
                                continue
                            with suppress(FileNotFoundError):  # finished meanwhile
                                sizes[int(number)] = entry.stat().st_size
                except (FileNotFoundError, NotADirectoryError):
                    continue
                yield _Stream(folder, sizes, frozenset(marks))


def _created_at(segment: Path) -> float | None:
    """When a segment was begun, by the monotonic clock; None when that can't be read (yet)."""
    try:
        opening = read_opening(segment)
    except FileNotFoundError:
        return None
    if opening is None:
        return None
    return time.monotonic() - max(0.0, time.time() - opening.created_at)


def _mark(segment: Path, reader: Reader) -> Path:
    return segment.with_suffix(f".{reader}.done")


def _entries(folder: Path) -> list[Path]:
    """What a folder holds, sorted; nothing when it is gone."""
    try:
        return sorted(Path(entry.path) for entry in os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
