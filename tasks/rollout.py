"""Rolling a version out: taken up, watched look by look, and its end told."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from perennial.cli.watchers import is_watched
from perennial.contracts.errors import UnavailableError
from perennial.contracts.events import BEGUN, ROLLOUT_LABEL, Event
from perennial.contracts.rollouts import Phase, Rollout
from perennial.reports.markdown import code, plain
from perennial.reports.rollout_progress import headline
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from perennial.stores.rolling_out import (
    at_work_since,
    begin,
    check_every,
    look,
    neglected,
    spec_of,
)
from tasks._desk import (
    NO_ANSWER,
    Desk,
    RolloutOrder,  # noqa: F401  # orders are given to us
    actor,
    briefly,
    forget_deaths,
    is_relieved,
    place_of,
)
from tasks._events import emit, payload_of
from tasks._running import RETRIES, Measured, measured

MOST_DEATHS = 5
"""Runs in a row that may die watching a rollout; one more aborts it."""

_STRETCH = 300.0
"""Seconds that one task watches at most: what happened so far is then on Prefect's page."""
_PATIENCE = 5.0
"""Seconds between two tries while the registry does not answer."""
_TOLD_AGAIN = timedelta(days=1)
_LOOKED_SINCE = timedelta(minutes=2)
"""How much later than a death a look must be to be another run's, by the clocks of two machines."""
_TOLD: dict[Phase, Event] = {
    "promoted": Event.ROLLOUT_PROMOTED,
    "rolled back": Event.ROLLOUT_ROLLED_BACK,
    "aborted": Event.ROLLOUT_ROLLED_BACK,
}

_T = TypeVar("_T")


@task(task_run_name="take up {model}", cache_policy=NO_CACHE, timeout_seconds=86_400, **RETRIES)
def take_up(
    model: str,
    version: int | None,
    settings: dict[str, Any] | None,
    reason: str,
    force: bool,
    deaths: int,
    died: datetime | None,
) -> Rollout | None:
    """The rollout to watch: begun, with a version, else the one that has not ended. Without any it
    is the last one if that has just ended: a run that died may not have told of it.

    Deaths count only for a rollout that nothing has happened to since the last of them, in
    ``died``: a server that was started again may tell of one when another run has long been
    watching, or another rollout is under way.

    Waits for a registry that doesn't answer: nobody else would watch.
    """
    if deaths > MOST_DEATHS + 1:  # nor could it be aborted: a person has to look
        get_run_logger().error("%s runs in a row died; %s is not watched any more", deaths, model)
        return None
    registry = _registry()
    if version is not None:
        return _patiently(
            lambda: begin(
                Project.current(), registry, model, version, settings or {}, actor=actor(),
                reason=reason, cause=f"flow run {flow_run.get_id()}", force=force,
                now=datetime.now(UTC),
            )
        )  # fmt: skip
    active = _patiently(lambda: registry.rollouts.active(model))
    if active is not None:
        if died is not None and active.updated_at > died + _LOOKED_SINCE:
            forget_deaths()
            return active
        if deaths <= MOST_DEATHS:
            return active
        return _patiently(lambda: _given_up(registry, model, deaths))
    last = _patiently(lambda: registry.rollouts.last(model, 1))
    just_ended = [r for r in last if r.ended_at and datetime.now(UTC) - r.ended_at < _TOLD_AGAIN]
    return just_ended[0] if just_ended else None


@task(
    task_run_name="watch {rollout.model}@{rollout.version}",
    cache_policy=NO_CACHE,
    timeout_seconds=_STRETCH + 900,
    **RETRIES,
)
def watch(rollout: Rollout) -> Rollout:
    """Look again and again, as often as ``check_every`` says, and do what people ask in between.
    Returns when another step or phase begins, or after a while.

    Outlasts a registry and a Prefect server that don't answer.
    """
    project = Project.current()
    registry = _registry()
    version = _patiently(lambda: registry.version(rollout.model, rollout.version))
    spec = spec_of(project, version.ref)
    every = spec.rollout.check_every.total_seconds()
    desk, before, began = Desk(), rollout, time.monotonic()
    with measured("watch") as shown:
        while True:
            started = time.monotonic()
            desk.take_orders(registry, rollout.model)
            try:
                now = datetime.now(UTC)
                rollout = look(project, registry, spec, before, actor=actor(), now=now)
            except UnavailableError as error:
                get_run_logger().warning("Waiting: %s", error)
            desk.draw(rollout)
            if place_of(rollout) != place_of(before) or started - began > _STRETCH:
                get_run_logger().info("%s. %s", headline(rollout), rollout.state.reason)
                return rollout
            _progress(shown, rollout, now)
            time.sleep(max(every - (time.monotonic() - started), 0))


@task(
    task_run_name="conclude {rollout.model}@{rollout.version}",
    cache_policy=NO_CACHE,
    timeout_seconds=120,
    **RETRIES,
)
def conclude(rollout: Rollout) -> Rollout:
    """Tell how a rollout ended: once, however many runs do so and however often."""
    from perennial.stores.rollout_pages import page_of

    Desk().draw(rollout)
    state = rollout.state
    get_run_logger().info("%s. %s", headline(rollout), state.reason)
    if state.phase in _TOLD:
        payload = payload_of(
            rollout.model, state.reason,
            f"rollout {rollout.id} of {rollout.started_at.isoformat()}: {state.phase}",
            evidence=_figures(rollout), report=str(page_of(Project.current(), rollout)),
            rollout=rollout.id, version=rollout.version, phase=state.phase,
            champion=rollout.version if state.phase == "promoted" else rollout.champion,
        )  # fmt: skip
        emit(_TOLD[state.phase], rollout.model, payload, once=True)
    return rollout


