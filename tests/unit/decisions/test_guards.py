"""What a look at a step says of each guard, and of all."""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf, nan
from typing import Any

import pytest

from perennial.contracts.rollouts import Guard, GuardKind, Measurement, Plan, Step
from perennial.contracts.verdicts import Outcome
from perennial.decisions.guards import judge, shares

AT = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
ERRORS = Guard(name="error_rate", kind="error_rate", limit=0.01)
SLOW = Guard(name="p99_ms", kind="latency", limit=0.01, threshold=100)


def step(*guards: Guard) -> Step:
    return Step(
        strategy="canary",
        weight=5,
        bake_seconds=600,
        timeout_seconds=86_400,
        min_requests=100,
        guards=guards,
    )


def measured(guard: str = "error_rate", **of: Any) -> Measurement:
    return Measurement(**{"guard": guard, "n_challenger": 1_200, **of})


PASSING = measured(value=0.005, low=0.001, high=0.02)
FAILING = measured(value=0.031, low=0.012, high=0.06)
UNSURE = measured(value=0.015, low=0.006, high=0.04)
BROKEN = measured(error="the log could not be read")


@pytest.mark.parametrize(
    ("measurement", "outcome", "reason"),
    [
        (
            PASSING,
            "successful",
            "error_rate: 0.5 % failed on 1,200 requests, within the 1 % allowed",
        ),
        (
            FAILING,
            "failed",
            "error_rate: 3.1 % failed, surely above 1.2 % on 1,200 "
            "requests; at most 1 % is allowed",
        ),
        (
            UNSURE,
            "inconclusive",
            "error_rate: 1.5 % failed on 1,200 requests, above the 1 % allowed, but not surely so",
        ),
        (BROKEN, "error", "error_rate could not be measured: the log could not be read"),
        (measured(), "inconclusive", "error_rate has not been measured yet"),
        (measured(value=nan, low=nan), "inconclusive", "error_rate has not been measured yet"),
        (
            measured(value=0.0, low=0.0, n_challenger=99),
            "inconclusive",
            "error_rate: 0 % failed on 99 requests, fewer than the 100 asked for",
        ),
        (
            measured(value=0.0, low=0.0, n_challenger=100),
            "successful",
            "error_rate: 0 % failed on 100 requests, within the 1 % allowed",
        ),
        (
            measured(value=1.0, low=0.4, n_challenger=9),
            "failed",
            "error_rate: 100 % failed, surely above 40 % on 9 requests; at most 1 % is allowed",
        ),
        (
            measured(value=0.01, low=0.004),
            "successful",
            "error_rate: 1 % failed on 1,200 requests, within the 1 % allowed",
        ),
        (
            measured(value=0.02, low=0.01),
            "inconclusive",
            "error_rate: 2 % failed on 1,200 requests, above the 1 % allowed, but not surely so",
        ),
        (
            measured(value=0.005),
            "successful",
            "error_rate: 0.5 % failed on 1,200 requests, within the 1 % allowed",
        ),
    ],
)
def test_a_guard_fails_when_it_is_surely_beyond_and_passes_when_it_is_not_beyond_on_enough_rows(
    measurement: Measurement, outcome: str, reason: str
) -> None:
    check = judge(2, step(ERRORS), [measurement], 1_234, AT)
    assert check.outcome == outcome
    assert [verdict.reason for verdict in check.verdicts] == [reason]
    assert (check.at, check.step, check.requests) == (AT, 2, 1_234)
    assert check.measurements == (measurement,)


