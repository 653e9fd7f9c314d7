"""From a reason to retrain to the one run that does it, and back: asked, started, ended.

The registry decides and remembers; events only start runs. ``reconcile`` makes good what events
lost and what died.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect import Flow, State, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from pydantic import ValidationError

from perennial.contracts.events import Event, news_of
from perennial.contracts.refs import ModelRef
from perennial.contracts.retraining import Retraining, Trigger
from perennial.contracts.runs import Claim, Decision
from perennial.decisions.retraining import is_running
from perennial.stores.claims import claim, own_trigger
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from perennial.stores.registry.retrainings import Retrainings
from tasks._definition import read_definition
from tasks._events import announce
from tasks._running import RETRIES

_FLOW = "continuous-training"
_ON_ITS_WAY = timedelta(minutes=2)
"""How long an event may take to become a run before it counts as lost."""
_UNKNOWN = timedelta(hours=1)
"""How long a run may be unknown to this server: it may be one of another server, at work."""


@task(
    task_run_name="ask to retrain {model.name}",
    cache_policy=NO_CACHE,
    timeout_seconds=120,
    **RETRIES,
)
def ask(model: ModelRef, trigger: Trigger) -> Retraining:
    """Decide about a trigger, put that on record, and tell of it if it is news."""
    table = _table()
    retraining, news = _decide(table, model, trigger)
    if news:
        before = [r for r in table.last(model.name) if r.id != retraining.id]
        if (event := news_of(retraining, before)) is not None:
            announce(event, retraining)
    answer = retraining.current
    get_run_logger().info("Retraining %s: %s, %s", retraining.id, answer.answer, answer.reason)
    return retraining


@task(
    task_run_name="look for new data of {model.name}",
    cache_policy=NO_CACHE,
    timeout_seconds=300,
    **RETRIES,
)
def look_for_data(model: ModelRef) -> Trigger | None:
    """A trigger if the source holds something else than was ingested last, and model.yaml wants to
    know (``retrain.on``). The fingerprint tells such causes apart: what was refused once isn't
    asked for again until the source changes."""
    spec = read_definition(model)
    if "data" not in spec.retrain.on:
        return None
    from perennial.stores import sources, tables
    from perennial.stores.ingested import ingested

    project = Project.current()
    table = project.uri("tables", model.name)
    source = sources.inspect(spec, project.root, tables.watermark(spec, table), as_of=None)
    if ingested(table, source) is not None:
        return None
    return Trigger(
        kind="data",
        reason="the source has changed since it was read last",
        at=datetime.now(UTC),
        data=source.fingerprint,
        evidence={"source": source.model_dump(mode="json")},
    )


@task(
    task_run_name="reconcile retrainings of {model.name}",
    cache_policy=NO_CACHE,
    timeout_seconds=300,
    **RETRIES,
)
def reconcile(model: ModelRef) -> tuple[Retraining, ...]:
    """Make the record and the runs agree, and return what was changed or told of again.

    A retraining whose run has ended without a word is given up; what waits and is due is decided
    anew; what is to go and that no run has, or is about to have, is told of again.
    """
    table, now = _table(), datetime.now(UTC)
    touched: list[Retraining] = []
    with get_client(sync_client=True) as client:
        for r in table.started(model.name):
            run = r.started_run or ""
            if _is_over(client, run, r.began_at, now) and table.give_up(r.id, run, now):
                touched.append(table.one(r.id))
        for r in _unclaimed_requests(table, model.name, now):
            run = r.trigger.data
            if _is_over(client, run, r.began_at, now) and table.start(r.id, run, now):
                table.give_up(r.id, run, now)
                touched.append(table.one(r.id))
        for r in table.due(now, model.name):
            again, news = _decide(table, model, r.trigger)
            if news:
                touched.append(again)
                if again.goes:
                    announce(Event.RETRAINING_DUE, again)
        lost = [r for r in table.unstarted(model.name) if _is_late(r, now)]
        on_their_way = _causes_of_runs(client, model.name) if lost else set()
        for r in lost:
            if r.trigger.cause not in on_their_way:
                announce(Event.RETRAINING_DUE, r)
                touched.append(r)
    for r in touched:
        get_run_logger().info("Retraining %s: %s, %s", r.id, r.state, r.current.reason)
    return tuple(touched)


@task(
    task_run_name="claim a retraining of {model.name}",
    cache_policy=NO_CACHE,
    timeout_seconds=120,
    **RETRIES,
)
def claim_retraining(
    model: ModelRef, trigger: Trigger | None, as_of: datetime | None, reason: str
) -> Claim:
    """Make a retraining this run's own, or say why not.

    Without a trigger it is the schedule's, or somebody's by hand, which always goes. A run with
    ``as_of`` and no trigger is a replay of the past, and on no record.
    """
    if trigger is None and as_of is not None:
        return Claim(model=model.name)
    run, now = str(flow_run.get_id()), datetime.now(UTC)
    return claim(
        _table(),
        model.name,
        trigger or own_trigger(run, reason, _due(), now),
        read_definition(model).retrain,
        run=run,
        actor=_actor(),
        now=now,
    )


@task(
    task_run_name="finish retraining of {claim.model}",
    cache_policy=NO_CACHE,
    timeout_seconds=120,
    **RETRIES,
)
def finish_retraining(claim: Claim, decision: Decision) -> None:
    """Record what became of the run's retraining."""
    if claim.retraining is not None:
        run, now = str(flow_run.get_id()), datetime.now(UTC)
        version = decision.version.version if decision.version else None
        _table().finish(claim.retraining, run, decision.action, now, version=version)


