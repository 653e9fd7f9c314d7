"""The keeper: a process beside the server that brings the log from local segments to its tables.

``python -m perennial.serving.keeper <settings as JSON>``. It shares nothing with the server but
the spool's folder, has a low priority, and may be killed at any moment: what it had not finished it
does again, and the tables know what they have. A table that can't be written is tried again, ever
more rarely, while the others go on.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from logging import getLogger
from pathlib import Path
from typing import Any, get_args

from perennial.contracts.errors import PerennialError, UnavailableError
from perennial.serving.children import listen_to_stop, stand_back
from perennial.serving.logs import configure
from perennial.spec import ModelSpec, load_spec
from perennial.stores.locks import taken
from perennial.stores.predictions.segments import Kind
from perennial.stores.predictions.sessions import aside, put_aside, take_over
from perennial.stores.predictions.tables import commit_segments
from perennial.stores.predictions.upkeep import tidy
from perennial.stores.predictions.waiting import (
    Stock,
    Waiting,
    finish,
    give_up_shadows,
    waiting,
)
from perennial.stores.project import Project
from perennial.stores.stamps import Stamp, stamp

_NICENESS = 10
_COMMIT_BYTES = 32 * 2**20
_LONGEST_PAUSE_SECONDS = 2.0
_LOCK = "keeper.lock"
_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h
_log = getLogger("perennial.serving.keeper")


@dataclass(frozen=True, slots=True)
class KeeperSettings:
    """What a keeper has to know. ``tables`` is the address below which ``predictions/<model>``,
    ``labels/<model>`` and ``failures/<model>`` lie; ``parent`` is the process whose end is this
    one's.

    Tables are compacted and expired as the models' model.yaml below ``project`` say at the time;
    those of a model that has none, or a wrong one, are only written.
    """

    project: str
    spool: str
    tables: str
    state: str
    parent: int
    poll_seconds: float = 0.5
    tidy_seconds: float = 60.0
    vacuum_seconds: float = 3600.0
    longest_wait_seconds: float = 60.0
    """Between two tries of a table that can't be written."""
    shadow_seconds: float = 3600.0
    """How long segments may wait for shadow versions."""
    shadow_bytes: int = 2**30
    """How much may wait for shadow versions."""

    def command(self) -> list[str]:
        """The command line of a keeper with these settings."""
        return [sys.executable, "-m", "perennial.serving.keeper", json.dumps(asdict(self))]

    @classmethod
    def parse(cls, text: str) -> KeeperSettings:
        return cls(**json.loads(text))


@dataclass(slots=True)
class _Table:
    """One table's place in the rounds."""

    uri: str
    problem: str = ""
    wait_seconds: float = 0.0
    not_before: float = 0.0
    changed: bool = False


