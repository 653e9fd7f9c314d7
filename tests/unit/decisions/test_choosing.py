"""What is recommended of policies whose figures are known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from perennial.contracts.backtest import Attempt, Choice, Policy, PolicyResult
from perennial.decisions.choosing import FEWEST_STEPS, choose, difference, front, mean_metric

START = datetime(2026, 1, 1, tzinfo=UTC)
WEEK = timedelta(weeks=1)
STEPS = 40
ROWS = [1000 + 10 * (i % 3) for i in range(STEPS)]
WEATHER = [0.01 * ((i * 7) % 11 - 5) for i in range(STEPS)]
"""What is the same for all policies: good and bad weeks."""


def result(policy: Policy, values: list[float | None], trainings: int) -> PolicyResult:
    attempts = tuple(
        Attempt(
            at=START + i * WEEK, reason="why", outcome="promoted" if i % 2 == 0 else "kept",
            verdict="judged", beaten=START, rows=10_000, seconds=1.5,
        )
        for i in range(trainings)
    )  # fmt: skip
    return PolicyResult(
        policy=policy,
        metric=mean_metric(values, ROWS[: len(values)]),
        values=tuple(values),
        serving=(START,) * len(values),
        attempts=attempts,
    )


def auc(policy: Policy, level: float, trainings: int, jitter: float = 0.0) -> PolicyResult:
    """A level, the weather, and what chance adds to this policy alone."""
    noise = [jitter * (-1) ** (i * i // 3) for i in range(STEPS)]
    values = [level + w + n for w, n in zip(WEATHER, noise, strict=True)]
    return result(policy, values, trainings)


def chosen(*results: PolicyResult) -> Choice:
    rows = ROWS[: len(results[0].values)]
    return choose("roc_auc", results, rows, greater_is_better=True, seed=7)


def test_more_retraining_is_recommended_where_it_bought_more() -> None:
    choice = chosen(
        auc("never", 0.65, 0), auc("schedule", 0.7201, 40, 0.01), auc("drift", 0.66, 20),
        auc("perennial", 0.72, 12),
    )  # fmt: skip
    assert choice.policy == "perennial"
    assert choice.front == ("never", "perennial", "schedule")
    parts = choice.reason.split("; ")
    assert parts[0] == "roc_auc 0.7205 with 12 retrainings"
    assert parts[1] == "better than never by 0.07 (95 % at least 0.07)"
    assert parts[2].startswith("schedule, at 3.3 times the rows, is not certainly better: gain ")
    assert parts[3] == "better than drift by 0.06 (95 % at least 0.06)"


def test_noise_is_not_recommended() -> None:
    choice = chosen(
        auc("never", 0.65, 0), auc("schedule", 0.6503, 40, 0.02), auc("drift", 0.6502, 9, 0.02),
        auc("perennial", 0.6501, 4, 0.02),
    )  # fmt: skip
    assert choice.policy == "never"
    assert not any(d.counts for d in choice.differences)


def test_a_certain_gain_that_is_too_small_to_matter_is_not_recommended() -> None:
    choice = chosen(auc("never", 0.65, 0), auc("schedule", 0.653, 40))
    assert choice.policy == "never"
    assert (choice.differences[0].low or 0) > 0
    assert choice.reason.endswith(
        "schedule, with 40 retrainings, gains too little to count: gain +0.003 (95 % each: +0.003 "
        "to +0.003)"
    )
    assert chosen(auc("never", 0.65, 0), auc("schedule", 0.6536, 40)).policy == "schedule"


def test_a_gain_in_a_single_stretch_of_steps_is_not_certain() -> None:
    values = [0.65 + w for w in WEATHER]
    lucky = [*values[:-2], values[-2] + 0.3, values[-1] + 0.3]
    found = difference(
        result("schedule", lucky, 9), result("never", values, 0), ROWS,
        greater_is_better=True, seed=1,
    )  # fmt: skip
    assert found.steps == 2
    assert found.gain == pytest.approx(0.015, rel=0.1)
    assert not found.counts


def test_a_metric_that_is_better_when_smaller_is_turned() -> None:
    results = [
        result("never", [0.5 + w for w in WEATHER], 0),
        result("perennial", [0.4 + w for w in WEATHER], 3),
    ]
    choice = choose("logloss", results, ROWS, greater_is_better=False, seed=7)
    assert choice.policy == "perennial"
    assert choice.differences[0].policy == "perennial"
    assert choice.differences[0].against == "never"
    assert choice.differences[0].gain == pytest.approx(0.1)


def test_of_policies_that_serve_the_same_the_cheapest_is_recommended() -> None:
    choice = chosen(
        auc("never", 0.65, 0), auc("schedule", 0.72, 40), auc("drift", 0.72, 12),
        auc("perennial", 0.72, 12),
    )  # fmt: skip
    assert choice.policy == "drift"  # of equal ones the first
    assert choice.front == ("never", "drift")
    assert "schedule would have served the same at 3.3 times the rows" in choice.reason
    assert "perennial would have served the same at the same cost" in choice.reason


def test_of_a_few_steps_nothing_is_certain_and_the_cheapest_is_recommended() -> None:
    few = FEWEST_STEPS - 1
    choice = chosen(result("never", [0.5] * few, 0), result("schedule", [0.9] * few, few))
    assert choice.policy == "never"
    assert choice.reason.endswith(
        f"schedule can't be told apart in fewer than {FEWEST_STEPS} steps"
    )


def test_a_worse_policy_that_costs_more_is_not_on_the_front() -> None:
    results = [auc("never", 0.70, 0), auc("schedule", 0.69, 40), auc("perennial", 0.71, 4)]
    assert [r.policy for r in front(results, greater_is_better=True)] == ["never", "perennial"]


def test_steps_without_a_value_are_left_out_of_means_and_differences() -> None:
    assert mean_metric([0.6, None, 0.9], [10, 1000, 20]) == pytest.approx(0.8)
    assert mean_metric([None, None], [10, 10]) is None
    gaps = [None if i % 4 == 0 else 0.5 for i in range(STEPS)]
    more = [None if v is None else v + 0.1 for v in gaps]
    found = difference(
        result("drift", more, 1), result("never", gaps, 0), ROWS, greater_is_better=True, seed=1
    )
    assert (found.gain, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    assert found.steps == STEPS - STEPS // 4


def test_nothing_measured_is_said_so() -> None:
    choice = chosen(result("never", [None] * 9, 0), result("schedule", [None] * 9, 9))
    assert (choice.policy, choice.reason) == ("never", "roc_auc could not be measured in any step")
