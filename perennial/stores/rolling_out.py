"""Beginning a rollout by a model's own settings, and a look at one that is under way: measure what
its present step did so far, judge that, and write down what follows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from logging import getLogger
from typing import Any

from perennial.contracts.errors import InputError
from perennial.contracts.refs import VersionRef
from perennial.contracts.rollouts import Check, Measurement, Rollout
from perennial.spec import ModelSpec
from perennial.spec.documents import document_text
from perennial.spec.production import Rollout as RolloutSpec
from perennial.spec.reading import parse_spec
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from perennial.stores.registry.rollouts import StaleRolloutError

_log = getLogger("perennial.rollout")
_UNSEEN = timedelta(minutes=2)
"""How long an event may take to become a run that looks before it counts as lost."""
_STUCK = timedelta(minutes=10)
"""How long a step that runs may go without a look, at least, before nobody counts as watching."""


def begin(
    project: Project,
    registry: Registry,
    model: str,
    version: int,
    settings: Mapping[str, Any],
    *,
    actor: str,
    reason: str,
    cause: str,
    force: bool,
    now: datetime,
) -> Rollout:
    """Begin to roll out a version as ``rollout`` of model.yaml says, with ``settings`` in place of
    its keys; once for a cause.

    Raises InputError for wrong settings, and for what can't be begun (``Rollouts.begin``).
    """
    from perennial.decisions.plans import plan_of

    spec = with_settings(project.load_model(model)[1], settings)
    return registry.rollouts.begin(
        model, version, plan_of(spec.rollout), actor=actor, reason=reason, cause=cause, now=now,
        force=force,
    )  # fmt: skip


def with_settings(spec: ModelSpec, settings: Mapping[str, Any]) -> ModelSpec:
    """The spec with other values for some keys of ``rollout``, as they are written in model.yaml.
    Given strategies go without the keys that none of them has. What a person is to approve stays:
    percents of a canary are all steps where there is none.

    Raises InputError with the path of each that is wrong.
    """
    if not settings:
        return spec
    document = spec.model_dump(mode="json", exclude_unset=True)
    rollout = document.get("rollout", {})
    if "strategy" in settings:
        rollout = _fitting(rollout, settings["strategy"])
    document["rollout"] = {**rollout, **settings}
    return parse_spec(document_text(document), "model.yaml with the settings given")


def _fitting(rollout: Mapping[str, Any], strategy: object) -> dict[str, Any]:
    """The keys of model.yaml's ``rollout`` as they are with a strategy, or several."""
    names = strategy if isinstance(strategy, list | tuple) else (strategy,)
    kept = dict(rollout)
    if "ab_test" not in names:
        kept.pop("split", None)
    if "canary" not in names:
        kept.pop("steps", None)
        if isinstance(kept.get("approval"), list):
            kept["approval"] = True
    return kept


def spec_of(project: Project, version: VersionRef) -> ModelSpec:
    """The model's spec as it is now, or as the version was made by while model.yaml is being
    edited: nobody stops watching a version because of a typing error."""
    try:
        return project.load_model(version.model)[1]
    except InputError as error:
        from perennial.stores.bundles import open_stored

        _log.warning("the version's own settings are used: %s", error.message)
        return open_stored(version, project).spec


def look(
    project: Project,
    registry: Registry,
    spec: ModelSpec,
    rollout: Rollout,
    *,
    actor: str,
    now: datetime,
) -> Rollout:
    """Look at a rollout once, and return it as it is then. Safe to repeat, and by several at once:
    of those that decide on the same state one writes, and the others return what it wrote.

    Nothing is measured in a step that somebody has just looked at: a second watcher makes no more
    looks than one. Raises UnavailableError when the registry doesn't answer.
    """
    from perennial.decisions.rollout import awaited, step

    rollout = registry.rollouts.one(rollout.id)
    if rollout.ended or _just_looked(rollout, spec.rollout.check_every, now):
        return rollout
    # A step that nobody approved yet has no route of its own; one that is paused keeps it, and
    # what waits for the next goes on with the last: harm is found there too.
    begun = awaited(rollout.plan, rollout.state) != 0
    check = _checked(project, spec, rollout, now) if begun else None
    transition = step(rollout, check, now)
    if transition is None:
        return rollout
    evidence = {} if check is None else {"check": check.model_dump(mode="json")}
    try:
        return registry.rollouts.advance(
            rollout, transition, actor=actor, evidence=evidence, now=now
        )
    except StaleRolloutError:
        return registry.rollouts.one(rollout.id)


def neglected(registry: Registry, now: datetime) -> list[Rollout]:
    """All models' rollouts that have not ended and that nothing has happened to for minutes: the
    event that tells of one may be lost, or its next look is yet to come."""
    return [one for one in registry.rollouts.running() if now - one.updated_at >= _UNSEEN]


def at_work_since(project: Project, rollout: Rollout, now: datetime) -> datetime | None:
    """When a run that is said to go on must have begun, at the earliest, to count as one that
    watches the rollout; None: whenever it was.

    Of a step that runs each look is written down. Where there was none for long, whoever is said
    to watch does not: the machine may be gone with nobody to tell, or the run hangs.
    """
    if rollout.state.phase != "running":
        return None
    long = max(3 * check_every(project, rollout.model), _STUCK)
    return now - long if now - rollout.updated_at > long else None


def check_every(project: Project, model: str) -> timedelta:
    """How often the model's rollout is looked at: as model.yaml says, if that can be read."""
    try:
        return project.load_model(model)[1].rollout.check_every
    except InputError:
        return RolloutSpec().check_every


def _checked(project: Project, spec: ModelSpec, rollout: Rollout, now: datetime) -> Check:
    """What the present step did so far. What can't be measured, for whatever reason, is an error of
    each guard: its limit ends a rollout that nobody can see."""
    from perennial.decisions.guards import judge
    from perennial.stores.rollout_evidence import measure

    step = rollout.plan.steps[rollout.state.step]
    try:
        measurements, requests = measure(project, spec, rollout, now)
    except Exception as error:
        _log.warning("rollout %s could not be measured", rollout.id, exc_info=True)
        why = f"{type(error).__name__}: {error}"[:500]
        measurements = tuple(Measurement(guard=guard.name, error=why) for guard in step.guards)
        requests = 0
    return judge(rollout.state.step, step, measurements, requests, now)


def _just_looked(rollout: Rollout, every: timedelta, now: datetime) -> bool:
    last = rollout.state.last
    if last is None or last.step != rollout.state.step:
        return False
    return last.at <= now < last.at + 0.9 * every
