"""Four policies walked through one year that is known beforehand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from perennial.contracts.backtest import POLICIES, Policy
from perennial.contracts.retraining import Finding, Result
from perennial.decisions.backtest import Seen, Step, walk
from perennial.spec.production import Retrain

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
DAYS = [START + n * DAY for n in range(1, 366)]
SUMMER, FAULT, BENIGN = START + 150 * DAY, START + 60 * DAY, START + 30 * DAY
SETTINGS = Retrain(on=("drift", "performance"), cooldown="1d")


def seen(finding: Finding, why: str, *, drifted: bool = False) -> Seen:
    return Seen(finding=finding, why=why, drifted=drifted)


def look(at: datetime, trained_at: datetime) -> Seen:
    """The world changes once, in summer; whoever was trained before it suffers from then on."""
    if FAULT <= at < FAULT + 3 * DAY:
        return seen(Finding.FAULT, "distance is null")
    if at == BENIGN:
        return seen(Finding.BENIGN, "distance moved", drifted=True)
    if at >= SUMMER > trained_at:
        return seen(Finding.HARMFUL, "logloss rose", drifted=True)
    return seen(Finding.NONE, "nothing moved")


def train(at: datetime, trained_at: datetime) -> Result:
    """A week after the change there is enough to learn from, and once is enough."""
    return "promoted" if at >= SUMMER + 7 * DAY and trained_at < SUMMER else "kept"


def walked(policy: Policy, settings: Retrain = SETTINGS) -> list[Step]:
    return walk(policy, DAYS, START, settings, look, train)


def trained(steps: list[Step]) -> list[int]:
    return [
        (at - START).days for at, step in zip(DAYS, steps, strict=True) if step.outcome is not None
    ]


def test_never_serves_the_first_version_for_good() -> None:
    steps = walked("never")
    assert trained(steps) == []
    assert {step.trained_at for step in steps} == {START}


def test_a_policy_that_listens_to_nothing_does_not_look() -> None:
    def refuse(at: datetime, trained_at: datetime) -> Seen:
        raise AssertionError(f"looked at {at}")

    for policy in ("never", "schedule"):
        steps = walk(policy, DAYS, START, SETTINGS, refuse, train)  # type: ignore[arg-type]
        assert {step.seen for step in steps} == {None}


def test_a_model_without_a_schedule_is_trained_every_seventh_day() -> None:
    steps = walked("schedule")
    assert trained(steps) == list(range(7, 366, 7))
    assert steps[6].answer.reason == "7 days passed"


def test_the_schedule_is_that_of_the_model_and_begins_at_the_next_moment() -> None:
    monthly = Retrain(schedule="30 12 1 * *")
    assert trained(walked("schedule", monthly))[:3] == [1, 32, 60]  # the 2nd of each month
    every_other_day = [START + n * 2 * DAY for n in range(1, 20)]
    steps = walk("schedule", every_other_day, START, Retrain(schedule="0 6 * * *"), look, train)
    assert all(step.outcome for step in steps)  # twice due, trained once


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
    def then_too_few_rows(at: datetime, trained_at: datetime) -> Seen:
        if at > SUMMER + DAY:
            return seen(Finding.INCONCLUSIVE, "12 rows")
        return look(at, trained_at)

    steps = walk("perennial", DAYS, START, SETTINGS, then_too_few_rows, train)
    assert trained(steps) == [150, 152]
    assert steps[151].answer.reason == "harmful drift: logloss rose"


def test_a_loss_without_drift_is_asked_about_as_performance() -> None:
    def by_labels(at: datetime, trained_at: datetime) -> Seen:
        finding = Finding.CONCEPT if at >= SUMMER > trained_at else Finding.NONE
        return seen(finding, "labels say so")

    def days(*on: str) -> list[int]:
        settings = Retrain(on=on, cooldown="1d")  # type: ignore[arg-type]
        return trained(walk("perennial", DAYS, START, settings, by_labels, train))

    assert days("drift") == []
    assert days("performance") == [150, 152, 156, 163]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_walk_repeats_itself_and_has_a_step_for_each_moment(policy: Policy) -> None:
    steps = walked(policy)
    assert steps == walked(policy)
    assert len(steps) == len(DAYS)
    assert walk(policy, [], START, SETTINGS, look, train) == []
