"""Trials of a study on a Dask cluster, each a task run of its own on one worker."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from perennial.learning.studies import TrialRecord
from perennial.learning.tracking import TrialLog
from perennial.learning.trials import Proposal, TrialRunner, Trials
from perennial.spec import ModelSpec, parse_spec, spec_text
from perennial.stores.compute import Cluster
from perennial.stores.matrices import read_training
from perennial.stores.sharing import fetched

Point = tuple[int, float, float]


@task(task_run_name="trial {number}", cache_policy=NO_CACHE, persist_result=False)
def run_trial(
    number: int,
    study: tuple[str, str, float],
    proposal: Proposal,
    finished: Sequence[float],
) -> tuple[TrialRecord | None, list[Point]]:
    """Train one trial on this worker: its record, and the points of its learning curve."""
    del number  # it names the run
    log = _Points()
    record: TrialRecord | None = _runner(*study).run(proposal, finished, log)  # type: ignore[arg-type]
    return record, log.points


@lru_cache(maxsize=1)
def _runner(place: str, text: str, until: float) -> TrialRunner:
    """Trials of one study share their matrix, on this worker too."""
    from distributed import get_worker

    spec = parse_spec(text)
    deadline = time.monotonic() + until - time.time()
    matrices = read_training(fetched(place), spec.compute.memory)
    cores = get_worker().state.nthreads
    return TrialRunner(spec, matrices, cores=cores, threads=1, deadline=deadline)


@dataclass
class _Points:
    """Keeps what a trial would track, to be tracked where the study runs."""

    points: list[Point] = field(default_factory=list)

    def trial(self, *_: object) -> _Points:
        return self

    def point(self, rounds: int, value: float, best: float) -> None:
        self.points.append((rounds, value, best))

    def ended(self, record: TrialRecord) -> None:
        pass


class ClusterTrials(Trials):
    """Runs trials as ``TrialRunner`` does, each on a worker of a cluster, which finds the matrices
    at the ``place``."""

    def __init__(
        self, cluster: Cluster, runner: Any, place: str, spec: ModelSpec, deadline: float
    ) -> None:
        super().__init__(deadline)
        self._cluster = cluster
        self._runner = runner
        until = time.time() + deadline - time.monotonic()
        self._study = (place, spec_text(spec), until)
        self._context = contextvars.copy_context()  # the task's, for the threads that wait

    def _trained(
        self, proposal: Proposal, finished: Sequence[float], tracked: TrialLog
    ) -> TrialRecord | None:
        record, points = self._context.copy().run(self._there, proposal, list(finished))
        for point in points:
            tracked.point(*point)
        return record

    def _there(
        self, proposal: Proposal, finished: list[float]
    ) -> tuple[TrialRecord | None, list[Point]]:
        parameters = {
            "number": proposal.number,
            "study": self._study,
            "proposal": proposal,
            "finished": finished,
        }
        future = self._runner.submit(run_trial, parameters=parameters)
        self._cluster.result(future.wrapped_future)  # Prefect waits for ever for a worker to come
        found: tuple[TrialRecord | None, list[Point]] = future.result()
        return found


@contextmanager
def trials_on(cluster: Cluster) -> Iterator[Any]:
    """prefect-dask's task runner on a cluster that is there."""
    from prefect_dask.task_runners import DaskTaskRunner

    with cluster.answering(), DaskTaskRunner(address=cluster.address) as runner:
        yield runner
