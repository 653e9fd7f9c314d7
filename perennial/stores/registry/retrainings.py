"""Retrainings on record: decided under the model's lock, started by one run, ended once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from perennial.contracts.errors import InputError, Problem
from perennial.contracts.retraining import Answer, Finding, Result, Retraining, Trigger
from perennial.contracts.rollouts import ENDS
from perennial.decisions.retraining import decide, is_running
from perennial.spec.production import Retrain
from perennial.stores.registry.engine import repeatable, writing
from perennial.stores.registry.rollouts import last_phase, running_rollout
from perennial.stores.registry.rows import locked_route, newest_of_each
from perennial.stores.registry.schema import retrainings

_NEWEST = 200  # above the highest max_a_day; what is older decides nothing any more


class Retrainings:
    """The table that says whether a model is trained again. Events only carry its rows about.

    Raises as the registry does; InputError for an unknown id.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def decide(
        self, model: str, trigger: Trigger, settings: Retrain, *, actor: str, now: datetime
    ) -> tuple[Retraining, bool]:
        """Decide about a trigger and record it, in one transaction; and whether that is news.

        A repeat of a cause returns what is on record, and False. A cause that waited and whose time
        has come is decided anew. A time of the trigger after ``now`` is taken as ``now``.
        """
        trigger = trigger.model_copy(update={"at": min(trigger.at, now)})
        with writing(self._engine) as connection:
            champion = locked_route(connection, model, now).champion
            history = _history(connection, model, trigger.cause)
            known = next((r for r in history if r.trigger.cause == trigger.cause), None)
            rollout = running_rollout(connection, model)
            answer = decide(trigger, settings, history, now, champion=champion, rollout=rollout)
            if known is not None and _same(known.current, answer):
                return known, False
            if answer.answer == "retrain":
                _give_up_lost(connection, history, now)
            if known is None:
                return _insert(connection, model, trigger, actor, answer), True
            earlier = [a.model_dump(mode="json") for a in (*known.earlier, known.current)]
            return _update(connection, known.id, **answer.model_dump(), earlier=earlier), True

    @repeatable
    def start(self, retraining: int, run: str, now: datetime) -> bool:
        """Claim a retraining for a run: True for the first run that asks, False for all others.

        The same run may ask again, also after it failed or was taken for dead (it was resumed).
        """
        with writing(self._engine) as connection:
            found = _locked(connection, retraining, now)
            ended = found.state == "finished" and found.outcome != "failed"
            if not found.goes or ended:
                return False
            if found.state != "decided" and found.started_run != run:
                return False
            if found.state != "started":
                values = {"state": "started", "started_run": run, "started_at": now}
                _update(connection, retraining, **values, finished_at=None, outcome=None)
            return True

    def finish(
        self,
        retraining: int,
        run: str,
        outcome: Result,
        now: datetime,
        *,
        version: int | None = None,
    ) -> bool:
        """Record what became of it. Only the run that started it may, once: False otherwise.

        ``version`` is the one that it made. If that is rolled out, the end of its rollout changes
        the outcome; one that has ended by now counts at once.
        """
        with writing(self._engine) as connection:
            found = _locked(connection, retraining, now)
            became: str = outcome
            if outcome == "rolling out" and version is not None:
                phase = last_phase(connection, found.model, version)
                became = phase if phase in ENDS else outcome
            return _end(connection, found, run, now, state="finished", outcome=became)

    def give_up(self, retraining: int, run: str, now: datetime) -> bool:
        """Record that its run was cancelled, or died without a word. False if that is not its
        run, or it has ended.

        A run that was only slow may still finish it.
        """
        with writing(self._engine) as connection:
            found = _locked(connection, retraining, now)
            return _end(connection, found, run, now, state="died")

    def unstarted(self, model: str | None = None) -> list[Retraining]:
        """What was decided and no run has claimed yet, oldest first: to be started (again)."""
        return self._found(model, _GOES, retrainings.c.state == "decided")

    def started(self, model: str | None = None) -> list[Retraining]:
        """What a run has claimed and not ended, oldest first: to be compared with the runs."""
        return self._found(model, _GOES, retrainings.c.state == "started")

    def due(self, now: datetime, model: str | None = None) -> list[Retraining]:
        """What waits and may be decided anew, oldest first. Ask ``decide`` with its trigger."""
        until = retrainings.c.wait_until
        over = sa.or_(until.is_(None), until <= now)
        return self._found(model, retrainings.c.answer == "wait", over)

    @repeatable
    def last(self, model: str, limit: int = 100) -> list[Retraining]:
        """The last answers, newest first."""
        query = (
            sa.select(retrainings)
            .where(retrainings.c.model == model)
            .order_by(retrainings.c.decided_at.desc(), retrainings.c.id.desc())
            .limit(limit)
        )
        with self._engine.begin() as connection:
            return [_record(row) for row in connection.execute(query)]

    @repeatable
    def one(self, retraining: int) -> Retraining:
        """One retraining. Raises InputError when there is none."""
        with self._engine.begin() as connection:
            return _find(connection, retraining)

    @repeatable
    def _found(self, model: str | None, *conditions: sa.ColumnElement[bool]) -> list[Retraining]:
        query = sa.select(retrainings).where(*conditions).order_by(retrainings.c.id)
        if model is not None:
            query = query.where(retrainings.c.model == model)
        with self._engine.begin() as connection:
            return [_record(row) for row in connection.execute(query)]


