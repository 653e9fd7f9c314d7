"""Trials of a study on a Dask cluster, each a task run of its own on one worker."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from prefect import get_client, task
from prefect.cache_policies import NO_CACHE
from prefect.context import hydrated_context, serialize_context
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, temporary_settings

from perennial.contracts.errors import InputError, Problem
from perennial.learning.studies import TrialRecord
from perennial.learning.tracking import TrialLog
from perennial.learning.trials import Proposal, TrialRunner, Trials
from perennial.spec import ModelSpec, parse_spec, spec_text
from perennial.stores.compute import Cluster
from perennial.stores.matrices import read_training
from perennial.stores.sharing import fetched

ANSWER_SECONDS = 30
"""How long the Prefect server may take to answer a worker."""

Point = tuple[int, float, float]
Study = tuple[str, str, float]
"""Where the matrices are, the text of model.yaml, and when it must end (seconds since 1970)."""

_runners: dict[Study, TrialRunner] = {}
_making = threading.Lock()


@task(task_run_name="trial {number}", cache_policy=NO_CACHE, persist_result=False)
def run_trial(
    number: int,
    study: Study,
    proposal: Proposal,
    finished: Sequence[float],
) -> tuple[TrialRecord | None, list[Point]]:
    """Train one trial on this worker: its record, and the points of its learning curve."""
    del number  # it names the run
    log = _Points()
    record: TrialRecord | None = _runner(study).run(proposal, finished, log)  # type: ignore[arg-type]
    return record, log.points


def _runner(study: Study) -> TrialRunner:
    """Trials of one study share their matrix on this worker too, whatever thread they run on. It
    goes with the study, or when that has no time left: the flow may have been killed."""
    from distributed import get_worker

    with _making:
        runner = _runners.get(study)
        if runner is None:
            _runners.clear()
            place, text, until = study
            spec, left = parse_spec(text), until - time.time()
            runner = _runners[study] = TrialRunner(
                spec,
                read_training(fetched(place), spec.compute.memory),
                cores=get_worker().state.nthreads,
                threads=1,
                deadline=time.monotonic() + left,
            )
            end = threading.Timer(max(left, 0), _runners.pop, [study, None])
            end.daemon = True
            end.start()
            weakref.finalize(runner, end.cancel)
        return runner


async def _end(place: str) -> None:
    """On a worker, without a wait for what it is making: drop its runners for these matrices, and
    tell the server what there is to tell, which may be gone with the flow."""
    for study in [study for study in list(_runners) if study[0] == place]:
        _runners.pop(study, None)
    await _told()


async def _told() -> None:
    """Once this worker has told of its task runs, or could not for a while. Prefect would go on
    with this server for as long as the process lives; the next flow may have another."""
    waiting = EventsWorker.drain_all(timeout=ANSWER_SECONDS, at_exit=False)
    assert not isinstance(waiting, tuple)
    await waiting


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
def trials_on(
    cluster: Cluster, place: str, spec: ModelSpec
) -> Iterator[Callable[[float], ClusterTrials]]:
    """What makes the trials of a study on the matrices at a ``place``, given when they must end.

    They are task runs on the server that this flow has, also where Prefect started that one for the
    run: a worker without its address would start one of its own. Raises InputError when workers
    don't reach it.
    """
    from prefect_dask.task_runners import DaskTaskRunner

    server = str(get_client(sync_client=True).api_url).rstrip("/")
    with temporary_settings({PREFECT_API_URL: server}), cluster.answering():
        _check_reached(cluster, server)
        try:
            with DaskTaskRunner(address=cluster.address) as runner:
                yield partial(ClusterTrials, cluster, runner, place, spec)
        finally:  # trials that waited are let go: none of them makes a runner again
            with suppress(Exception):  # the cluster may be what failed
                cluster.client.run(_end, place, on_error="ignore")


def _check_reached(cluster: Cluster, server: str) -> None:
    told = cluster.client.run(_reaches_server, serialize_context()["settings_context"])
    blind = [worker for worker, reached in told.items() if not reached]
    if blind:
        what = f"not reached by {len(blind)} of {len(told)} workers, such as {blind[0]}"
        fix = (
            "every trial is a task run that its worker tells the server of: set PREFECT_API_URL to "
            "the address of one that the flow and the workers reach"
        )
        raise InputError(Problem(f"the Prefect server {server}", what, fix))


async def _reaches_server(settings: dict[str, Any]) -> bool:
    """On a worker, which goes on meanwhile: whether the server of these settings answers."""
    await _told()  # what a flow that was killed left
    with hydrated_context({"settings_context": settings}):
        try:
            async with asyncio.timeout(ANSWER_SECONDS), get_client() as client:
                return await client.api_healthcheck() is None
        except Exception:
            return False
