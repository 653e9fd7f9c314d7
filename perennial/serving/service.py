"""The service: from a request's rows to logged, acknowledged predictions."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from logging import getLogger
from time import perf_counter

import numpy as np
import pyarrow as pa

from perennial.bundle.predictor import own_fault
from perennial.contracts.errors import InputError, UnavailableError
from perennial.contracts.rollouts import Rollout
from perennial.serving.batching import Batch, Batcher, Job, fail
from perennial.serving.beside import Beside, read_beside
from perennial.serving.log_rows import LogRows, failure_rows
from perennial.serving.metrics import Metrics
from perennial.serving.models import LiveModel, Loaded
from perennial.serving.overtime import Overtime
from perennial.serving.parts import Part, blaming, predicted
from perennial.serving.replies import Refusal, Request, wrong_rows
from perennial.serving.rows import Reads, RequestRows
from perennial.serving.settings import Settings
from perennial.serving.state import ServiceState
from perennial.serving.tracing import Tracing
from perennial.spec import ModelSpec
from perennial.stores.predictions import Redaction, Spool
from perennial.stores.predictions.ids import ids_of
from perennial.stores.project import Project
from perennial.stores.registry import AuditEntry, Route

_log = getLogger("perennial.serving")

_THREADS = 2
"""Of each version, for what is not computed on the loop."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """The predictions of some rows of a request that one version answered.

    ``places`` are the rows' numbers from 0, None when they are all of the request's. ``values`` are
    float32: (rows,) or (rows, classes).
    """

    version: int
    arm: str
    objective: str
    classes: tuple[str, ...] | None
    ids: Sequence[str]
    values: np.ndarray
    places: Sequence[int] | None


@dataclass(frozen=True, slots=True)
class Logging:
    """Whether and how a model's predictions and labels are kept."""

    enabled: bool
    redaction: Redaction

    @classmethod
    def of(cls, spec: ModelSpec) -> Logging:
        """As model.yaml says. Raises InputError when what is kept is to be hashed without a key."""
        return cls(enabled=True, redaction=Redaction.of(spec)) if spec.log.enabled else cls.off()

    @classmethod
    def off(cls) -> Logging:
        """Nothing is kept, so nothing is to be hashed either."""
        return cls(enabled=False, redaction=Redaction((), ()))


@dataclass(frozen=True, slots=True)
class _Lane:
    """A loaded version at work. Its threads are its own: one that hangs holds up no other."""

    loaded: Loaded
    reads: Reads
    batcher: Batcher


