"""Rollouts on record: what a step or a command changes is one transaction with route and audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from pydantic_core import from_json, to_json

from perennial.contracts.errors import InputError, PerennialError, Problem
from perennial.contracts.refs import Value
from perennial.contracts.rollouts import ENDS, Command, Plan, Rollout, Transition
from perennial.decisions.rollout import command, start, supersede
from perennial.stores.registry.engine import repeatable, writing
from perennial.stores.registry.records import StaleRouteError
from perennial.stores.registry.rows import (
    append_decision,
    find_version,
    locked_route,
    quarantined_versions,
    refuse_quarantined,
    write_route,
)
from perennial.stores.registry.schema import retrainings, rollouts


class StaleRolloutError(PerennialError):
    """The rollout has changed since it was read: read it again and decide anew."""


class Rollouts:
    """The table of rollouts: at most one of a model has not ended.

    Raises as the registry does; InputError for an unknown id.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @repeatable
    def begin(
        self,
        model: str,
        version: int,
        plan: Plan,
        *,
        actor: str,
        reason: str,
        cause: str,
        now: datetime,
        force: bool = False,
        expected_champion: int | None = None,
    ) -> Rollout:
        """Begin to roll a version out, once for a cause: a repeat returns the rollout as it is.

        A rollout of an older version that has not ended is superseded by it. ``force`` releases a
        version from quarantine, supersedes a newer version's rollout too, and begins one that is
        older than the champion. ``expected_champion`` is the one that the version was judged
        against, and may be newer: StaleRouteError, and nothing written, when it is another by now.

        Raises InputError for a version that is unknown, quarantined, the champion already or older
        than that, for a model without champion, and while the same or a newer version is rolled
        out.
        """
        with writing(self._engine) as connection:
            route = locked_route(connection, model, now)
            known = _with_cause(connection, model, cause)
            if known is not None:
                return known
            find_version(connection, model, version)
            name = f"{model}@{version}"
            if route.champion is None:
                fix = "the first version is promoted at once; perennial train does so"
                raise InputError(Problem(name, "there is no champion to roll it out beside", fix))
            if expected_champion not in (None, route.champion):
                raise StaleRouteError(
                    f"version {version} of {model!r} was judged against version "
                    f"{expected_champion}, and the champion is version {route.champion} now; "
                    "judge anew"
                )
            if route.champion == version:
                raise InputError(Problem(name, "it is the champion already"))
            if not force:
                refuse_quarantined(connection, model, version)
                if version < route.champion and expected_champion is None:
                    what = f"it is older than the champion, version {route.champion}"
                    fix = f"perennial rollout {name} --force rolls it out all the same"
                    raise InputError(Problem(name, what, fix))
            running = running_rollout(connection, model)
            if running is not None:
                if running.version >= version and not force:
                    what = f"rollout {running.id} of version {running.version} has not ended"
                    fix = f"wait for its end, or perennial rollout {name} --force ends it"
                    raise InputError(Problem(name, what, fix))
                supersede_rollout(connection, running, version, actor=actor, now=now)
            transition = start(plan, route.champion, version, now)
            begun = _insert(
                connection, transition, now, model=model, version=version, cause=cause,
                champion=route.champion, plan=_plain(plan), actor=actor, reason=reason,
            )  # fmt: skip
            if version in quarantined_versions(connection, model):
                _append(connection, begun, "released", actor, f"forced: {reason}", {}, now)
            evidence = {"cause": cause, "plan": plan, "forced": force}
            _write_effects(connection, begun, transition, actor, evidence, now, why=reason)
            return begun

    def advance(
        self,
        rollout: Rollout,
        transition: Transition,
        *,
        actor: str,
        evidence: Mapping[str, Any],
        now: datetime,
    ) -> Rollout:
        """Write a transition that was decided on ``rollout``: its state, the route, the audit and
        the quarantine, all or nothing.

        Raises StaleRolloutError, and writes nothing, when the rollout has changed since.
        """
        with writing(self._engine) as connection:
            locked_route(connection, rollout.model, now)
            found = _find(connection, rollout.id)
            if found.revision != rollout.revision or found.ended:
                raise StaleRolloutError(
                    f"rollout {rollout.id} of {rollout.model!r} was at revision "
                    f"{rollout.revision} when this was decided and is at {found.revision} now "
                    f"({found.state.phase}); read it again"
                )
            return write_transition(connection, found, transition, actor, evidence, now)

    def command(
        self, model: str, what: Command, *, actor: str, reason: str, now: datetime
    ) -> Rollout:
        """Do what a person asks of the model's rollout that has not ended.

        Raises InputError when there is none, or when it can't be asked of it as it stands.
        """
        with writing(self._engine) as connection:
            locked_route(connection, model, now)
            running = running_rollout(connection, model)
            if running is None:
                raise InputError(Problem(model, "no version of it is being rolled out"))
            return command_rollout(connection, running, what, actor=actor, reason=reason, now=now)

    @repeatable
    def active(self, model: str) -> Rollout | None:
        """The model's rollout that has not ended; None when there is none."""
        with self._engine.begin() as connection:
            return running_rollout(connection, model)

    @repeatable
    def running(self) -> list[Rollout]:
        """All models' rollouts that have not ended, by name of the model: one small query, made to
        be repeated."""
        query = sa.select(rollouts).where(rollouts.c.ended_at.is_(None)).order_by(rollouts.c.model)
        with self._engine.begin() as connection:
            return [_record(row) for row in connection.execute(query)]

    @repeatable
    def one(self, id: int) -> Rollout:
        """One rollout. Raises InputError when there is none."""
        with self._engine.begin() as connection:
            return _find(connection, id)

    @repeatable
    def last(self, model: str, limit: int = 20) -> list[Rollout]:
        """The last rollouts, the newest first."""
        query = (
            sa.select(rollouts)
            .where(rollouts.c.model == model)
            .order_by(rollouts.c.id.desc())
            .limit(limit)
        )
        with self._engine.begin() as connection:
            return [_record(row) for row in connection.execute(query)]