def last_retrainings(
    connection: sa.Connection, models: Sequence[str], limit: int
) -> dict[str, list[Retraining]]:
    """The last answers of each of these models, newest first."""
    newest_first = (retrainings.c.decided_at.desc(), retrainings.c.id.desc())
    found: dict[str, list[Retraining]] = {model: [] for model in models}
    for row in newest_of_each(connection, retrainings, models, limit, *newest_first):
        found[row.model].append(_record(row))
    return found


_GOES = retrainings.c.answer == "retrain"
_LOOKED = retrainings.c.finding.not_in(
    [Finding.INCONCLUSIVE.value]
)  # null, no look, is not in either


def _history(connection: sa.Connection, model: str, cause: str) -> list[Retraining]:
    """What ``decisions.retraining.decide`` wants to know, each row once."""
    table = sa.select(retrainings).where(retrainings.c.model == model)
    newest = table.where(_GOES).order_by(retrainings.c.decided_at.desc()).limit(_NEWEST)
    look = table.where(_LOOKED).order_by(retrainings.c.seen_at.desc(), retrainings.c.id.desc())
    same = table.where(retrainings.c.cause == cause)
    found = (row for query in (newest, look.limit(1), same) for row in connection.execute(query))
    return list({row.id: _record(row) for row in found}.values())


def _end(
    connection: sa.Connection, found: Retraining, run: str, now: datetime, **values: Any
) -> bool:
    over = found.state == "finished" or found.state == values["state"]
    if over or found.started_run != run:
        return False
    _update(connection, found.id, finished_at=now, **values)
    return True


def _give_up_lost(connection: sa.Connection, history: list[Retraining], now: datetime) -> None:
    for r in history:
        if r.goes and r.finished_at is None and not is_running(r, now):
            _update(connection, r.id, state="died", finished_at=now)


def _same(one: Answer, other: Answer) -> bool:
    return one.model_copy(update={"decided_at": other.decided_at}) == other


def _locked(connection: sa.Connection, retraining: int, now: datetime) -> Retraining:
    """A retraining, with its model held until the transaction ends."""
    locked_route(connection, _find(connection, retraining).model, now)
    return _find(connection, retraining)


def _find(connection: sa.Connection, retraining: int) -> Retraining:
    row = connection.execute(
        sa.select(retrainings).where(retrainings.c.id == retraining)
    ).one_or_none()
    if row is None:
        raise InputError(Problem("registry", f"there is no retraining {retraining}"))
    return _record(row)


def _insert(
    connection: sa.Connection, model: str, trigger: Trigger, actor: str, answer: Answer
) -> Retraining:
    asked = trigger.model_dump(mode="json")
    statement = retrainings.insert().values(
        model=model,
        cause=trigger.cause,
        trigger=trigger.kind,
        finding=asked["finding"],
        seen_at=trigger.at,
        asked=asked,
        actor=actor,
        earlier=[],
        state="decided",
        **answer.model_dump(),
    )
    return _record(connection.execute(statement.returning(retrainings)).one())


def _update(connection: sa.Connection, retraining: int, **values: Any) -> Retraining:
    statement = retrainings.update().where(retrainings.c.id == retraining).values(**values)
    return _record(connection.execute(statement.returning(retrainings)).one())


def _record(row: sa.Row[Any]) -> Retraining:
    return Retraining(
        id=row.id,
        model=row.model,
        trigger=Trigger.model_validate(row.asked),
        actor=row.actor,
        current=Answer(
            answer=row.answer,
            reason=row.reason,
            decided_at=row.decided_at,
            wait_until=row.wait_until,
        ),
        earlier=row.earlier,
        state=row.state,
        started_run=row.started_run,
        started_at=row.started_at,
        finished_at=row.finished_at,
        outcome=row.outcome,
    )
