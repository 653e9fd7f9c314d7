"""Results of backtests to draw pages from: an ordinary one, and one whose texts are hostile."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from perennial.contracts.backtest import (
    Attempt,
    BacktestPlan,
    BacktestResult,
    Policy,
    PolicyResult,
    Recipe,
)
from perennial.contracts.refs import DatasetRef
from perennial.contracts.retraining import Result
from perennial.decisions.choosing import choose, mean_metric

START = datetime(2013, 3, 4, tzinfo=UTC)
WEEK = timedelta(weeks=1)


def ordinary(steps: int = 44, why: str = "harmful drift: temp moved") -> BacktestResult:
    """A stale version that loses in summer; the schedule trains weekly, Perennial seldom."""
    rows = [6000 + 100 * (i % 5) for i in range(steps)]
    weather = [0.008 * ((i * 7) % 9 - 4) for i in range(steps)]
    summer = [0.06 * max(0.0, 1 - abs(i - steps / 2) / (steps / 2)) for i in range(steps)]

    def policy(name: Policy, gain: float, at: list[int], failed: int = -1) -> PolicyResult:
        first = at[0] if at else steps
        values = [
            0.70 + w - s + (gain * s if i >= first else 0.0)
            for i, (w, s) in enumerate(zip(weather, summer, strict=True))
        ]
        attempts, serving, now = [], [], START
        for i in range(steps):
            moment = START + i * WEEK
            if i in at:
                taken: Result = "failed" if i == failed else "kept" if i % 3 == 0 else "promoted"
                attempts.append(
                    Attempt(
                        at=moment, reason=why, outcome=taken, beaten=now, rows=30_000 + 6_000 * i,
                        verdict=f"{taken}: gain 0.0123 (95 % at least 0.0101) on 13,204 rows",
                        seconds=2.5 + i / 10,
                    )
                )  # fmt: skip
                now = moment if taken == "promoted" else now
            serving.append(now)
        return PolicyResult(
            policy=name, metric=mean_metric(values, rows), values=tuple(values),
            serving=tuple(serving), attempts=tuple(attempts),
        )  # fmt: skip

    policies = (
        policy("never", 0.0, []),
        policy("schedule", 0.92, list(range(1, steps))),
        policy("drift", 0.90, list(range(2, steps, 2))),
        policy("perennial", 0.91, list(range(4, steps, 5)), failed=9),
    )
    moments = tuple(START + i * WEEK for i in range(steps))
    end = START + steps * WEEK - timedelta(days=3, hours=1)
    dataset = DatasetRef(
        uri="tables/flight-delay", version=3, start=START - 9 * WEEK, end=end, as_of=end,
        rows=336_776, schema_digest="s", content_digest="c",
    )  # fmt: skip
    return BacktestResult(
        model="flight-delay",
        plan=BacktestPlan(
            dataset=dataset, moments=moments, end=end, every="1w", metric="roc_auc", rows=336_776,
            recipe=Recipe(params={"max_depth": 6}, rounds=120, origin="those of version 3"),
        ),
        greater_is_better=True,
        step_rows=tuple(rows),
        policies=policies,
        choice=choose("roc_auc", policies, rows, greater_is_better=True, seed=7),
        notes=("Every candidate has the same parameters, those of version 3.",),
    )  # fmt: skip


def hostile() -> BacktestResult:
    """What comes from the data and from model.yaml tries to become markup, and is long."""
    nasty = '<script>alert("x")</script><img src=x onerror=alert(1)> a|b `c` ' + "w" * 300
    found = ordinary(12, nasty)
    return found.model_copy(update={"model": "m" * 63, "notes": (nasty,)})