def end_retraining(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001
    """Record that a run failed, crashed or was cancelled (a flow's hook for these).

    Prefect may call it in the worker's process, which may stand elsewhere than the project.
    """
    if not Project.current().home.is_dir():
        return
    table, run, now = _table(), str(flow_run.id), datetime.now(UTC)
    for r in table.started(flow_run.parameters["model"]):
        if r.started_run != run:
            continue
        if state.is_failed():
            table.finish(r.id, run, "failed", now)
        else:
            table.give_up(r.id, run, now)


def _table() -> Retrainings:
    return Registry(Project.current().registry_url).retrainings


def _decide(table: Retrainings, model: ModelRef, trigger: Trigger) -> tuple[Retraining, bool]:
    return table.decide(
        model.name,
        trigger,
        read_definition(model).retrain,
        actor=_actor(),
        now=datetime.now(UTC),
    )


def _actor() -> str:
    return f"flow run {flow_run.get_name()}"


def _due() -> datetime | None:
    """When this run was due by its schedule; None when it was not started by one."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return run.expected_start_time if run and run.auto_scheduled else None


def _unclaimed_requests(table: Retrainings, model: str, now: datetime) -> list[Retraining]:
    """Requests by hand that were decided and not claimed: their own run does that, or nobody."""
    found = table.unstarted(model)
    return [r for r in found if r.trigger.kind == "hand" and is_running(r, now)]


def _is_over(client: SyncPrefectClient, run: str, since: datetime, now: datetime) -> bool:
    """Whether a run has ended, or has been unknown to the server for long."""
    try:
        state = client.read_flow_run(UUID(run)).state
    except ObjectNotFound:
        return now - since > _UNKNOWN
    return state is not None and state.is_final()


def _is_late(r: Retraining, now: datetime) -> bool:
    late = now - r.current.decided_at > _ON_ITS_WAY
    return late and is_running(r, now) and r.trigger.kind != "hand"


def _causes_of_runs(client: SyncPrefectClient, model: str) -> set[str]:
    """The causes that runs of the model's deployments, not yet ended, were started for."""
    kinds = FlowRunFilterStateType(not_any_=[*TERMINAL_STATES])
    runs = client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[_FLOW])),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=kinds)),
        deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=[model])),
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,  # the schedule's runs to come are last
    )
    causes = set()
    for run in runs:
        try:
            causes.add(Trigger.model_validate(run.parameters.get("trigger")).cause)
        except ValidationError:  # of the schedule or by hand, or not one of ours
            continue
    return causes
