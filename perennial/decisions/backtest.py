"""When a model would have been trained again, had history been walked with another strategy.

``perennial`` is the policy of ``decisions.retraining`` with a record of its own. The others are
what it is measured against: ``never``; ``weekly``, whatever is found; ``drift``, at each look that
finds any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Literal, get_args

from perennial.contracts.refs import Value
from perennial.contracts.retraining import Answer, Finding, Kind, Result, Retraining, Trigger
from perennial.decisions.retraining import decide, is_open
from perennial.spec.production import Retrain

Strategy = Literal["never", "weekly", "drift", "perennial"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

Look = Callable[[datetime, datetime], tuple[Finding, str]]
"""What the drift watch finds at a moment, and why, of the version trained at another moment."""
Train = Callable[[datetime, datetime], Result]
"""What becomes of a candidate of a moment, beside the version trained at another moment."""

_WEEK = timedelta(weeks=1)
_DRIFT = {Finding.BENIGN, Finding.HARMFUL, Finding.CONCEPT}


class Step(Value):
    """One moment of a walk. ``outcome`` is None where nothing was trained; ``trained_at`` tells the
    version that serves from this moment on."""

    finding: Finding
    answer: Answer
    outcome: Result | None
    trained_at: datetime


def walk(
    strategy: Strategy,
    moments: Sequence[datetime],
    trained_at: datetime,
    settings: Retrain,
    look: Look,
    train: Train,
) -> list[Step]:
    """A step for each of the ascending moments, from the version of ``trained_at`` on.

    A retraining is taken to end at once, and its version serves if it was promoted. ``settings``
    are for ``perennial``, which hears of looks only: of no schedule and no new data.
    """
    steps: list[Step] = []
    record = _Record(settings)
    last = trained_at
    for at in moments:
        finding, why = look(at, trained_at)
        if strategy == "perennial":
            answer = record.ask(at, finding, why)
        else:
            answer = _plainly(strategy, at, last, finding, why)
        outcome = None
        if answer.answer == "retrain":
            outcome, last = train(at, trained_at), at
            record.ended(at, outcome)
            trained_at = at if outcome == "promoted" else trained_at
        steps.append(Step(finding=finding, answer=answer, outcome=outcome, trained_at=trained_at))
    return steps


def _plainly(strategy: Strategy, at: datetime, last: datetime, found: Finding, why: str) -> Answer:
    """The answer of a strategy that remembers no more than when it trained last."""
    if strategy == "weekly":
        goes, reason = at - last >= _WEEK, f"{(at - last).days} days since the last one"
    else:
        goes, reason = strategy == "drift" and found in _DRIFT, f"{found}: {why}"
    return Answer(answer="retrain" if goes else "no", reason=reason, decided_at=at)


class _Record:
    """What the registry would keep of one model, in memory, by cause."""

    def __init__(self, settings: Retrain) -> None:
        self._settings = settings
        self._rows: dict[str, Retraining] = {}

    def ask(self, at: datetime, finding: Finding, why: str) -> Answer:
        """The answer to a look, or that of an earlier look which waited until now and goes."""
        waiting = [r.trigger for r in self._rows.values() if is_open(r, at)]
        kind: Kind = "performance" if finding is Finding.CONCEPT else "drift"
        look = Trigger(
            kind=kind, finding=finding, reason=why, at=at, data=f"look {len(self._rows)}"
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
