"""The shadow process: what others answered is scored by shadow versions too, beside the server.

``python -m perennial.serving.shadow <settings as JSON>``. It reads sealed segments of the
prediction log, so a shadow version is never in a request's way: it may be wrong, slow or crash. It
has a low priority, and may be killed at any moment: a segment's shadow rows reach the
table in one commit, exactly once. Whatever goes wrong here is counted and told in the state file;
live rows, and the space their segments take, don't wait for it (see ``waiting.give_up_shadows``).

What a record may cost is limited by the kernel's timers, which end the process even when it hangs
in compiled code. Whoever started it starts it again; a version that ends it twice on one segment
is not tried there any more, and after four times in all nowhere. Of several servers of a project
one has its process at work, the others' wait for their turn.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from perennial.contracts.errors import InputError, IntegrityError, UnavailableError
from perennial.contracts.refs import VersionRef
from perennial.serving.children import listen_to_stop, stand_back
from perennial.serving.logs import configure
from perennial.serving.shadow_state import ShadowState, told
from perennial.serving.shadow_version import Scored, ShadowVersion
from perennial.stores.locks import taken
from perennial.stores.predictions.segments import Record, Segment
from perennial.stores.predictions.tables import commit_rows, open_log
from perennial.stores.predictions.waiting import Waiting, finish, waiting
from perennial.stores.project import Project
from perennial.stores.registry import Registry

_NICENESS = 15
_LOCK = "shadow.lock"
_MOST_VERSIONS = 4  # that are kept loaded
_ENDED = "ProcessEnded"
"""Stands for an exception's type where a version took the whole process with it."""


@dataclass(frozen=True, slots=True)
class ShadowSettings:
    """What the process has to know. ``tables`` is the address below which ``predictions/<model>``
    and ``failures/<model>`` lie; ``parent`` is the process whose end is this one's, and ``started``
    when that began, in seconds of the monotonic clock."""

    project: str
    spool: str
    tables: str
    state: str
    parent: int
    started: float
    poll_seconds: float = 0.5
    longest_wait_seconds: float = 60.0
    """Between two tries when the registry or a table does not answer."""
    cpu_seconds: float = 30.0
    """Of processor time for one record, or for loading a version."""
    seconds: float = 300.0
    """The same by the clock."""

    def command(self) -> list[str]:
        """The command line of a process with these settings."""
        return [sys.executable, "-m", "perennial.serving.shadow", json.dumps(asdict(self))]