class Keeper:
    """Brings what waits to its tables, in rounds."""

    def __init__(self, settings: KeeperSettings) -> None:
        self._settings = settings
        self._spool = Path(settings.spool)
        self._stock = Stock(self._spool)
        self._tables: dict[tuple[Kind, str], _Table] = {}
        self._specs: dict[Path, tuple[Stamp, ModelSpec | None]] = {}
        self._taken_over: set[str] = set()
        self._tidied_at = self._vacuumed_at = time.monotonic()
        self._tidying: threading.Thread | None = None
        self._over = threading.Event()
        self._rows = self._commits = self._given_up = 0
        self._last_commit_at: str | None = None
        self._last_error: dict[str, str] | None = None

    def run(self, stop: threading.Event) -> None:
        """Rounds until ``stop`` is set or the parent is gone; then one more, and the end. A table
        that is being tidied then is tidied to the end, which nobody has to wait for."""
        self._spool.mkdir(parents=True, exist_ok=True)
        with (self._spool / _LOCK).open("w") as lock:
            while not taken(lock):  # the keeper of a server that has just ended finishes first
                if self._ending(stop):
                    return
                stop.wait(0.2)
            while True:
                ending = self._ending(stop)
                if ending:
                    self._over.set()
                started = time.monotonic()
                busy = self._try_round(last=ending)
                self._write_state()
                if busy:
                    _give_back_memory()
                if ending:
                    return
                if not busy:  # looking costs time that grows with what waits
                    pause = min(10 * (time.monotonic() - started), _LONGEST_PAUSE_SECONDS)
                    stop.wait(max(self._settings.poll_seconds, pause))

    def _try_round(self, last: bool) -> bool:
        try:
            return self.round(last)
        except OSError as error:
            self._note(f"the spool {self._spool}: {error}", error)
            return False

    def round(self, last: bool = False) -> bool:
        """Commit what waits; True when there is more. The last round tries every table once."""
        take_over(self._spool, self._taken_over)
        more = False
        for stream in waiting(self._spool):
            table = self._table(stream[0].kind, stream[0].model)
            while stream and (last or time.monotonic() >= table.not_before):
                some = _at_once(stream)
                if not self._commit(table, some):
                    break
                stream = stream[len(some) :]  # noqa: PLW2901
                more = True
        self._given_up += give_up_shadows(
            self._spool, self._settings.shadow_seconds, self._settings.shadow_bytes
        )
        if not last:
            self._begin_to_tidy()
        self._stock.count()
        return more

    def _commit(self, table: _Table, some: Sequence[Waiting]) -> bool:
        try:
            committed = commit_segments(some, table.uri)
            table.changed = True
            if committed.rows:
                self._rows += committed.rows
                self._commits += 1
                self._last_commit_at = _now()
            self._finish(some, committed.damaged)
        except Exception as error:  # whatever a store may raise, nothing is lost by waiting
            self._failed(table, error)
            return False
        table.problem, table.wait_seconds, table.not_before = "", 0.0, 0.0
        return True

    def _finish(self, some: Sequence[Waiting], damaged: Collection[Path]) -> None:
        """Segments whose rows are in their table. Raises UnavailableError when the disk doesn't
        let go of one; what the table has of it, it knows."""
        for one in some:
            try:
                if one.path in damaged:
                    place = put_aside(self._spool, one.path)
                    _log.error("a part of a segment can't be read; it is kept as %s", place)
                finish(one.path, "live")
            except OSError as error:
                why = error.strerror or error
                what = f"segment {one.path} is committed, but can't be marked so: {why}"
                raise UnavailableError(what) from None

    def _begin_to_tidy(self) -> None:
        """Tidy beside the rounds, when it is time: it may take minutes, and commits don't wait."""
        moment = time.monotonic()
        if self._tidying is not None and self._tidying.is_alive():
            return
        if moment - self._tidied_at < self._settings.tidy_seconds:
            return
        self._tidied_at = moment
        vacuum = moment - self._vacuumed_at >= self._settings.vacuum_seconds
        if vacuum:
            self._vacuumed_at = moment
        definitions = sorted(Project(Path(self._settings.project)).models.glob("*/model.yaml"))
        self._tidying = threading.Thread(target=self._tidy, args=(definitions, vacuum), name="tidy")
        self._tidying.start()

    def _tidy(self, definitions: Sequence[Path], vacuum: bool) -> None:
        for spec in filter(None, map(self._spec, definitions)):
            for kind in get_args(Kind):
                table = self._table(kind, spec.name)
                if table.problem or not (table.changed or vacuum):
                    continue
                if self._over.is_set():
                    return
                table.changed = False  # what is committed from now on is for the next time
                try:
                    its, now = spec.log, datetime.now(UTC)
                    tidy(table.uri, its.keep, its.compact_files, now, vacuum)
                except Exception as error:  # tidying can always wait
                    table.changed = True
                    self._note(_words(table, error), error)

    def _spec(self, path: Path) -> ModelSpec | None:
        """What a model.yaml says now. None while it is wrong, which is told once: nothing is
        deleted by what it said before."""
        try:
            seen = stamp(path)
            if path not in self._specs or self._specs[path][0] != seen:
                self._specs[path] = seen, None
                self._specs[path] = seen, load_spec(path)
        except OSError:  # it went a moment ago
            return None
        except Exception as error:  # the other models' tables can be tidied
            why = error.message if isinstance(error, PerennialError) else repr(error)
            self._note(f"tables are not tidied: {why}", error)
        return self._specs[path][1]

    def _failed(self, table: _Table, error: Exception) -> None:
        longest = self._settings.longest_wait_seconds
        table.wait_seconds = min(longest, max(1.0, 2 * table.wait_seconds))
        table.not_before = time.monotonic() + table.wait_seconds
        table.problem = _words(table, error)
        self._note(table.problem, error)

    def _note(self, what: str, error: Exception) -> None:
        _log.warning("%s", what, exc_info=None if isinstance(error, PerennialError) else error)
        self._last_error = {"at": _now(), "what": what}

    def _table(self, kind: Kind, model: str) -> _Table:
        uri = f"{self._settings.tables.rstrip('/')}/{kind}/{model}"
        return self._tables.setdefault((kind, model), _Table(uri))

    def _ending(self, stop: threading.Event) -> bool:
        return stop.is_set() or os.getppid() != self._settings.parent

    def _write_state(self) -> None:
        state: dict[str, Any] = {
            "pid": os.getpid(),
            "updated_at": _now(),
            "monotonic_seconds": time.monotonic(),
            "committed_rows": self._rows,
            "commits": self._commits,
            "last_commit_at": self._last_commit_at,
            "problems": [table.problem for table in list(self._tables.values()) if table.problem],
            "last_error": self._last_error,
            "damaged": [str(path) for path in aside(self._spool)[-20:]],
            "shadow_segments_given_up": self._given_up,
            "lag": asdict(self._stock.lag),
        }
        path = Path(self._settings.state)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(state), encoding="utf-8")
            partial.replace(path)
        except OSError as error:  # a full disk must not stop what may make room on it
            _log.warning("the keeper's state can't be written: %s", error)
            partial.unlink(missing_ok=True)


def _at_once(stream: Sequence[Waiting]) -> Sequence[Waiting]:
    """The first segments of a stream, as many as one commit takes: one at least."""
    size = 0
    for count, one in enumerate(stream):
        size += one.bytes
        if count and size > _COMMIT_BYTES:
            return stream[:count]
    return stream


def _words(table: _Table, error: Exception) -> str:
    what = error.message if isinstance(error, PerennialError) else f"{table.uri}: {error!r}"
    return what[:1000]


def _few_arenas() -> None:
    """Let all threads share one heap: the store's, one a core and more, would each keep its own."""
    with contextlib.suppress(OSError, AttributeError):  # only glibc has this setting
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)


def _give_back_memory() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def main(arguments: Sequence[str]) -> int:
    settings = KeeperSettings.parse(arguments[0])
    configure(part="keeper")
    stand_back(_NICENESS)
    _few_arenas()
    stop = listen_to_stop()
    Keeper(settings).run(stop)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
