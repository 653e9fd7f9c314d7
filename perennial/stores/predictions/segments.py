"""A segment: one file of a spool, to which records are appended and never changed.

```
head      magic, sealed bytes (0 while it is open), whether shadow versions want it
frame*    magic, kind, number of the schema, length of the header, length, crc32; then the payload
```
The first frame says whose segment it is (JSON), one frame holds each Arrow schema once, and a
record is a header (JSON) and an Arrow record batch message without its schema. Checksums start from
a number drawn for the segment, so that no value of a record can pass for a frame.

Sealing overwrites 16 bytes of the head: it needs no space, so a full disk can't prevent it, and no
other name, so that a reader who lists the folder meanwhile can't miss the file.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from perennial.contracts.errors import IntegrityError, Problem

Kind = Literal["predictions", "labels", "failures"]

SUFFIX = ".segment"
_HEAD = struct.Struct("<8sQQ")
_FRAME = struct.Struct("<4sBxHIII")  # 20 bytes; the checksum is the last 4
_CHECKED = _FRAME.size - 4
_FILE_MAGIC = b"PERENLG1"
_FRAME_MAGIC = b"\xf5PLf"
_OPENING, _SCHEMA, _RECORD, _SHADOWED = 1, 2, 3, 4
_OPENING_BYTES = 1024  # head and first frame are shorter

_sync_data = getattr(os, "fdatasync", os.fsync)


@dataclass(frozen=True, slots=True)
class Opening:
    """Whose segment it is. ``number`` counts from 1 in a stream, which is the segments of one
    ``spool`` for one model and kind; ``created_at`` is seconds since 1970, UTC."""

    spool: str
    number: int
    model: str
    kind: Kind
    created_at: float
    seed: int


class Record(NamedTuple):
    """What one call appended."""

    header: dict[str, Any]
    batch: pa.RecordBatch


class Head(NamedTuple):
    """The state of a segment. ``sealed_bytes`` is its whole length, 0 while it is open."""

    sealed_bytes: int
    shadowed: bool


class SegmentWriter:
    """An open segment of this process. Not safe for threads; ``sync`` may run beside ``append``.

    Raises OSError, then with the segment as it was before: what a failed append left behind is cut
    off, and ``broken`` says when even that was refused (the segment is then only good for sealing).
    """

    def __init__(self, path: Path, opening: Opening) -> None:
        self.path = path
        self.opening = opening
        self.size = 0
        self.broken = False
        self.shadowed = False
        self._schemas: list[pa.Schema] = []
        self._entered = False
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            payload = json.dumps(asdict(opening)).encode()
            head = _HEAD.pack(_FILE_MAGIC, 0, 0)
            self._write([head, *_frame(0, _OPENING, 0, b"", payload)])
        except OSError:
            os.close(self._fd)
            path.unlink(missing_ok=True)
            raise

    def append(self, schema: pa.Schema, message: pa.Buffer, header: bytes, shadowed: bool) -> None:
        """Append a record: ``message`` is a record batch of ``schema``, serialised."""
        seed = self.opening.seed
        parts: list[Any] = []
        number = self._number_of(schema)
        if number == len(self._schemas):
            schema = schema.remove_metadata()
            parts += _frame(seed, _SCHEMA, number, b"", schema.serialize())
        parts += _frame(seed, _SHADOWED if shadowed else _RECORD, number, header, message)
        self._write(parts)
        if number == len(self._schemas):
            self._schemas.append(schema)
        self.shadowed = self.shadowed or shadowed

    def knows(self, schema: pa.Schema) -> bool:
        return self._number_of(schema) < len(self._schemas)

    def sync(self) -> None:
        """Return when all that was appended before is on the disk, and the file's name too."""
        _sync_data(self._fd)
        if not self._entered:
            for folder in self.path.parents[:4]:  # kind, model, session, spool
                _sync_folder(folder)
            self._entered = True

    def seal(self) -> None:
        """Close the segment for good. May be called again when it raised OSError."""
        self.sync()
        _seal(self._fd, Head(self.size, self.shadowed))
        os.close(self._fd)

    def _number_of(self, schema: pa.Schema) -> int:
        for number, known in enumerate(self._schemas):
            if known.equals(schema):
                return number
        return len(self._schemas)

    def _write(self, parts: Sequence[Any]) -> None:
        whole = sum(memoryview(part).nbytes for part in parts)
        try:
            written = os.writev(self._fd, parts)
            if written < whole:  # the disk took a part; ask again for the rest, or for the reason
                rest = memoryview(b"".join(parts))[written:]
                while rest:
                    rest = rest[os.write(self._fd, rest) :]
        except OSError:
            self._cut_back()
            raise
        self.size += whole

    def _cut_back(self) -> None:
        try:
            os.ftruncate(self._fd, self.size)
            os.lseek(self._fd, self.size, os.SEEK_SET)
        except OSError:
            self.broken = True