class Shadow:
    """Scores what waits for shadow versions, in rounds."""

    def __init__(self, settings: ShadowSettings) -> None:
        self._settings = settings
        self._spool = Path(settings.spool)
        self._project = Project(Path(settings.project))
        self._registry: Registry | None = None
        self._refs: dict[tuple[str, int], VersionRef] = {}
        self._loaded: dict[str, ShadowVersion] = {}  # by digest
        self._pauses: dict[str, _Pause] = {}
        self._stop = threading.Event()

    @cached_property
    def _state(self) -> ShadowState:
        """Read in the first round: until its turn comes, other servers' processes write it."""
        return ShadowState(Path(self._settings.state), self._settings.started)

    def run(self, stop: threading.Event) -> None:
        """Rounds until ``stop`` is set or the parent is gone."""
        self._stop = stop
        self._spool.mkdir(parents=True, exist_ok=True)
        with (self._spool / _LOCK).open("w") as lock:
            while not self._ending() and not taken(lock):
                stop.wait(0.2)
            while not self._ending():
                try:
                    self.round()
                except _EndingError:
                    return
                stop.wait(self._settings.poll_seconds)

    def round(self) -> None:
        """Score every segment that waits, stream by stream and oldest first. A model whose table,
        or the registry, can't be read or written is left for another time."""
        streams = waiting(self._spool, "shadow")
        self._state.waiting(sum(map(len, streams)))
        for stream in streams:
            pause = self._pauses.setdefault(stream[0].model, _Pause())
            if time.monotonic() < pause.until:
                continue
            try:
                for segment in stream:
                    self._segment(segment)
                pause.seconds = 0.0
                self._state.problem(segment.model, None)
            except (UnavailableError, IntegrityError, OSError) as error:  # the segments stay
                longest = self._settings.longest_wait_seconds
                pause.seconds = min(longest, max(1.0, 2 * pause.seconds))
                pause.until = time.monotonic() + pause.seconds
                self._state.problem(segment.model, error)

    def _segment(self, segment: Waiting) -> None:
        tables = self._settings.tables.rstrip("/")
        uri = f"{tables}/predictions/{segment.model}"
        results: dict[int, Scored] = {}
        writer = f"{segment.session}/shadow"
        if _committed(uri, writer) < segment.number:
            try:
                records = list(Segment(segment.path).records())
            except FileNotFoundError:  # given up, or put aside as damaged
                return
            except IntegrityError:  # the keeper says so, and puts it aside
                finish(segment.path, "shadow")
                return
            results = self._score(segment, records)
            # Failures first: only what is in both tables is not scored again after a kill.
            failed = [table for scored in results.values() for table in scored.failed]
            if failed:
                failures = f"{tables}/failures/{segment.model}"
                together = [pa.concat_tables(failed)]
                commit_rows(failures, "failures", writer, segment.number, together)
            rows = [table for scored in results.values() for table in scored.tables()]
            if rows:
                commit_rows(uri, "predictions", writer, segment.number, rows)
        finish(segment.path, "shadow")
        self._state.done(segment.model, results)

    def _score(self, segment: Waiting, records: Sequence[Record]) -> dict[int, Scored]:
        """What each shadow version that a segment's records name makes of them."""
        results: dict[int, Scored] = {}
        for version in sorted({v for r in records for v in r.header.get("shadow", ())}):
            mine = [r for r in records if version in r.header.get("shadow", ())]
            with self._state.trying(segment, version) as refusal:
                if refusal:
                    scored = results[version] = Scored(version)
                    _fail(scored, mine, _ENDED, refusal)
                else:
                    results[version] = self._score_by(segment.model, version, mine)
        return results

    def _score_by(self, model: str, version: int, records: Sequence[Record]) -> Scored:
        scored = Scored(version)
        try:
            with self._limited():
                shadow = self._version(model, version)
                scored.classes = shadow.classes
                hashed = self._hashed(model)
        except UnavailableError:
            raise
        except BaseException as error:  # feature code may even ask the process to end
            _fail(scored, records, type(error).__name__, f"can't be loaded: {told(error)}")
            return scored
        for record in records:
            if self._ending():
                raise _EndingError  # the next process scores the segment anew
            with self._limited():
                own = {*hashed, *record.header.get("hashed", ())}
                shadow.score(record.batch, own, scored)
        return scored

    def _version(self, model: str, version: int) -> ShadowVersion:
        ref = self._ref(model, version)
        if ref.digest not in self._loaded:
            while len(self._loaded) >= _MOST_VERSIONS:
                del self._loaded[next(iter(self._loaded))]
            self._loaded[ref.digest] = ShadowVersion(ref, self._project)
        return self._loaded[ref.digest]

    def _ref(self, model: str, version: int) -> VersionRef:
        """As the registry has it now: one that was restored may give a number to another bundle.
        While it does not answer, as it was known last."""
        key = (model, version)
        try:
            self._registry = self._registry or Registry(self._project.registry_url, make=False)
            self._refs[key] = self._registry.version(model, version).ref
        except UnavailableError:
            if key not in self._refs:
                raise
        return self._refs[key]

    def _hashed(self, model: str) -> tuple[str, ...]:
        """The columns that model.yaml says to hash now; none when there is no such model here."""
        try:
            return self._project.load_model(model)[1].log.hash
        except InputError:
            return ()

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """End the process when what is done within takes too long."""
        signal.setitimer(signal.ITIMER_PROF, self._settings.cpu_seconds)
        signal.setitimer(signal.ITIMER_REAL, self._settings.seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _ending(self) -> bool:
        return self._stop.is_set() or os.getppid() != self._settings.parent


class _EndingError(Exception):
    """The process is to end before a segment is done."""


@dataclass(slots=True)
class _Pause:
    """Until when (monotonic) a model is left alone."""

    seconds: float = 0.0
    until: float = 0.0


def _committed(uri: str, writer: str) -> int:
    """The number of the last segment whose shadow rows are in the table."""
    table = open_log(uri)
    return 0 if table is None else int(table.transaction_version(writer) or 0)


def _fail(scored: Scored, records: Sequence[Record], error: str, reason: str) -> None:
    for record in records:
        scored.fail(record.batch, error, reason)


def main(arguments: Sequence[str]) -> int:
    settings = ShadowSettings(**json.loads(arguments[0]))
    configure(part="shadow")
    stand_back(_NICENESS)
    stop = listen_to_stop()
    for limit in (signal.SIGALRM, signal.SIGPROF):  # say where it hung, then die of it
        faulthandler.register(limit, chain=True)
    Shadow(settings).run(stop)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
