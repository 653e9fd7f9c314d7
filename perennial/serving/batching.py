"""Natural batching: what arrives while a batch computes is the next batch.

Small batches are computed on the event loop itself. Under Python's lock a thread beside the loop
would only take turns with it, five milliseconds at a time, while the sockets hold what arrives in
the meantime just as well as a queue would: a lone request waits for nobody, and the busier the
server, the larger the batches. Batches of many rows, and versions that were slow when they were
warmed up, are computed on a thread, so that the loop stays free for the others. So are those of a
version that became slow, for as long as it is, and a batch that takes the loop for a second, save
where its code leaves Python's lock to nobody, as a pattern that backtracks does: there nothing on a
thread could end it, so it is ended on the loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa

from perennial.bundle.predictor import Predictor
from perennial.contracts.errors import FeatureError, Problem
from perennial.data.feature_code import FILE
from perennial.data.frames import Canonical
from perennial.serving.overtime import SECONDS, SLOW_SECONDS, Overtime, OvertimeError
from perennial.serving.replies import Request

INLINE_ROWS = 64
"""Most rows of a batch that is computed on the loop: about two milliseconds."""

_PATIENCE_SECONDS = 0.001
"""Those who were answered together ask again almost together. The first of them waits for the
others: for half of what the last batch took, this at most, and never when that had one request."""

_MANY = 500
"""When so many wait those that were given up are let go: the batch before them may never end."""
_SLOW = 3
_SLOW_WITHIN_SECONDS = 60.0
"""So many batches of a version that are slow on the loop within this time, and the next go to its
threads, until none was slow for as long."""

Rows = Any
"""``Mapping[str, Sequence[object]]`` of Python values, or a ``pyarrow.Table``."""


@dataclass(slots=True, eq=False)
class Job:
    """One request's rows for one version, and where its predictions go.

    ``ids`` are the predictions', one a row.
    """

    rows: Rows
    count: int
    version: int
    arm: str
    ids: Sequence[str]
    request: Request
    answer: asyncio.Future[np.ndarray]


@dataclass(frozen=True, slots=True)
class Batch:
    """Jobs that were computed together. ``values`` are the predictions of all rows, in order."""

    jobs: Sequence[Job]
    rows: Canonical
    values: np.ndarray
    unseen: Mapping[str, int]
    started: float
    ended: float


class Batcher:
    """The batches of one version. Everything but the computing itself happens on the loop.

    ``done`` is called on the loop with each finished batch, and answers its jobs. A job whose rows
    the model can't read gets its InputError, and fails nobody else; ``failed`` is called with it
    first. A job may have been given up by then (its future is cancelled): it may be computed all
    the same. ``overtime`` is the clock of the loop's thread; without it a batch may take the loop
    for ever. A version that is ``inline`` goes to its threads while it is slow; ``moved`` is called
    with whether it came back.
    """

    def __init__(
        self,
        predictor: Predictor,
        pool: Executor,
        done: Callable[[Batch], None],
        failed: Callable[[Job, Exception], None],
        inline: bool,
        overtime: Overtime | None = None,
        moved: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._predictor = predictor
        self._pool = pool
        self._done = done
        self._failed = failed
        self._inline = inline
        self._overtime = overtime
        self._moved = moved
        self._away = False  # from the loop, because it became slow
        self._slow: deque[float] = deque(maxlen=_SLOW)  # when its last slow batches ended
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Job] = []
        self._many = _MANY
        self._busy = False  # a batch is computed, or about to be
        self._last = 1
        self._patience = 0.0
        self._patience_ends = 0.0

    def submit(self, job: Job) -> None:
        if job.count > INLINE_ROWS or isinstance(job.rows, pa.Table):
            self._on_thread([job], self._finish)
            return
        self._waiting.append(job)
        if len(self._waiting) > self._many:
            self._waiting = [job for job in self._waiting if not job.answer.cancelled()]
            self._many = max(_MANY, 2 * len(self._waiting))
        if not self._busy:
            self._begin()

    def _begin(self) -> None:
        self._busy = True
        self._patience_ends = perf_counter() + self._patience
        self._loop.call_soon(self._gather)

    def _gather(self) -> None:
        """Turn the loop, so that it reads its sockets, until as many have asked as last time."""
        if len(self._waiting) < self._last and perf_counter() < self._patience_ends:
            self._loop.call_soon(self._gather)
        else:
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        jobs = self._take()
        self._last = len(jobs)
        if self._inline:
            self._compute_here([jobs])
        else:
            self._on_thread(jobs, self._finish_and_go_on)

    def _compute_here(self, batches: list[list[Job]]) -> None:
        """Compute one batch on the loop, and the others after it has turned. Of one that takes too
        long each job is tried by itself: on a thread where the code leaves others Python's lock,
        and else here, to be ended if it is what takes so long."""
        jobs, *rest = batches
        try:
            results = self._in_time(jobs)
        except OvertimeError as over:
            assert self._overtime is not None
            self._overtime.end()  # it may have rung in the end of it
            results = []
            if over.yields:
                for job in jobs:
                    self._on_thread([job], self._finish)
            elif len(jobs) == 1:
                results = [_Failed(jobs[0], _too_long(jobs[0]))]
            else:
                rest = [[job] for job in jobs]
        try:
            self._finish(results)
        finally:
            self._judge_here()
            rest = [[job] for [job] in rest if not job.answer.done()]
            if rest:
                self._loop.call_soon(self._compute_here, rest)
            else:
                self._go_on()

    def _in_time(self, jobs: list[Job]) -> list[Batch | _Failed]:
        """As ``_compute``, with the clock running: raises OvertimeError when it rings."""
        if self._overtime is None:
            return self._compute(jobs)
        try:
            self._overtime.begin()
            results = self._compute(jobs)
        finally:
            self._overtime.end()
        if self._overtime.over is not None:  # feature code caught it, and went on
            raise self._overtime.over
        return results

    def _judge_here(self) -> None:
        """Go to the threads after several slow batches. One that leaves others no lock is none."""
        if self._overtime is None or not self._overtime.slow or not self._inline:
            return
        self._slow.append(perf_counter())
        if len(self._slow) == _SLOW and self._slow[-1] - self._slow[0] < _SLOW_WITHIN_SECONDS:
            self._inline, self._away = False, True
            self._moved(False)

    def _judge_there(self, results: list[Batch | _Failed]) -> None:
        """Come back to the loop when it has not been slow for a while."""
        took = [r.ended - r.started for r in results if isinstance(r, Batch)]
        if not self._away or not took:
            return
        if max(took) > SLOW_SECONDS:
            self._slow.append(perf_counter())
        elif perf_counter() - self._slow[-1] > _SLOW_WITHIN_SECONDS:
            self._inline, self._away = True, False
            self._slow.clear()
            self._moved(True)

    def _go_on(self) -> None:
        if self._waiting:
            self._begin()
        else:
            self._busy = False

    def _take(self) -> list[Job]:
        count = rows = 0
        for job in self._waiting:
            if rows and rows + job.count > INLINE_ROWS:
                break
            rows += job.count
            count += 1
        jobs, self._waiting = self._waiting[:count], self._waiting[count:]
        return jobs

    def _on_thread(self, jobs: list[Job], then: Callable[[list[Batch | _Failed]], None]) -> None:
        """What is given up before its turn comes is let go, rows and all: the threads may hang."""

        def let_go(answer: asyncio.Future[np.ndarray]) -> None:
            if answer.cancelled():
                jobs.clear()

        if len(jobs) == 1:
            jobs[0].answer.add_done_callback(let_go)
        running = self._loop.run_in_executor(self._pool, self._compute_queued, jobs)
        running.add_done_callback(lambda future: then(future.result()))

    def _compute_queued(self, queued: list[Job]) -> list[Batch | _Failed]:
        jobs = list(queued)
        return self._compute(jobs) if jobs else []

    def _finish_and_go_on(self, results: list[Batch | _Failed]) -> None:
        try:
            self._finish(results)
        finally:
            self._judge_there(results)
            self._go_on()

    def _finish(self, results: list[Batch | _Failed]) -> None:
        for result in results:
            if isinstance(result, Batch):
                self._patience = min((result.ended - result.started) / 2, _PATIENCE_SECONDS)
                self._done(result)
            else:
                self._failed(result.job, result.error)
                fail([result.job], result.error)

    def _compute(self, jobs: list[Job]) -> list[Batch | _Failed]:
        """One batch of all jobs; where it fails, each job by itself. Raises OvertimeError alone."""
        started = perf_counter()
        try:
            rows = self._predictor.read(_joined(jobs))
            found = self._predictor.predict_frame(rows)
        except OvertimeError:
            raise
        except BaseException as error:  # feature code may even ask the process to end
            if len(jobs) == 1:
                return [_Failed(jobs[0], _as_failure(error))]
            return [result for job in jobs for result in self._compute([job])]
        return [Batch(jobs, rows, found.values, found.unseen, started, perf_counter())]


@dataclass(frozen=True, slots=True)
class _Failed:
    job: Job
    error: Exception


def _as_failure(error: BaseException) -> Exception:
    """What is no Exception can't be an answer. It is the feature code's: a Ctrl-C is not raised in
    a server, which listens to its signal."""
    if isinstance(error, Exception):
        return error
    failure = FeatureError(Problem(FILE, f"raised {type(error).__name__}"))
    failure.__cause__ = error
    return failure


class TooLongError(FeatureError):
    """Feature code was ended on the loop."""


def _too_long(job: Job) -> Exception:
    what = f"did not end within {SECONDS:g} s for {job.count} row{'s' * (job.count > 1)}"
    return TooLongError(Problem(FILE, what))


def fail(jobs: Sequence[Job], error: Exception) -> None:
    """Answer jobs with an error."""
    for job in jobs:
        if not job.answer.done():
            job.answer.set_exception(error)


def _joined(jobs: Sequence[Job]) -> Any:
    if len(jobs) == 1:
        return jobs[0].rows
    names = jobs[0].rows
    return {name: [value for job in jobs for value in job.rows[name]] for name in names}