@task(
    task_run_name="report on {rollout.model}@{rollout.version}",
    cache_policy=NO_CACHE,
    timeout_seconds=1800,
    **RETRIES,
)
def report(rollout: Rollout) -> None:
    """Write the page of a rollout that ended, and the same as an artifact. One that can't be
    written takes nothing back."""
    from perennial.reports.rollout import render_markdown as render_report
    from perennial.stores.rollout_pages import tell, write_page

    project, now = Project.current(), datetime.now(UTC)
    try:
        registry = Registry(project.registry_url)
        version = registry.version(rollout.model, rollout.version)
        spec = spec_of(project, version.ref)
        story = tell(project, spec, registry, rollout, now)
        page = write_page(project, rollout, story)
        text = render_report(rollout, story.looks, story.compared)
        create_markdown_artifact(
            f"{text}\n\nPage: {code(str(page))}\n",
            key=f"{rollout.model}-rollout-report",
            description=plain(headline(rollout)),
        )
    except Exception:
        get_run_logger().warning("The report was not written", exc_info=True)


@task(
    task_run_name="what follows {rollout.model}@{rollout.version}",
    cache_policy=NO_CACHE,
    timeout_seconds=86_400,
    **RETRIES,
)
def successor(rollout: Rollout) -> Rollout | None:
    """What this run watches next: the rollout, as long as it goes on, then one that has begun
    meanwhile, so that it is watched from its beginning. None when there is none, or a younger run
    watches it: what people asked of this one is done before."""
    registry = _registry()
    active = _patiently(lambda: registry.rollouts.active(rollout.model))
    if not rollout.ended and (active is None or active.id != rollout.id):
        return _patiently(lambda: registry.rollouts.one(rollout.id))  # its end is yet to be told
    if active is None:
        return None
    every = check_every(Project.current(), active.model)
    if not is_relieved(active, every, datetime.now(UTC)):
        return active
    Desk().take_orders(registry, active.model)
    return None


@task(
    task_run_name="look after the rollout of {model}",
    cache_policy=NO_CACHE,
    timeout_seconds=120,
    **RETRIES,
)
def remind(model: str) -> Rollout | None:
    """Have a rollout watched that no run watches, because the event that told of it was lost.
    Returns it; None when there is nothing to do. Needs no model.yaml that can be read."""
    project, now = Project.current(), datetime.now(UTC)
    left_alone = neglected(Registry(project.registry_url), now)
    rollout = next((one for one in left_alone if one.model == model), None)
    if rollout is None:
        return None
    if _is_watched(model, at_work_since(project, rollout, now)):
        return None
    reason = f"rollout {rollout.id} of version {rollout.version} is watched by nobody"
    payload = payload_of(
        model, reason, f"rollout {rollout.id} at {now.isoformat()}", evidence={}, report="",
        version=rollout.version,
    )  # fmt: skip
    emit(Event.ROLLOUT_DUE, model, payload, {ROLLOUT_LABEL: BEGUN})
    get_run_logger().warning("%s", reason)
    return rollout


def _is_watched(model: str, since: datetime | None) -> bool:
    """``is_watched``, as the run's Prefect server says. Raises UnavailableError."""
    try:
        with briefly() as client:

            def ask(method: Any, path: Any, body: Any) -> Any:
                return client.request(method, path, json=body).json()

            return is_watched(ask, model, since)
    except NO_ANSWER as error:
        raise UnavailableError(f"Prefect does not answer: {error}") from error


def _registry() -> Registry:
    return _patiently(lambda: Registry(Project.current().registry_url))


def _given_up(registry: Registry, model: str, deaths: int) -> Rollout:
    reason = f"{deaths} runs in a row died while they watched it"
    get_run_logger().error("The rollout of %s is aborted: %s", model, reason)
    now = datetime.now(UTC)
    return registry.rollouts.command(model, "abort", actor=actor(), reason=reason, now=now)


def _patiently(action: Callable[[], _T]) -> _T:
    """What the action gives, as soon as the registry answers."""
    while True:
        try:
            return action()
        except UnavailableError as error:
            get_run_logger().warning("Waiting: %s", error)
            time.sleep(_PATIENCE)


def _progress(shown: Measured, rollout: Rollout, now: datetime) -> None:
    """How far the step's least time is over, for who watches on a terminal."""
    step, last = rollout.plan.steps[rollout.state.step], rollout.state.last
    lasted = int((now - rollout.state.entered_at).total_seconds())
    found = f", {last.requests:,} rows, {last.outcome}" if last else ""
    shown.progress(
        min(lasted, int(step.bake_seconds)), int(step.bake_seconds), headline(rollout) + found
    )


def _figures(rollout: Rollout) -> dict[str, Any]:
    """What the last look measured, a guard's value by its name."""
    last = rollout.state.last
    found = [] if last is None else last.measurements
    values: dict[str, Any] = {one.guard: one.value for one in found if one.value is not None}
    return {"step": rollout.state.step + 1, **values}