@pytest.mark.parametrize(
    ("kind", "value", "low", "told"),
    [
        (
            "latency",
            0.05,
            0.02,
            "g: 5 % took longer than 80 ms, surely above 2 % on 1,200 "
            "requests; at most 1 % is allowed",
        ),
        (
            "prediction",
            0.31,
            0.14,
            "g: predictions are 0.31 from the champion's, surely above 0.14 on "
            "1,200 rows; at most 0.01 is allowed",
        ),
        (
            "metric",
            0.09,
            0.03,
            "g: the loss is 0.09 higher than the champion's, surely above 0.03 on "
            "1,200 rows; at most 0.01 is allowed",
        ),
        (
            "metric",
            -0.09,
            -inf,
            "g: the loss is 0.09 lower than the champion's on 1,200 rows, within the 0.01 allowed",
        ),
        (
            "business",
            2.5,
            1.1,
            "g: revenue is 2.5 lower than the champion's, surely above 1.1 on "
            "1,200 rows; at most 0.01 is allowed",
        ),
        (
            "business",
            -2.5,
            -4.0,
            "g: revenue is 2.5 higher than the champion's on 1,200 rows, within the 0.01 allowed",
        ),
    ],
)
def test_a_verdict_says_in_words_what_was_measured(
    kind: GuardKind, value: float, low: float, told: str
) -> None:
    guard = Guard(name="g", kind=kind, limit=0.01, threshold=80, column="revenue")
    check = judge(0, step(guard), [measured("g", value=value, low=low)], 1_200, AT)
    assert check.verdicts[0].reason == told


def test_a_figure_has_as_many_digits_as_show_its_side_of_the_limit() -> None:
    close = measured(value=0.0112, low=0.010000004)
    reason = judge(0, step(ERRORS), [close], 1, AT).verdicts[0].reason
    assert "surely above 1.0000004 % on" in reason


def test_a_verdict_has_its_evidence() -> None:
    evidence = judge(0, step(ERRORS), [FAILING], 1_200, AT).verdicts[0].evidence
    assert evidence.rule == "error_rate"
    assert (evidence.limit, evidence.value, evidence.low, evidence.high, evidence.n) == (
        0.01,
        0.031,
        0.012,
        0.06,
        1_200,
    )


@pytest.mark.parametrize(
    ("first", "second", "worst"),
    [
        (PASSING, {"value": 0.004, "low": 0.0}, "successful"),
        (PASSING, {"value": 0.02, "low": 0.005}, "inconclusive"),
        (UNSURE, {"error": "gone"}, "error"),
        (BROKEN, {"value": 0.2, "low": 0.1}, "failed"),
        (FAILING, {"value": 0.004, "low": 0.0}, "failed"),
        (FAILING, {"error": "gone"}, "failed"),
    ],
)
def test_a_check_is_its_worst_verdict(
    first: Measurement, second: dict[str, Any], worst: str
) -> None:
    measurements = [first, measured("p99_ms", **second)]
    assert judge(0, step(ERRORS, SLOW), measurements, 1_200, AT).outcome == worst
    assert judge(0, step(SLOW, ERRORS), measurements, 1_200, AT).outcome == worst


def test_no_measurement_is_inconclusive_and_never_success() -> None:
    check = judge(0, step(ERRORS, SLOW), [PASSING], 1_200, AT)
    assert check.outcome == "inconclusive"
    assert [verdict.outcome for verdict in check.verdicts] == [Outcome.PASSED, Outcome.INCONCLUSIVE]
    assert check.verdicts[1].reason == "p99_ms has not been measured yet"
    assert [found.guard for found in check.measurements] == ["error_rate", "p99_ms"]


def test_a_step_that_watches_nothing_is_inconclusive() -> None:
    check = judge(0, step(), [FAILING], 1_200, AT)
    assert check.outcome == "inconclusive"
    assert check.verdicts == check.measurements == ()


def test_alpha_is_shared_evenly_by_all_guards_of_all_steps() -> None:
    steps = (step(ERRORS, SLOW), step(ERRORS, SLOW), step(ERRORS))
    assert shares(Plan(steps=steps, alpha=0.05)) == pytest.approx(0.01)
    assert shares(Plan(steps=(step(),), alpha=0.05)) == 0.05
    assert shares(Plan(steps=(), alpha=0.02)) == 0.02
