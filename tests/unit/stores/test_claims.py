"""One run a retraining, over a real registry."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from perennial.contracts.retraining import Finding, Trigger
from perennial.contracts.runs import Claim
from perennial.spec.production import Retrain
from perennial.stores.claims import claim, own_trigger
from perennial.stores.registry import Registry

NOW = datetime(2026, 3, 9, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SETTINGS = Retrain(on=("drift", "data"), schedule="0 6 * * 1", cooldown=timedelta(hours=6))


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    registry = Registry(f"sqlite:///{tmp_path}/registry.db")
    yield registry
    registry.close()


def drifted(**changed: Any) -> Trigger:
    values = {"kind": "drift", "reason": "5 columns", "at": NOW, "data": "w1"}
    return Trigger.model_validate({**values, "finding": Finding.HARMFUL, **changed})


def claimed(registry: Registry, trigger: Trigger, run: str, now: datetime = NOW) -> Claim:
    table = registry.retrainings
    return claim(table, "delay", trigger, SETTINGS, run=run, actor=f"flow run {run}", now=now)


def test_the_first_run_has_it_and_others_are_told_who(registry: Registry) -> None:
    assert claimed(registry, drifted(), "a") == Claim(model="delay", retraining=1)
    assert claimed(registry, drifted(), "b") == Claim(
        model="delay", retraining=1, refused="retraining 1 (5 columns) is under way in flow run a"
    )
    registry.retrainings.finish(1, "a", "kept", NOW + HOUR)
    late = claimed(registry, drifted(), "b", NOW + HOUR)
    assert late.refused == "retraining 1 (5 columns) has ended: kept, by flow run a"
    again = claimed(registry, drifted(), "a", NOW + HOUR)
    assert again.refused == late.refused


def test_a_run_that_was_not_announced_by_anybody_is_decided_when_it_claims(
    registry: Registry,
) -> None:
    table = registry.retrainings
    asked = Trigger(kind="data", reason="flights of 1 July", at=NOW, data="2013-07-01")
    assert claimed(registry, asked, "a").refused == ""
    assert (table.one(1).actor, table.one(1).started_run) == ("flow run a", "a")
    other = asked.model_copy(update={"data": "2013-07-02"})
    assert claimed(registry, other, "b") == Claim(
        model="delay",
        retraining=2,
        refused="wait: data arrived: flights of 1 July, but retraining 1 is under way",
    )
    benign = claimed(registry, drifted(finding=Finding.BENIGN), "c")
    assert benign.refused == "no: benign drift: 5 columns"
    assert [r.id for r in table.started("delay")] == [1]


def test_a_run_that_failed_or_died_goes_on_when_it_is_resumed(registry: Registry) -> None:
    table = registry.retrainings
    claimed(registry, drifted(), "a")
    table.give_up(1, "a", NOW)
    died = claimed(registry, drifted(), "b")
    assert died.refused == (
        "retraining 1 (5 columns) died with flow run a; the next look or a person asks anew"
    )
    assert claimed(registry, drifted(), "a", NOW + HOUR).refused == ""
    table.finish(1, "a", "failed", NOW + HOUR)
    assert claimed(registry, drifted(), "b").refused.endswith("has ended: failed, by flow run a")
    assert claimed(registry, drifted(), "a", NOW + 2 * HOUR).refused == ""
    assert table.one(1).started_at == NOW + 2 * HOUR


def test_a_person_always_goes_and_once_a_run(registry: Registry) -> None:
    claimed(registry, drifted(), "a")
    by_hand = own_trigger("b", "I want it", None, NOW)
    assert claimed(registry, by_hand, "b") == Claim(model="delay", retraining=2)
    assert claimed(registry, by_hand, "b").retraining == 2
    another = own_trigger("c", "by hand", None, NOW)
    assert claimed(registry, another, "c") == Claim(model="delay", retraining=3)
    third = registry.retrainings.one(3)
    assert third.current.reason.startswith("by hand: somebody started a run, although retraining")


def test_a_schedule_is_one_cause_a_time_whichever_zone_it_is_told_in(registry: Registry) -> None:
    due = NOW.astimezone(timezone(timedelta(hours=2)))
    scheduled = own_trigger("a", "schedule", due, NOW + HOUR)
    assert scheduled == Trigger(
        kind="schedule", reason="due at 2026-03-09 12:00 UTC", at=NOW, data=NOW.isoformat()
    )
    assert claimed(registry, scheduled, "a").refused == ""
    assert "under way" in claimed(registry, own_trigger("b", "", NOW, NOW), "b").refused
    assert len(registry.retrainings.last("delay")) == 1


def test_of_many_runs_at_once_one_has_it(registry: Registry) -> None:
    ready = threading.Barrier(20)

    def run(number: int) -> Claim:
        ready.wait()
        return claimed(registry, drifted(), f"run {number}")

    with ThreadPoolExecutor(20) as pool:
        claims = list(pool.map(run, range(20)))
    assert [c.refused for c in claims].count("") == 1
    (only,) = registry.retrainings.last("delay")
    holder = f"retraining 1 (5 columns) is under way in flow run {only.started_run}"
    assert {c.refused for c in claims} == {"", holder}