class Service:
    """All models of one server. Lives on one event loop. ``shadow_wanted`` is called when a route
    has a shadow: the process that scores it must then be there. ``overtime`` is the clock of the
    loop's thread where that is the main one."""

    def __init__(
        self,
        settings: Settings,
        spool: Spool,
        metrics: Metrics,
        tracing: Tracing | None,
        shadow_wanted: Callable[[], None],
        overtime: Overtime | None = None,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.spool = spool
        self._tracing = tracing
        self._shadow_wanted = shadow_wanted
        self._overtime = overtime
        self.models: dict[str, LiveModel] = {name: LiveModel(name) for name in settings.models}
        self.registry_problem = ""
        self.decisions: tuple[AuditEntry, ...] = ()
        self.rollouts: tuple[Rollout, ...] = ()
        self._read_at: datetime | None = None
        self.draining = False
        self._expected: frozenset[str] | None = None
        self.waiting_requests = 0
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._logging: dict[str, Logging] = {}
        self._loop = asyncio.get_running_loop()
        self._started_at = datetime.now(UTC)
        self._started = time.monotonic()
        self._id_prefix = f"{int(time.time() * 1e3):012x}{os.urandom(4).hex()}"
        self._requests = 0

    @property
    def ready(self) -> bool:
        """Whether all models that were expected at the start have a version that answers, and one
        does at least, and what they answer can be kept. Models that are routed later have their
        own readiness."""
        return (
            self._expected is not None
            and not self.draining
            and not self.spool.problem
            and all(self.models[name].ready for name in self._expected)
            and any(model.ready for model in self.models.values())
        )

    def expect(self, names: Iterable[str]) -> None:
        """The models that are to be served, as they are known at the start: with those that the
        settings name they must answer before the server is ready. To be called on the loop; what
        comes after the first time changes nothing."""
        if self._expected is None:
            for name in names:
                self.models.setdefault(name, LiveModel(name))
            self._expected = frozenset(self.models)

    def adopt(
        self,
        route: Route,
        loaded: Mapping[int, Loaded],
        logging: Logging,
        shadow_classes: tuple[str, ...] = (),
    ) -> None:
        """Follow a model's new route, from the next request on. To be called on the loop."""
        name = route.model
        model = self.models.setdefault(name, LiveModel(name))
        model.adopt(route, loaded, shadow_classes)
        self._logging[name] = logging
        if route.shadow:
            self._shadow_wanted()
        self._lanes = {
            key: lane
            for key, lane in self._lanes.items()
            if key[0] != name or model.loaded.get(key[1]) is lane.loaded
        }
        for number, version in model.loaded.items():
            if (name, number) not in self._lanes:
                self._lanes[name, number] = self._lane(model, version)
        self.metrics.route(name, route.generation)
        self.metrics.route_problem(name, problem=False)
        arms = {str(arm.version): arm.weight for arm in route.arms}
        fields = {"model": name, "generation": route.generation, "arms": arms}
        _log.info("route followed", extra=fields)

    def adopt_logging(self, name: str, logging: Logging) -> None:
        """Keep of a model's predictions what model.yaml now says, from the next batch on. To be
        called on the loop."""
        self._logging[name] = logging

    def route_failed(self, name: str, problem: str) -> None:
        """A model's newest route can't be followed; it stays as it is. To be called on the loop."""
        self.models.setdefault(name, LiveModel(name)).problem = problem
        self.metrics.route_problem(name, problem=True)

    def registry_told(
        self,
        problem: str,
        decisions: tuple[AuditEntry, ...] | None,
        rollouts: tuple[Rollout, ...] = (),
    ) -> None:
        """Whether the registry answers ("" when it does), and its newest decisions with the
        rollouts under way if they were read. To be called on the loop."""
        if problem and not self.registry_problem:
            _log.error("the registry does not answer", extra={"problem": problem})
        elif self.registry_problem and not problem:
            _log.info("the registry answers again")
        self.registry_problem = problem
        if decisions is not None:
            self.decisions, self.rollouts = decisions, rollouts
            self._read_at = datetime.now(UTC)

    def model(self, name: str) -> LiveModel:
        """A model by its name. Raises Refusal when it is not served, or not yet."""
        model = self.models.get(name)
        if model is None:
            known = ", ".join(sorted(self.models)) or "none"
            what = f"no model {name[:80]!r} is served; served are: {known}"
            raise Refusal(404, "unknown_model", what)
        if not model.ready:
            why = "its versions can't be loaded" if model.problem else "none of its versions serves"
            raise Refusal(503, "not_ready", f"{name!r} can't answer yet: {why}", retry_after=2)
        return model

    def reads(self, model: LiveModel, version: Loaded) -> Reads:
        return self._lanes[model.name, version.number].reads

    async def predict(
        self,
        model: LiveModel,
        version: str | None,
        rows: RequestRows,
        request: Request,
    ) -> list[Predicted]:
        """Predict and log the rows of a request; done means acknowledged.

        Each row is answered by the version its entity is assigned to, unless the request names one.
        Raises Refusal.
        """
        request.model = model.name
        most = self.settings.max_rows
        if not 0 < rows.count <= most:
            what = f"{rows.count:,} rows; a request has 1 to {most:,}"
            status, code = (413, "too_many_rows") if rows.count else (422, "no_rows")
            raise Refusal(status, code, what)
        ids = self._new_ids(rows.count)
        only = model.only() if version is None else model.pinned(version)
        try:
            if only is None:
                parts = self._parts(model, rows, ids, request)
            else:
                arm = "pinned" if version is not None else model.arm(only.number)
                parts = [self._part(model, only, arm, rows, ids, None, request)]
            request.answered = [(part.job.version, part.job.arm) for part in parts]
            values = await predicted(parts)
        except asyncio.CancelledError:  # the time is over
            late = [part.job for part in parts if part.job.answer.cancelled()]
            for job in late if not self.draining else ():
                self._failed(model, job, TimeoutError())
            raise
        except InputError as error:
            if own_fault(error):
                raise
            raise wrong_rows(error) from None
        seconds = perf_counter() - request.received
        for part in parts:
            job = part.job
            self.metrics.answered(model.name, job.version, job.arm, job.count, seconds)
        return [
            Predicted(
                version=part.loaded.number,
                arm=part.job.arm,
                objective=part.loaded.spec.objective,
                classes=part.loaded.schema.classes,
                ids=part.job.ids,
                values=found,
                places=part.places,
            )
            for part, found in zip(parts, values, strict=True)
        ]

    def _parts(
        self, model: LiveModel, rows: RequestRows, ids: Sequence[str], request: Request
    ) -> list[Part]:
        """The request's rows by the version that answers them."""
        keys = rows.keys(self.reads(model, model.champion()))
        assigned = model.assign([key or own for key, own in zip(keys, ids, strict=True)])
        parts: list[Part] = []
        for number in dict.fromkeys(assigned):
            places = [place for place, version in enumerate(assigned) if version == number]
            own_ids = [ids[place] for place in places]
            arm = model.arm(number)
            with blaming(request, number, arm, places):
                own_rows = rows.take(places)
                loaded = model.loaded[number]
                parts.append(self._part(model, loaded, arm, own_rows, own_ids, places, request))
        return parts

    def _part(
        self,
        model: LiveModel,
        loaded: Loaded,
        arm: str,
        rows: RequestRows,
        ids: Sequence[str],
        places: Sequence[int] | None,
        request: Request,
    ) -> Part:
        lane = self._lanes[model.name, loaded.number]
        job = Job(
            rows=rows.columns(lane.reads),
            count=rows.count,
            version=loaded.number,
            arm=arm,
            ids=ids,
            request=request,
            answer=self._loop.create_future(),
        )
        return Part(loaded, lane.batcher, job, places)

    def _lane(self, model: LiveModel, loaded: Loaded) -> _Lane:
        reads = Reads(loaded.spec, loaded.schema, loaded.predictor.columns)
        done = partial(self._computed, model, LogRows(loaded))
        failed = partial(self._failed, model)
        pool = ThreadPoolExecutor(_THREADS, f"{model.name}@{loaded.number}")
        moved = partial(_tell_moved, model.name, loaded.number)
        clock = self._overtime
        batcher = Batcher(loaded.predictor, pool, done, failed, loaded.inline, clock, moved)
        return _Lane(loaded, reads, batcher)

    def _computed(self, model: LiveModel, rows: LogRows, batch: Batch) -> None:
        """Log a batch, then answer its jobs. Never raises: whoever waits gets an answer."""
        number, seconds = batch.jobs[0].version, batch.ended - batch.started
        try:
            self.metrics.batch(model.name, number, len(batch.values), seconds, batch.unseen)
            if self._tracing is not None:
                spans = [job.request.span for job in batch.jobs]
                times = batch.started, batch.ended
                self._tracing.batch(model.name, number, len(batch.values), *times, spans)
            written = self._append(model, rows, batch)
        except UnavailableError as error:
            fail(batch.jobs, Refusal(503, "log_full", error.message, retry_after=5))
            return
        except Exception as error:
            fail(batch.jobs, error)
            return
        if written is None:
            _answer(batch)
        else:
            written.add_done_callback(
                lambda done: self._loop.call_soon_threadsafe(_written, batch, done)
            )

    def _failed(self, model: LiveModel, job: Job, error: Exception) -> None:
        """Log rows that a version failed on, or did not answer in time; guards of a rollout count
        them. Never raises, and nobody waits for it: their sender gets an error in any case."""
        if not own_fault(error) or not self._logging[model.name].enabled:
            return
        try:
            rows = failure_rows(job, error, perf_counter())
            self.spool.append(model.name, "failures", rows, {})
        except Exception as problem:
            _log.warning("a failure could not be logged", extra={"problem": type(problem).__name__})

    def _append(self, model: LiveModel, rows: LogRows, batch: Batch) -> Future[None] | None:
        logging = self._logging[model.name]
        if not logging.enabled:
            return None
        record = logging.redaction.apply(rows.of(batch))
        header = {
            "shadow": list(model.route.shadow),
            "unseen": dict(batch.unseen),
            "hashed": list(logging.redaction.hashed),
        }
        return self.spool.append(model.name, "predictions", record, header)

    async def log_labels(self, model: LiveModel, labels: pa.RecordBatch) -> None:
        """Keep labels; done means acknowledged. Raises Refusal."""
        logging = self._logging[model.name]
        if not logging.enabled:
            what = (
                f"no labels of {model.name!r} are kept: its log is turned off, or this server "
                "has no model.yaml that says what may be kept"
            )
            raise Refusal(409, "nothing_kept", what)
        record = logging.redaction.apply(labels)
        try:
            written = self.spool.append(model.name, "labels", record, {})
            if written is not None:
                await asyncio.wrap_future(written)
        except UnavailableError as error:
            raise Refusal(503, "log_full", error.message, retry_after=5) from None

    def _new_ids(self, count: int) -> list[str]:
        """Ids of one request's rows that are unique in all the world, and sort by the time the
        server was started."""
        self._requests += 1
        return ids_of(f"{self._id_prefix}{self._requests:09x}", count)

    def state(self) -> ServiceState:
        return ServiceState(
            started_at=self._started_at,
            ready=self.ready,
            models=tuple(model.state() for _, model in sorted(self.models.items())),
            registry_problem=self.registry_problem,
            decisions=self.decisions,
            rollouts=self.rollouts,
            read_at=self._read_at,
            log_problem=self.spool.problem,
            lag=self.spool.lag(),
            beside=self.beside(),
        )

    def beside(self) -> Beside:
        """What the processes beside the server say of themselves."""
        folder = Project(self.settings.project).home / "serving"
        return read_beside(folder, self._started, time.monotonic())

    def close(self) -> None:
        """Write what is acknowledged. What still computes is waited for no longer."""
        self.spool.close()


def _answer(batch: Batch) -> None:
    start = 0
    for job in batch.jobs:
        if not job.answer.done():
            job.answer.set_result(batch.values[start : start + job.count])
        start += job.count


def _written(batch: Batch, written: Future[None]) -> None:
    error = written.exception()
    if error is None:
        _answer(batch)
    else:
        fail(batch.jobs, Refusal(503, "log_full", str(error), retry_after=5))


def _tell_moved(model: str, version: int, back: bool) -> None:
    fields = {"model": model, "version": version}
    if back:
        _log.info("the version is quick again, and back on the loop", extra=fields)
    else:
        _log.warning("the version became slow, and is computed on its threads", extra=fields)
