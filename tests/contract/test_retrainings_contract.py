"""What the table of retrainings does on every database behind the registry."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from perennial.contracts.errors import InputError
from perennial.contracts.refs import BundleRef
from perennial.contracts.retraining import Answer, Finding, Retraining, Trigger
from perennial.contracts.rollouts import Measurement, Rollout
from perennial.decisions.guards import judge
from perennial.decisions.plans import plan_of
from perennial.decisions.rollout import step
from perennial.spec.production import Guards, Retrain
from perennial.spec.production import Rollout as RolloutSpec
from perennial.stores.registry import Registry

pytest_plugins = ["tests.contract.databases"]

NOW = datetime(2026, 3, 9, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ALL = Retrain(schedule="0 6 * * 1", on=("drift", "performance", "data"))


@pytest.fixture
def registry(registry_url: str) -> Any:
    registry = Registry(registry_url)
    yield registry
    registry.close()


def trigger(data: str, kind: str = "drift", **changed: Any) -> Trigger:
    values: dict[str, Any] = {"at": NOW, "reason": "logloss rose"} | changed
    if kind in ("drift", "performance"):
        values.setdefault("finding", Finding.HARMFUL)
    return Trigger(kind=kind, data=data, **values)


def decided(
    registry: Registry, asked: Trigger, now: datetime = NOW, model: str = "delay", **changed: Any
) -> tuple[Retraining, bool]:
    values: dict[str, Any] = {"settings": ALL, "actor": "drift watch"} | changed
    return registry.retrainings.decide(model, asked, now=now, **values)


def test_an_answer_comes_back_as_it_was_decided(registry: Registry) -> None:
    window = (NOW - 168 * HOUR, NOW.astimezone(timezone(timedelta(hours=2))))
    evidence = {"columns": [{"column": "größe", "size": 0.31}], "power": math.nan}
    asked = trigger("d1", window=window, evidence=evidence)
    found, news = decided(registry, asked)
    assert news
    assert found == Retraining(
        id=1,
        model="delay",
        trigger=asked.model_copy(update={"evidence": {**evidence, "power": None}}),
        actor="drift watch",
        current=Answer(answer="retrain", reason="harmful drift: logloss rose", decided_at=NOW),
    )
    assert registry.retrainings.one(1) == found
    assert registry.retrainings.last("delay") == [found]
    assert registry.retrainings.last("other") == []
    assert registry.models() == ["delay"]


def test_the_same_cause_is_decided_once_a_model(registry: Registry) -> None:
    first, _ = decided(registry, trigger("d1"))
    again, news = decided(registry, trigger("d1", reason="told again"), NOW + 99 * HOUR)
    assert (again, news) == (first, False)
    assert decided(registry, trigger("d1"), model="price")[1]
    assert len(registry.retrainings.last("delay")) == 1


def test_the_policy_sees_what_is_on_record(registry: Registry) -> None:
    decided(registry, trigger("d1"))
    waits, news = decided(registry, trigger("d2", at=NOW + HOUR), NOW + HOUR)
    assert news
    assert waits.current == Answer(
        answer="wait",
        reason="harmful drift: logloss rose, but retraining 1 is under way",
        decided_at=NOW + HOUR,
        wait_until=NOW + 6 * HOUR,
    )
    no, _ = decided(registry, trigger("d3", "data"), model="delay", settings=Retrain())
    assert no.current.reason == (
        "data arrived: logloss rose, but model.yaml's retrain.on has no data"
    )
    assert decided(registry, trigger("d2"), model="price")[0].current.answer == "retrain"
    fault = trigger("d4", finding=Finding.FAULT, at=NOW + 2 * HOUR)
    decided(registry, fault, NOW + 2 * HOUR)
    decided(
        registry, trigger("d5", finding=Finding.INCONCLUSIVE, at=NOW + 3 * HOUR), NOW + 3 * HOUR
    )
    held, _ = decided(registry, trigger("d6", "schedule"), NOW + 99 * HOUR)
    assert held.current.answer == "wait"
    assert "found a data quality fault" in held.current.reason


def test_what_waited_is_decided_anew_when_due_and_its_earlier_answers_stay(
    registry: Registry,
) -> None:
    decided(registry, trigger("d1"))
    waits, _ = decided(registry, trigger("d2", "data", at=NOW + HOUR), NOW + HOUR)
    table = registry.retrainings
    assert (table.due(NOW + 5 * HOUR), table.due(NOW + 6 * HOUR)) == ([], [waits])
    assert table.due(NOW + 6 * HOUR, "price") == []
    early, news = decided(registry, waits.trigger, NOW + 5 * HOUR)
    assert (early, news) == (waits, False)
    still, news = decided(registry, waits.trigger, NOW + 7 * HOUR)
    assert (still.current.wait_until, news) == (None, True)
    assert decided(registry, waits.trigger, NOW + 8 * HOUR) == (still, False)
    assert table.start(1, "run 1", NOW)
    assert table.finish(1, "run 1", "promoted", NOW + HOUR / 2)
    assert table.due(NOW + 9 * HOUR) == [still]
    goes, news = decided(registry, waits.trigger, NOW + 9 * HOUR)
    assert (goes.current.answer, news, goes.id) == ("retrain", True, waits.id)
    assert goes.earlier == (waits.current, still.current)
    assert table.due(NOW + 99 * HOUR) == []


def test_the_newest_answer_is_told_first(registry: Registry) -> None:
    for hour in (1, 2, 3):
        asked = trigger(f"d{hour}", finding=Finding.NONE, at=NOW + hour * HOUR)
        decided(registry, asked, NOW + hour * HOUR)
    found = registry.retrainings.last("delay", 2)
    assert [r.trigger.data for r in found] == ["d3", "d2"]


def test_one_run_claims_a_retraining(registry: Registry) -> None:
    goes, _ = decided(registry, trigger("d1"))
    table = registry.retrainings
    assert table.unstarted() == [goes]
    assert (table.unstarted("delay"), table.unstarted("price")) == ([goes], [])
    assert table.start(goes.id, "run 1", NOW + HOUR)
    assert not table.start(goes.id, "run 2", NOW + HOUR)
    assert table.start(goes.id, "run 1", NOW + 2 * HOUR)  # a retry of the same run
    claimed = table.one(goes.id)
    assert (claimed.state, claimed.started_run) == ("started", "run 1")
    assert claimed.started_at == NOW + HOUR
    assert (table.unstarted(), table.started("delay")) == ([], [claimed])


def test_only_the_run_that_started_it_ends_it_and_once(registry: Registry) -> None:
    goes, _ = decided(registry, trigger("d1"))
    table = registry.retrainings
    assert not table.finish(goes.id, "run 1", "promoted", NOW)
    assert table.start(goes.id, "run 1", NOW)
    assert not table.finish(goes.id, "run 2", "kept", NOW)
    assert not table.give_up(goes.id, "run 2", NOW)
    assert table.finish(goes.id, "run 1", "kept", NOW + HOUR)
    assert not table.finish(goes.id, "run 1", "promoted", NOW + 2 * HOUR)
    assert not table.give_up(goes.id, "run 1", NOW + 2 * HOUR)
    assert not table.start(goes.id, "run 1", NOW + 2 * HOUR)
    done = table.one(goes.id)
    assert (done.state, done.outcome, done.finished_at) == ("finished", "kept", NOW + HOUR)
    assert table.started() == []


def test_a_run_that_died_may_be_resumed_by_itself_alone(registry: Registry) -> None:
    goes, _ = decided(registry, trigger("d1"))
    table = registry.retrainings
    table.start(goes.id, "run 1", NOW)
    assert table.give_up(goes.id, "run 1", NOW + HOUR)
    assert not table.give_up(goes.id, "run 1", NOW + 2 * HOUR)
    died = table.one(goes.id)
    assert (died.state, died.outcome, died.finished_at) == ("died", None, NOW + HOUR)
    assert not table.start(goes.id, "run 2", NOW + 2 * HOUR)
    assert table.start(goes.id, "run 1", NOW + 2 * HOUR)
    again = table.one(goes.id)
    assert (again.state, again.finished_at, again.began_at) == ("started", None, NOW + 2 * HOUR)
    assert table.finish(goes.id, "run 1", "promoted", NOW + 3 * HOUR)


def test_a_run_that_failed_may_be_resumed_by_itself_alone(registry: Registry) -> None:
    goes, _ = decided(registry, trigger("d1"))
    table = registry.retrainings
    table.start(goes.id, "run 1", NOW)
    assert table.finish(goes.id, "run 1", "failed", NOW + HOUR)
    assert not table.start(goes.id, "run 2", NOW + 2 * HOUR)
    assert table.start(goes.id, "run 1", NOW + 2 * HOUR)
    again = table.one(goes.id)
    assert (again.state, again.outcome, again.finished_at) == ("started", None, None)
    assert table.finish(goes.id, "run 1", "kept", NOW + 3 * HOUR)
    assert not table.start(goes.id, "run 1", NOW + 4 * HOUR)


def test_a_run_that_was_only_slow_still_ends_what_was_given_up(registry: Registry) -> None:
    goes, _ = decided(registry, trigger("d1"))
    table = registry.retrainings
    table.start(goes.id, "run 1", NOW)
    table.give_up(goes.id, "run 1", NOW + HOUR)
    assert table.finish(goes.id, "run 1", "promoted", NOW + 2 * HOUR)
    assert (table.one(goes.id).state, table.one(goes.id).outcome) == ("finished", "promoted")


def test_what_is_lost_is_given_up_when_another_is_decided(registry: Registry) -> None:
    lost, _ = decided(registry, trigger("d1"))
    table = registry.retrainings
    later = NOW + 24 * HOUR
    assert decided(registry, trigger("d1"), later) == (lost, False)
    goes, _ = decided(registry, trigger("d2", at=later), later)
    assert goes.current.answer == "retrain"
    assert (table.one(lost.id).state, table.one(lost.id).finished_at) == ("died", later)
    assert table.unstarted() == [goes]
    assert not table.start(lost.id, "run 1", later)


def test_what_is_not_to_be_started_is_not(registry: Registry) -> None:
    decided(registry, trigger("d1"))
    waits, _ = decided(registry, trigger("d2"))
    no, _ = decided(registry, trigger("d3", finding=Finding.BENIGN))
    for other in (waits, no):
        assert not registry.retrainings.start(other.id, "run 1", NOW)
    assert [r.id for r in registry.retrainings.unstarted()] == [1]


def test_a_look_dated_in_the_future_counts_as_of_now(registry: Registry) -> None:
    skewed, _ = decided(registry, trigger("d1", finding=Finding.NONE, at=NOW + 900 * HOUR))
    assert skewed.trigger.at == NOW
    later = NOW + HOUR
    assert decided(registry, trigger("d2", at=later), later)[0].current.answer == "retrain"


def test_an_unknown_retraining_is_told(registry: Registry) -> None:
    for ask in (
        lambda: registry.retrainings.one(7),
        lambda: registry.retrainings.start(7, "run 1", NOW),
        lambda: registry.retrainings.finish(7, "run 1", "kept", NOW),
    ):
        with pytest.raises(InputError) as unknown:
            ask()
        assert str(unknown.value) == "registry: there is no retraining 7"


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM retrainings",
        "UPDATE retrainings SET asked = '{}'",
        "UPDATE retrainings SET cause = 'another'",
        "UPDATE retrainings SET actor = 'nobody'",
    ],
)
def test_the_database_itself_keeps_what_was_asked(
    registry: Registry, registry_url: str, change: str
) -> None:
    before, _ = decided(registry, trigger("d1"))
    engine = sa.create_engine(registry_url)
    with (
        pytest.raises(DBAPIError, match="what was asked in retrainings stays"),
        engine.begin() as connection,
    ):
        connection.exec_driver_sql(change)
    engine.dispose()
    assert registry.retrainings.one(before.id) == before


def test_a_cause_as_long_as_they_get_fits(registry: Registry) -> None:
    window = (NOW - 168 * HOUR, NOW)
    asked = trigger("x" * 200, "performance", window=window)
    assert decided(registry, asked)[0].trigger.cause == asked.cause
    assert len(asked.cause) < 400


# Beside rollouts

DAY = timedelta(days=1)
PLAN = plan_of(
    RolloutSpec(
        strategy="canary", steps=(10, 100), bake=2 * DAY, timeout=9 * DAY, min_requests=10,
        guards=Guards(error_rate=0.01),
    )
)  # fmt: skip


def registered(registry: Registry, version: int, now: datetime) -> None:
    digest = f"{version:064x}"
    registry.register(
        "delay", BundleRef(uri=f"/bundles/{digest}", digest=digest), params={}, metrics={},
        judgement={}, links={}, actor="training", reason="passed", now=now,
    )  # fmt: skip


def serving(registry: Registry) -> int:
    """Give all requests to a first version."""
    registered(registry, 1, NOW)
    registry.promote(
        "delay", 1, expected_generation=0, actor="anna", reason="first", evidence={}, cause="first",
        now=NOW,
    )  # fmt: skip
    return 1


def begun(registry: Registry, version: int, now: datetime) -> Rollout:
    champion = registry.route("delay").champion
    return registry.rollouts.begin(
        "delay", version, PLAN, actor="training", reason="passed", cause=f"judged {version}",
        now=now, expected_champion=champion,
    )  # fmt: skip


def retrained(registry: Registry, goes: Retraining, version: int, now: datetime) -> Rollout:
    """What the run of a retraining does whose version passes: half an hour of work."""
    assert registry.retrainings.start(goes.id, f"run {goes.id}", now)
    registered(registry, version, now + HOUR / 2)
    rollout = begun(registry, version, now + HOUR / 2)
    run, over = f"run {goes.id}", now + HOUR / 2
    assert registry.retrainings.finish(goes.id, run, "rolling out", over, version=version)
    return rollout


def looked(registry: Registry, failed: int, now: datetime) -> None:
    """A look of whoever watches the rollout under way: of 2,000 requests some failed."""
    rollout = registry.rollouts.active("delay")
    assert rollout is not None
    measured = Measurement(
        guard="error_rate", n_challenger=2000, value=failed / 2000, low=failed / 4000,
        high=failed / 1000,
    )  # fmt: skip
    present = rollout.plan.steps[rollout.state.step]
    check = judge(rollout.state.step, present, (measured,), 2000, now)
    found = step(rollout, check, now)
    assert found is not None
    registry.rollouts.advance(rollout, found, actor="watch", evidence={}, now=now)


def harm(registry: Registry, now: datetime) -> Trigger:
    """What a look at the champion finds that does worse."""
    champion = registry.route("delay").champion
    return trigger(f"look {now}", at=now, version=champion, window=(now - 7 * DAY, now))


def test_a_champion_that_stays_bad_is_replaced_though_its_rollout_lasts_longer_than_a_day(
    registry: Registry,
) -> None:
    """By looks of the drift watch, a schedule and new data, all of them daily: none makes a
    version that supersedes the one that earns its requests."""
    newest, often = serving(registry), Retrain(schedule="0 6 * * *", on=("drift", "data"))
    answers = []
    for day in range(1, 13):
        now = NOW + day * DAY
        if registry.rollouts.active("delay") is not None:
            looked(registry, 0, now)
        champion = registry.route("delay").champion
        causes = (
            harm(registry, now),
            trigger(f"due {day}", "schedule", at=now),
            trigger(f"rows {day}", "data", at=now),
        )
        for asked in causes if champion == 1 else causes[1:]:
            found, _ = decided(registry, asked, now, settings=often)
            answers.append((day, asked.kind, found.current.answer))
            if found.goes:
                newest += 1
                retrained(registry, found, newest, now)
    ends = [r.state.phase for r in registry.rollouts.last("delay")]
    assert ends == ["running", "promoted", "promoted"]
    assert registry.route("delay").champion == 3
    assert [answer for answer in answers if answer[2] == "retrain"] == [
        (1, "drift", "retrain"), (6, "schedule", "retrain"), (11, "schedule", "retrain"),
    ]  # fmt: skip
    held = registry.retrainings.one(6).current
    assert held.reason == "data arrived: logloss rose, but version 2 is being rolled out"


def test_a_look_that_waited_for_a_rollout_starts_nothing_once_its_version_serves(
    registry: Registry,
) -> None:
    serving(registry)
    goes, _ = decided(registry, harm(registry, NOW + DAY), NOW + DAY)
    retrained(registry, goes, 2, NOW + DAY)
    asked = harm(registry, NOW + 2 * DAY)
    waits, _ = decided(registry, asked, NOW + 2 * DAY)
    assert waits.current.reason == (
        "harmful drift: logloss rose, but version 2 is being rolled out"
    )
    assert waits.current.wait_until is None
    for day in (3, 5):
        looked(registry, 0, NOW + day * DAY + HOUR)
        assert registry.retrainings.due(NOW + day * DAY + HOUR) == [waits]
        assert decided(registry, asked, NOW + day * DAY)[1] is (day == 5)
    assert registry.route("delay").champion == 2
    found = registry.retrainings.one(waits.id)
    assert found.current.answer == "no"
    assert found.current.reason.endswith("that is of version 1, and version 2 serves now")
    assert registry.retrainings.one(goes.id).outcome == "promoted"


def test_the_pause_grows_with_each_version_that_its_guards_send_back(registry: Registry) -> None:
    """Half an hour after it began, so that users see each of them for so long."""
    newest = serving(registry)
    at: list[int] = []
    for hour in range(1, 14 * 24):
        now = NOW + hour * HOUR
        if registry.rollouts.active("delay") is not None:
            looked(registry, 1500, now)
        found, _ = decided(registry, harm(registry, now), now)
        if found.goes:
            newest += 1
            at.append(hour)
            retrained(registry, found, newest, now)
    assert {r.state.phase for r in registry.rollouts.last("delay")} == {"rolled back"}
    outcomes = {r.outcome for r in registry.retrainings.last("delay", 1000) if r.goes}
    assert outcomes == {"rolled back"}
    # Each counts from its rollout's end, an hour later.
    assert [b - a for a, b in pairwise(at)] == [13, 25, 49, 97]


@pytest.mark.parametrize(("command", "outcome"), [("promote", "promoted"), ("abort", "aborted")])
def test_the_end_of_a_rollout_is_what_became_of_its_retraining(
    registry: Registry, command: Any, outcome: str
) -> None:
    serving(registry)
    goes, _ = decided(registry, harm(registry, NOW + HOUR), NOW + HOUR)
    retrained(registry, goes, 2, NOW + HOUR)
    table, later = registry.retrainings, NOW + DAY
    assert table.one(goes.id).outcome == "rolling out"
    registry.rollouts.command("delay", command, actor="anna", reason="", now=later)
    done = table.one(goes.id)
    assert (done.state, done.outcome, done.finished_at) == ("finished", outcome, later)
    # It stays so whatever is done with other versions, or with this one by hand.
    registered(registry, 3, later)
    begun(registry, 3, later)
    assert table.one(goes.id) == done


def test_a_rollout_that_ends_before_its_retraining_says_so_counts_all_the_same(
    registry: Registry,
) -> None:
    """The run died in between, and was resumed."""
    serving(registry)
    goes, _ = decided(registry, harm(registry, NOW + HOUR), NOW + HOUR)
    table = registry.retrainings
    assert table.start(goes.id, "run 1", NOW + HOUR)
    registered(registry, 2, NOW + HOUR)
    begun(registry, 2, NOW + HOUR)
    registry.rollouts.command("delay", "abort", actor="anna", reason="", now=NOW + 2 * HOUR)
    registered(registry, 3, NOW + 2 * HOUR)
    begun(registry, 3, NOW + 2 * HOUR)
    assert table.finish(goes.id, "run 1", "rolling out", NOW + 3 * HOUR, version=2)
    assert table.one(goes.id).outcome == "aborted"
    by_hand, _ = decided(registry, trigger("anna", "hand", at=NOW + DAY), NOW + DAY)
    retrained(registry, by_hand, 4, NOW + DAY)
    registered(registry, 5, NOW + DAY)
    begun(registry, 5, NOW + 2 * DAY)
    assert table.one(by_hand.id).outcome == "superseded"


def test_a_retraining_of_before_a_rollout_does_not_end_with_it(registry: Registry) -> None:
    """One whose outcome was written when rollouts did not tell of their ends."""
    serving(registry)
    goes, _ = decided(registry, harm(registry, NOW + HOUR), NOW + HOUR)
    table = registry.retrainings
    assert table.start(goes.id, "run 1", NOW + HOUR)
    assert table.finish(goes.id, "run 1", "rolling out", NOW + HOUR)
    registered(registry, 2, NOW + DAY)
    begun(registry, 2, NOW + DAY)
    registry.rollouts.command("delay", "abort", actor="anna", reason="", now=NOW + 2 * DAY)
    assert table.one(goes.id).outcome == "rolling out"


def test_a_record_is_json(registry: Registry) -> None:
    found, _ = decided(registry, trigger("d1", evidence={"worst": -math.inf}))
    told = json.loads(found.model_dump_json())
    assert told["trigger"]["evidence"] == {"worst": None}
    assert Retraining.model_validate(told) == found