def running_rollout(connection: sa.Connection, model: str) -> Rollout | None:
    """The model's rollout that has not ended; None when there is none."""
    return next(iter(running_rollouts(connection, [model])), None)


def running_rollouts(connection: sa.Connection, models: Sequence[str]) -> list[Rollout]:
    """The rollouts of these models that have not ended, at most one each."""
    query = sa.select(rollouts).where(rollouts.c.model.in_(models), rollouts.c.ended_at.is_(None))
    return [_record(row) for row in connection.execute(query)]


def last_phase(connection: sa.Connection, model: str, version: int) -> str | None:
    """Where the last rollout of a version stands, or how it ended; None when there was none."""
    query = sa.select(rollouts.c.phase).where(
        rollouts.c.model == model, rollouts.c.version == version
    )
    return connection.scalar(query.order_by(rollouts.c.id.desc()).limit(1))


def supersede_rollout(
    connection: sa.Connection, running: Rollout, by: int, *, actor: str, now: datetime
) -> Rollout:
    """End a rollout because of another version."""
    transition = supersede(running, by, now)
    return write_transition(connection, running, transition, actor, {"by": by}, now)


def command_rollout(
    connection: sa.Connection,
    running: Rollout,
    what: Command,
    *,
    actor: str,
    reason: str,
    now: datetime,
) -> Rollout:
    """Do what a person asks. Raises InputError when it can't be asked of it as it stands."""
    try:
        transition = command(running, what, now, reason)
    except ValueError as error:
        raise InputError(Problem(f"{running.model}@{running.version}", str(error))) from None
    return write_transition(connection, running, transition, actor, {"command": what}, now)


