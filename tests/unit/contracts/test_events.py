"""Which answers are told of, and how."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from perennial.contracts.events import Event, news_of, resource_id
from perennial.contracts.retraining import Answer, Course, Finding, Retraining, Trigger

NOW = datetime(2026, 3, 9, 12, tzinfo=UTC)


def answered(
    answer: Course, kind: Any, finding: Finding | None = None, earlier: tuple[Course, ...] = ()
) -> Retraining:
    def given(course: Course) -> Answer:
        return Answer(answer=course, reason="because", decided_at=NOW)

    return Retraining(
        id=1,
        model="delay",
        trigger=Trigger(kind=kind, reason="something", at=NOW, data="d1", finding=finding),
        actor="drift watch",
        current=given(answer),
        earlier=tuple(map(given, earlier)),
    )


@pytest.mark.parametrize(
    ("answer", "kind", "finding", "event"),
    [
        ("retrain", "drift", Finding.HARMFUL, "perennial.drift.detected"),
        ("wait", "drift", Finding.CONCEPT, "perennial.drift.detected"),
        ("no", "drift", Finding.BENIGN, "perennial.drift.detected"),
        ("retrain", "performance", Finding.CONCEPT, "perennial.performance.dropped"),
        ("wait", "performance", Finding.HARMFUL, "perennial.performance.dropped"),
        ("no", "drift", Finding.FAULT, "perennial.data.faulty"),
        ("no", "performance", Finding.FAULT, "perennial.data.faulty"),
        ("no", "performance", Finding.NONE, None),
        ("no", "drift", Finding.INCONCLUSIVE, None),
        ("retrain", "data", None, "perennial.data.arrived"),
        ("wait", "data", None, None),
        ("no", "data", None, None),
        ("wait", "schedule", None, None),
        ("retrain", "hand", None, None),
    ],
)
def test_what_was_found_is_told_whatever_was_answered_and_data_only_if_it_starts_a_run(
    answer: Course, kind: Any, finding: Finding | None, event: str | None
) -> None:
    assert news_of(answered(answer, kind, finding)) == event


@pytest.mark.parametrize("kind", ["data", "schedule"])
def test_what_waited_is_told_of_once_more_when_it_goes(kind: Any) -> None:
    assert news_of(answered("retrain", kind, earlier=("wait",))) is Event.RETRAINING_DUE
    assert news_of(answered("no", kind, earlier=("wait",))) is None


def test_what_was_found_is_not_found_again_when_its_time_has_come() -> None:
    late = answered("retrain", "drift", Finding.HARMFUL, earlier=("wait", "wait"))
    assert news_of(late) is Event.RETRAINING_DUE
    assert news_of(answered("wait", "drift", Finding.HARMFUL, earlier=("wait",))) is None


@pytest.mark.parametrize("finding", [Finding.HARMFUL, Finding.FAULT, Finding.BENIGN])
def test_a_world_that_stays_changed_is_told_of_once_and_when_it_starts_a_retraining(
    finding: Finding,
) -> None:
    look = answered("wait", "drift", finding)
    unsure = answered("no", "drift", Finding.INCONCLUSIVE)
    data, well = answered("wait", "data"), answered("no", "performance", Finding.NONE)
    assert news_of(look, [data, unsure, look, well]) is None
    assert news_of(look, [well, look]) is not None
    assert news_of(look, [answered("wait", "performance", finding), look]) is not None
    assert news_of(answered("retrain", "drift", Finding.HARMFUL), [look]) is Event.DRIFT_DETECTED


def test_all_events_of_a_model_are_about_one_resource() -> None:
    assert resource_id("flight-delay") == "perennial.model.flight-delay"
