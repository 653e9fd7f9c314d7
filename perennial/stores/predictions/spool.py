"""The server's side of the prediction log: append to a file, say when it is safe, nothing else.

Committing to the table is the keeper's work, in another process: no store that is slow or away can
hold up an answer.
"""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from logging import getLogger
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from perennial.contracts.errors import InputError, Problem, UnavailableError
from perennial.contracts.serving import SpoolLag
from perennial.stores.predictions.columns import check_columns
from perennial.stores.predictions.segments import Kind, Opening, SegmentWriter
from perennial.stores.predictions.sessions import Session, take_over
from perennial.stores.predictions.waiting import Stock, segment_name

MIB = 2**20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ROUND_SECONDS = 0.25
_LOOK_SECONDS = 1.0
_RETRY_SECONDS = 5.0
_log = getLogger("perennial.log")


class SpoolFullError(UnavailableError):
    """There is no room for a record. It was not written, not even in part."""


@dataclass(slots=True)
class _Stream:
    """The segments of one model and kind, of which at most one is open."""

    folder: Path
    number: int = 0
    writer: SegmentWriter | None = None
    opened: float = 0.0
    """By the monotonic clock."""


class Spool:
    """Appends records to local segments. May be used by several threads.

    ``acknowledge``: what it means that a record was acknowledged.

    - *fast*: the operating system has it. It reaches the table even when every process of the
      server is killed at that moment; a power cut or a crash of the whole machine may cost the last
      ``seal_seconds`` or so.
    - *strict*: the disk has it (``fdatasync``), so that only the loss of the disk loses it. Records
      that come while the disk is at work share the next call.

    A segment is sealed, and so given to the keeper, when it has ``seal_bytes`` or is
    ``seal_seconds`` old. ``max_bytes`` bounds what may wait in ``folder``, all segments together.

    Starting takes over what servers that died left in the same folder, and raises InputError where
    nothing can be written. A process that is forked
    from this one must not outlive it: it would hold the lock that says that this one lives.
    """

    def __init__(
        self,
        folder: Path,
        *,
        acknowledge: Literal["strict", "fast"] = "fast",
        seal_bytes: int = 32 * MIB,
        seal_seconds: float = 5.0,
        max_bytes: int = 4096 * MIB,
    ) -> None:
        self.folder = folder
        self._strict = acknowledge == "strict"
        self._seal_bytes = seal_bytes
        self._seal_seconds = seal_seconds
        self._max_bytes = max_bytes
        try:
            folder.mkdir(parents=True, exist_ok=True)
            take_over(folder)
            self._session = Session(folder)
        except OSError as error:
            what = f"can't be used for the prediction log: {error.strerror or error}"
            fix = "make it a folder that the server may write to, on a disk with room"
            raise InputError(Problem(str(folder), what, fix)) from None
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._streams: dict[tuple[str, Kind], _Stream] = {}
        self._unsynced: list[tuple[SegmentWriter, Future[None]]] = []
        self._full: list[SegmentWriter] = []
        self._seal_after = 0.0
        self._tell_after = 0.0
        self._problem = ""
        self._used = 0
        self._stock = Stock(folder)
        self._look()
        self._thread = threading.Thread(target=self._work, name="spool", daemon=True)
        self._thread.start()

    def append(
        self, model: str, kind: Kind, batch: pa.RecordBatch, header: Mapping[str, Any]
    ) -> Future[None] | None:
        """Append the rows of a batch, all or none.

        ``header`` is JSON; a list ``shadow`` in it that is not empty keeps the segment until shadow
        versions have scored it. Returns None when the record is acknowledged already (*fast*), or a
        future that is done when it is (*strict*); it may end in an UnavailableError.

        Nobody who waits for that can cancel it, so a request may give up waiting.

        Raises SpoolFullError when the disk or ``max_bytes`` is full, UnavailableError when the disk
        fails, the spool is closed or has a ``problem``, ValueError for a column of a type that no
        table has.
        """
        if not batch.num_rows:
            return None
        message = batch.serialize()
        text = json.dumps(header, separators=(",", ":")).encode()
        schema = batch.schema
        with self._lock:
            if self._closed:
                raise UnavailableError("the prediction log is closed")
            if self._problem:
                raise UnavailableError(self._problem)
            if self._used + message.size > self._max_bytes:
                raise SpoolFullError(
                    f"the prediction log has {self._used // MIB:,} MiB waiting for its table, "
                    f"and no more than {self._max_bytes // MIB:,} may wait"
                )
            stream = self._stream(model, kind)
            try:
                if stream.writer is None or not stream.writer.knows(schema):
                    check_columns(kind, schema)
                writer = stream.writer or self._open(stream, model, kind)
                before = writer.size
                writer.append(schema, message, text, bool(header.get("shadow")))
            except OSError as error:
                if stream.writer is not None and stream.writer.broken:
                    self._retire(stream)
                raise self._refusal(error) from None
            self._used += writer.size - before
            written: Future[None] | None = None
            if self._strict:
                written = Future()
                written.set_running_or_notify_cancel()
                self._unsynced.append((writer, written))
            if writer.size >= self._seal_bytes:
                self._retire(stream)
        if self._strict or writer.size >= self._seal_bytes:
            self._wake.set()
        return written

    @property
    def problem(self) -> str:
        """Why nothing is taken, for whoever sends records; "" when all is well."""
        return self._problem

    def lag(self) -> SpoolLag:
        """What waits on its way to a table, as it was at most about a second ago; the bytes never
        less than now, so that 0 says that all of it is in its table."""
        lag = self._stock.lag
        return replace(lag, bytes=lag.bytes + max(0, self._used - self._stock.all_bytes))

    def close(self) -> None:
        """Seal everything; what is still to be acknowledged is. May be called again."""
        with self._lock:
            self._closed = True
        self._wake.set()
        self._thread.join()

    def _stream(self, model: str, kind: Kind) -> _Stream:
        stream = self._streams.get((model, kind))
        if stream is None:
            if Path(model).name != model or model.startswith("."):
                raise ValueError(f"{model!r} can't name a folder")
            stream = _Stream(self._session.folder / model / kind)
            self._streams[model, kind] = stream
        return stream

    def _open(self, stream: _Stream, model: str, kind: Kind) -> SegmentWriter:
        """Begin the stream's next segment."""
        stream.folder.mkdir(parents=True, exist_ok=True)
        opening = Opening(
            spool=self._session.name,
            number=stream.number + 1,
            model=model,
            kind=kind,
            created_at=time.time(),
            seed=int.from_bytes(os.urandom(4), "little"),
        )
        path = stream.folder / segment_name(opening.number)
        stream.writer = SegmentWriter(path, opening)
        stream.number = opening.number
        stream.opened = time.monotonic()
        self._used += stream.writer.size
        return stream.writer

    def _retire(self, stream: _Stream) -> None:
        assert stream.writer is not None
        self._full.append(stream.writer)
        stream.writer = None

    def _refusal(self, error: OSError) -> UnavailableError:
        """What whoever sent the record may read; our own log tells the folder, every few seconds
        at most."""
        if time.monotonic() >= self._tell_after:
            self._tell_after = time.monotonic() + _RETRY_SECONDS
            _log.error("the spool %s can't be written: %s", self.folder, error)
        if error.errno in _FULL:
            return SpoolFullError("no space left for the prediction log")
        return UnavailableError(f"the prediction log can't be written: {error.strerror or error}")

    # The thread: syncs, seals, and looks at what waits.

    def _work(self) -> None:
        closing, look_after = False, time.monotonic() + _LOOK_SECONDS
        while not closing:
            self._wake.wait(_ROUND_SECONDS)
            self._wake.clear()
            with self._lock:
                closing = self._closed
                for stream in self._streams.values():
                    old = time.monotonic() - stream.opened >= self._seal_seconds
                    if stream.writer is not None and (closing or old):
                        self._retire(stream)
                unsynced, self._unsynced = self._unsynced, []
                full = self._full.copy()
            try:
                self._acknowledge(unsynced)
                self._seal(full, closing)
                if closing or time.monotonic() >= look_after:
                    # It takes time that grows with what waits: never more than a few percent of it.
                    started = time.monotonic()
                    self._look()
                    now = time.monotonic()
                    look_after = now + max(_LOOK_SECONDS, 50 * (now - started))
            except Exception as error:  # nothing is taken until a whole round is well again
                self._failed(unsynced, error)
                look_after = 0.0
            else:
                self._problem = ""
        self._session.close()

    def _failed(self, unsynced: list[tuple[SegmentWriter, Future[None]]], error: Exception) -> None:
        if time.monotonic() >= self._tell_after:
            self._tell_after = time.monotonic() + _RETRY_SECONDS
            _log.error("the spool %s does not work", self.folder, exc_info=error)
        with self._lock:  # also what came meanwhile
            self._problem = f"the prediction log does not work ({type(error).__name__})"
            unsynced, self._unsynced = [*unsynced, *self._unsynced], []
        for _, written in unsynced:
            if not written.done():
                written.set_exception(UnavailableError(self._problem))

    def _acknowledge(self, unsynced: list[tuple[SegmentWriter, Future[None]]]) -> None:
        errors: dict[SegmentWriter, UnavailableError | None] = {}
        for writer in dict.fromkeys(writer for writer, _ in unsynced):
            try:
                writer.sync()
                errors[writer] = None
            except OSError as error:
                errors[writer] = self._refusal(error)
                with self._lock:  # what the disk has of it is not known: go on in another file
                    for stream in self._streams.values():
                        if stream.writer is writer:
                            self._retire(stream)
        for writer, written in unsynced:
            problem = errors[writer]
            if problem is None:
                written.set_result(None)
            else:
                written.set_exception(problem)

    def _seal(self, writers: list[SegmentWriter], closing: bool) -> None:
        """Seal in order. What the disk refuses is tried again later."""
        if time.monotonic() < self._seal_after and not closing:
            return
        for writer in writers:
            try:
                writer.seal()
            except OSError as error:
                self._seal_after = time.monotonic() + _RETRY_SECONDS
                _log.error("segment %s can't be sealed: %s", writer.path, error)
                return
            with self._lock:
                self._full.remove(writer)

    def _look(self) -> None:
        """Take stock of the folder: other servers and the keeper change it too."""
        with self._lock:
            before = self._used
        try:
            self._stock.count()
        except OSError as error:
            _log.error("the spool %s can't be read: %s", self.folder, error)
            return
        with self._lock:  # what was appended meanwhile may count twice, never not at all
            self._used = self._stock.all_bytes + self._used - before
