"""Four strategies walked through one year that is known beforehand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from perennial.contracts.retraining import Finding, Result
from perennial.decisions.backtest import STRATEGIES, Step, walk
from perennial.spec.production import Retrain

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
DAYS = [START + n * DAY for n in range(1, 366)]
SUMMER, FAULT, BENIGN = START + 150 * DAY, START + 60 * DAY, START + 30 * DAY
SETTINGS = Retrain(on=("drift", "performance"), cooldown="1d")


def look(at: datetime, trained_at: datetime) -> tuple[Finding, str]:
    """The world changes once, in summer; whoever was trained before it suffers from then on."""
    if FAULT <= at < FAULT + 3 * DAY:
        return Finding.FAULT, "distance is null"
    if at == BENIGN:
        return Finding.BENIGN, "distance moved"
    if at >= SUMMER > trained_at:
        return Finding.HARMFUL, "logloss rose"
    return Finding.NONE, "nothing moved"


def train(at: datetime, trained_at: datetime) -> Result:
    """A week after the change there is enough to learn from, and once is enough."""
    return "promoted" if at >= SUMMER + 7 * DAY and trained_at < SUMMER else "kept"


def walked(strategy: str, settings: Retrain = SETTINGS) -> list[Step]:
    return walk(strategy, DAYS, START, settings, look, train)  # type: ignore[arg-type]


def trained(steps: list[Step]) -> list[int]:
    return [
        (at - START).days for at, step in zip(DAYS, steps, strict=True) if step.outcome is not None
    ]


def test_never_serves_the_first_version_for_good() -> None:
    steps = walked("never")
    assert trained(steps) == []
    assert {step.trained_at for step in steps} == {START}
    assert steps[-1].finding is Finding.HARMFUL


def test_weekly_trains_every_seventh_day_whatever_is_found() -> None:
    assert trained(walked("weekly")) == list(range(7, 366, 7))


def test_drift_triggered_trains_at_each_drift_benign_or_not() -> None:
    days = trained(walked("drift"))
    assert days == [30, *range(150, 158)]


def test_the_policy_trains_for_harm_only_and_spaces_out_what_is_in_vain() -> None:
    steps = walked("perennial")
    assert trained(steps) == [150, 152, 156, 163]
    outcomes = [step.outcome for step in steps if step.outcome]
    assert outcomes == ["kept", "kept", "kept", "promoted"]
    assert steps[-1].trained_at == START + 163 * DAY
    answers = {(at - START).days: s.answer for at, s in zip(DAYS, steps, strict=True)}
    assert answers[61].reason.startswith("data quality fault: distance is null")
    assert answers[30].reason == "benign drift: distance moved"
    assert (answers[151].answer, answers[151].wait_until) == ("wait", START + 152 * DAY)


def test_the_policy_obeys_the_settings_of_the_model() -> None:
    assert trained(walked("perennial", Retrain(on=("data",)))) == []
    slower = Retrain(on=("drift",), cooldown="10d")
    assert trained(walked("perennial", slower)) == [150, 160]


def test_a_look_that_waited_goes_when_the_next_ones_cannot_tell() -> None:
    def then_too_few_rows(at: datetime, trained_at: datetime) -> tuple[Finding, str]:
        if at > SUMMER + DAY:
            return Finding.INCONCLUSIVE, "12 rows"
        return look(at, trained_at)

    steps = walk("perennial", DAYS, START, SETTINGS, then_too_few_rows, train)
    assert trained(steps) == [150, 152]
    assert steps[151].answer.reason == "harmful drift: logloss rose"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_walk_repeats_itself_and_has_a_step_for_each_moment(strategy: str) -> None:
    steps = walked(strategy)
    assert steps == walked(strategy)
    assert len(steps) == len(DAYS)
    assert walk(strategy, [], START, SETTINGS, look, train) == []  # type: ignore[arg-type]
