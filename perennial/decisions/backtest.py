"""When a model would have been trained again, had history been walked with another policy.

``perennial`` is the policy of ``decisions.retraining`` with a record of its own. The others are
what it is measured against: ``never``; ``schedule``, whatever is found; ``drift``, at each look
whose verdict is drift.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from perennial.contracts.backtest import Policy
from perennial.contracts.refs import Value
from perennial.contracts.retraining import Answer, Finding, Kind, Result, Retraining, Trigger
from perennial.decisions.retraining import decide, is_open
from perennial.spec.cron import comes
from perennial.spec.production import Retrain


class Seen(Value):
    """What the drift watch makes of the window before a moment. ``drifted``: its verdict on the
    inputs alone."""

    finding: Finding
    why: str
    drifted: bool


Look = Callable[[datetime, datetime], Seen]
"""What is found at a moment of the version trained at another moment."""
Train = Callable[[datetime, datetime], Result]
"""What becomes of a candidate of a moment, beside the version trained at another moment."""

_WEEK = timedelta(weeks=1)
_LOOKING: tuple[Policy, ...] = ("drift", "perennial")


class Step(Value):
    """One moment of a walk. ``seen`` is None for a policy that doesn't look, ``outcome`` where
    nothing was trained; ``trained_at`` tells the version that serves from this moment on."""

    seen: Seen | None
    answer: Answer
    outcome: Result | None
    trained_at: datetime


def walk(
    policy: Policy,
    moments: Sequence[datetime],
    trained_at: datetime,
    settings: Retrain,
    look: Look,
    train: Train,
) -> list[Step]:
    """A step for each of the ascending moments, from the version of ``trained_at`` on.

    A retraining is taken to end at once, and its version serves if it was promoted. ``settings``
    are for ``schedule``, weekly where they have none, and for ``perennial``, which hears of looks
    only: of no schedule and no new data.
    """
    steps: list[Step] = []
    record = _Record(settings)
    last = trained_at
    for before, at in pairwise([trained_at, *moments]):
        seen = look(at, trained_at) if policy in _LOOKING else None
        if seen is None:
            due = policy == "schedule" and _due(settings, before, last, at)
            answer = _plain(due, settings.schedule or f"{(at - last).days} days passed", at)
        elif policy == "drift":
            answer = _plain(seen.drifted, f"{seen.finding}: {seen.why}", at)
        else:
            answer = record.ask(at, seen)
        outcome = None
        if answer.answer == "retrain":
            outcome, last = train(at, trained_at), at
            record.ended(at, outcome)
            trained_at = at if outcome == "promoted" else trained_at
        steps.append(Step(seen=seen, answer=answer, outcome=outcome, trained_at=trained_at))
    return steps


def _due(settings: Retrain, before: datetime, last: datetime, at: datetime) -> bool:
    if settings.schedule:
        return comes(settings.schedule, before, at)
    return at - last >= _WEEK


def _plain(goes: bool, reason: str, at: datetime) -> Answer:
    """The answer of a policy that keeps no record."""
    return Answer(answer="retrain" if goes else "no", reason=reason, decided_at=at)


class _Record:
    """What the registry would keep of one model, in memory, by cause."""

    def __init__(self, settings: Retrain) -> None:
        self._settings = settings
        self._rows: dict[str, Retraining] = {}

    def ask(self, at: datetime, seen: Seen) -> Answer:
        """The answer to a look, or that of an earlier look which waited until now and goes."""
        waiting = [r.trigger for r in self._rows.values() if is_open(r, at)]
        kind: Kind = "drift" if seen.drifted or seen.finding is Finding.FAULT else "performance"
        look = Trigger(
            kind=kind, finding=seen.finding, reason=seen.why, at=at, data=f"look {len(self._rows)}"
        )
        answer = self._decided(look, at)
        for trigger in waiting if answer.answer != "retrain" else ():
            if (again := self._decided(trigger, at)).answer == "retrain":
                return again
        return answer

    def ended(self, at: datetime, outcome: Result) -> None:
        """What became of the retraining that was decided last."""
        end = {"state": "finished", "started_at": at, "finished_at": at, "outcome": outcome}
        for cause, row in self._rows.items():
            if row.goes and row.finished_at is None:
                self._rows[cause] = row.model_copy(update=end)

    def _decided(self, trigger: Trigger, at: datetime) -> Answer:
        known = self._rows.get(trigger.cause)
        answer = decide(trigger, self._settings, list(self._rows.values()), at)
        number = known.id if known else len(self._rows) + 1
        self._rows[trigger.cause] = Retraining(
            id=number, model="backtest", actor="backtest", trigger=trigger, current=answer
        )
        return answer