class Segment:
    """A segment as read. ``damaged_bytes`` counts what lies between whole records and can't be
    read, or is missing at the end of a sealed segment; a torn tail of an open one is no damage."""

    def __init__(self, path: Path) -> None:
        self.path = path
        data = memoryview(path.read_bytes())
        self.head = _head(data, path)
        stop = self.head.sealed_bytes or len(data)
        self.damaged_bytes = max(0, stop - len(data))
        first = _frame_at(data, _HEAD.size, 0)
        if first is None or first.kind != _OPENING:
            raise IntegrityError(Problem(str(path), "the first frame is damaged"))
        self.opening = Opening(**json.loads(bytes(first.body)))
        self.end = first.end
        self._frames: list[_Frame] = []
        self._schemas: dict[int, _Frame] = {}
        self._read(data[:stop])

    @property
    def shadowed(self) -> bool:
        return any(frame.kind == _SHADOWED for frame in self._frames)

    @property
    def empty(self) -> bool:
        return not self._frames

    def records(self) -> Iterator[Record]:
        """The whole records, in the order in which they were appended."""
        schemas = {n: pa.ipc.read_schema(pa.py_buffer(f.body)) for n, f in self._schemas.items()}
        for frame in self._frames:
            batch = pa.ipc.read_record_batch(pa.py_buffer(frame.body), schemas[frame.schema])
            yield Record(json.loads(bytes(frame.header)), batch)

    def schemas(self) -> list[pa.Schema]:
        """What ``tables`` will have, in the same order."""
        used = {frame.schema for frame in self._frames}
        schemas = [frame.body for number, frame in self._schemas.items() if number in used]
        return [pa.ipc.read_schema(pa.py_buffer(body)) for body in schemas]

    def tables(self) -> Iterator[pa.Table]:
        """The rows of all whole records: one table for each schema."""
        for number, schema in self._schemas.items():
            bodies = [frame.body for frame in self._frames if frame.schema == number]
            if bodies:  # an Arrow stream is nothing else than these messages in a row
                stream = pa.py_buffer(b"".join([schema.body, *bodies]))
                yield pa.ipc.open_stream(stream).read_all()

    def _read(self, data: memoryview) -> None:
        place, seed = self.end, self.opening.seed
        while place < len(data):
            frame = _frame_at(data, place, seed)
            if frame is None:
                place = _resume(data, place, seed)
                if place < 0:
                    break
                self.damaged_bytes += place - self.end
                continue
            if frame.kind == _SCHEMA:
                self._schemas[frame.schema] = frame
            elif frame.schema in self._schemas:
                self._frames.append(frame)
            else:
                self.damaged_bytes += frame.end - place
            self.end = place = frame.end
        if self.head.sealed_bytes:
            self.damaged_bytes += len(data) - self.end


def read_segment(path: Path) -> Iterator[Record]:
    """The records of a segment, in the order in which they were appended.

    Stops at the torn tail of a segment that is not sealed. Raises IntegrityError, before the first
    record, when a part of it is damaged (``Segment`` reads what is left).
    """
    segment = Segment(path)
    if segment.damaged_bytes:
        what = f"{segment.damaged_bytes:,} bytes are damaged"
        raise IntegrityError(Problem(str(path), what))
    return segment.records()


def read_head(path: Path) -> Head:
    """The state of a segment. Raises IntegrityError when the file is none."""
    with path.open("rb") as file:
        return _head(memoryview(file.read(_HEAD.size)), path)


def read_opening(path: Path) -> Opening | None:
    """Whose segment it is; None when its writer died before it had said so."""
    with path.open("rb") as file:
        data = memoryview(file.read(_OPENING_BYTES))
    first = _frame_at(data, _HEAD.size, 0)
    if first is None or first.kind != _OPENING:
        return None
    return Opening(**json.loads(bytes(first.body)))


def seal_left(path: Path) -> bool:
    """Seal what a writer that is no more left open, cut at its torn tail; or remove the file when
    nothing was recorded in it. The caller holds the lock of its spool. Returns whether the file
    is there and was open. Raises IntegrityError when it can't be read."""
    try:
        if read_head(path).sealed_bytes:
            return False
        segment = Segment(path)
    except IntegrityError:
        if path.stat().st_size > _OPENING_BYTES:
            raise
        path.unlink()
        return False
    if segment.empty:
        path.unlink()
        return False
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.ftruncate(fd, segment.end)
        os.fsync(fd)
        _seal(fd, Head(segment.end, segment.shadowed))
    finally:
        os.close(fd)
    return True


class _Frame(NamedTuple):
    kind: int
    schema: int
    header: memoryview
    body: memoryview
    end: int


def _frame(seed: int, kind: int, schema: int, header: bytes, body: Any) -> list[Any]:
    length = len(header) + memoryview(body).nbytes
    head = _FRAME.pack(_FRAME_MAGIC, kind, schema, len(header), length, 0)[:_CHECKED]
    checksum = zlib.crc32(body, zlib.crc32(header, zlib.crc32(head, seed)))
    return [head, checksum.to_bytes(4, "little"), header, body]


def _frame_at(data: memoryview, place: int, seed: int) -> _Frame | None:
    """The whole frame that begins there, None when there is none."""
    start = place + _FRAME.size
    if start > len(data):
        return None
    magic, kind, schema, header, length, checksum = _FRAME.unpack_from(data, place)
    end = start + length
    if magic != _FRAME_MAGIC or header > length or end > len(data):
        return None
    if zlib.crc32(data[start:end], zlib.crc32(data[place : place + _CHECKED], seed)) != checksum:
        return None
    return _Frame(kind, schema, data[start : start + header], data[start + header : end], end)


def _resume(data: memoryview, place: int, seed: int) -> int:
    """Where the next whole frame begins; -1 when nothing follows but a torn tail."""
    content = bytes(data)
    while (place := content.find(_FRAME_MAGIC, place + 1)) >= 0:
        if _frame_at(data, place, seed) is not None:
            return place
    return -1


def _head(data: memoryview, path: Path) -> Head:
    if len(data) < _HEAD.size or bytes(data[: len(_FILE_MAGIC)]) != _FILE_MAGIC:
        raise IntegrityError(Problem(str(path), "is no segment of a prediction log"))
    _, sealed_bytes, shadowed = _HEAD.unpack_from(data)
    return Head(sealed_bytes, bool(shadowed))


def _seal(fd: int, head: Head) -> None:
    """The caller has synced the content: a sealed segment is whole."""
    os.pwrite(fd, _HEAD.pack(_FILE_MAGIC, *head), 0)
    _sync_data(fd)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