def write_transition(
    connection: sa.Connection,
    rollout: Rollout,
    transition: Transition,
    actor: str,
    evidence: Mapping[str, Any],
    now: datetime,
) -> Rollout:
    """Write the next state of a rollout, whose model the transaction holds, and its effects; its
    end is also what became of the retraining that made its version."""
    statement = (
        rollouts.update()
        .where(rollouts.c.id == rollout.id, rollouts.c.revision == rollout.revision)
        .values(**_state_values(transition, now), revision=rollout.revision + 1)
        .returning(rollouts)
    )
    written = _record(connection.execute(statement).one())
    _write_effects(connection, written, transition, actor, evidence, now)
    if written.ended:
        _end_retrainings(connection, written, now)
    return written


def _end_retrainings(connection: sa.Connection, rollout: Rollout, now: datetime) -> None:
    """Tell the retraining that made the version. No other is rolling out, since there is one
    rollout at a time; one that ended before this began was never told how its own ended."""
    about = retrainings.c
    statement = retrainings.update().where(
        about.model == rollout.model,
        about.answer == "retrain",
        about.outcome == "rolling out",
        about.finished_at >= rollout.started_at,
    )
    connection.execute(statement.values(outcome=rollout.state.phase, finished_at=now))


def _write_effects(
    connection: sa.Connection,
    rollout: Rollout,
    transition: Transition,
    actor: str,
    evidence: Mapping[str, Any],
    now: datetime,
    why: str = "",
) -> None:
    """Route, audit and quarantine. ``why`` is the reason where the transition gives none."""
    reason = transition.reason or why
    if transition.route is not None and not transition.action:
        raise ValueError(f"a change of the route needs a word for the audit: {transition}")
    if transition.action:
        _append(connection, rollout, transition.action, actor, reason, evidence, now, transition)
    if transition.quarantine:
        _append(connection, rollout, "quarantined", actor, reason, {}, now)


def _append(
    connection: sa.Connection,
    rollout: Rollout,
    action: str,
    actor: str,
    reason: str,
    evidence: Mapping[str, Any],
    now: datetime,
    transition: Transition | None = None,
) -> None:
    """A decision about a rollout's version, with the change of the route if it makes one."""
    state = {"rollout": rollout.id, "step": rollout.state.step, "phase": rollout.state.phase}
    values: dict[str, Any] = {
        "model": rollout.model,
        "action": action,
        "ref": find_version(connection, rollout.model, rollout.version).ref,
        "actor": actor,
        "reason": reason,
        "evidence": {**_plain(evidence), **state},
        "cause": f"rollout {rollout.id} revision {rollout.revision}: {action}",
        "now": now,
    }
    if transition is not None and transition.route is not None:
        write_route(connection, change=transition.route, **values)
    else:
        append_decision(connection, **values)


def _with_cause(connection: sa.Connection, model: str, cause: str) -> Rollout | None:
    query = sa.select(rollouts).where(rollouts.c.model == model, rollouts.c.cause == cause)
    row = connection.execute(query).one_or_none()
    return None if row is None else _record(row)


def _find(connection: sa.Connection, id: int) -> Rollout:
    row = connection.execute(sa.select(rollouts).where(rollouts.c.id == id)).one_or_none()
    if row is None:
        raise InputError(Problem("registry", f"there is no rollout {id}"))
    return _record(row)


def _insert(
    connection: sa.Connection, transition: Transition, now: datetime, **values: Any
) -> Rollout:
    statement = rollouts.insert().values(
        **values, **_state_values(transition, now), revision=0, started_at=now
    )
    return _record(connection.execute(statement.returning(rollouts)).one())


def _state_values(transition: Transition, now: datetime) -> dict[str, Any]:
    phase = transition.state.phase
    return {
        "phase": phase,
        "state": _plain(transition.state),
        "updated_at": now,
        "ended_at": now if phase in ENDS else None,
    }


def _plain(value: Value | Mapping[str, Any]) -> Any:
    """As JSON, where a bound that is infinite or no number is null: it may not stop a rollback."""
    return from_json(to_json(value, inf_nan_mode="null"))


def _record(row: sa.Row[Any]) -> Rollout:
    return Rollout.model_validate(
        {name: value for name, value in row._asdict().items() if name not in ("cause", "phase")}
    )
