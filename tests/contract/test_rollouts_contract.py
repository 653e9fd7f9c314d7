"""What the table of rollouts does on every database behind the registry."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from perennial.contracts.errors import InputError
from perennial.contracts.refs import BundleRef
from perennial.contracts.rollouts import (
    Check,
    CheckOutcome,
    Guard,
    Limits,
    Measurement,
    Plan,
    Rollout,
    Step,
    Transition,
)
from perennial.contracts.verdicts import Evidence, Outcome, Verdict
from perennial.decisions.rollout import step
from perennial.stores.registry import (
    Arm,
    Registry,
    Route,
    StaleRolloutError,
    StaleRouteError,
)
from perennial.stores.registry.replay import replayed

pytest_plugins = ["tests.contract.databases"]

NOW = datetime(2026, 3, 9, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
GUARD = Guard(name="error_rate", kind="error_rate", limit=0.01)
OUTCOMES: dict[CheckOutcome, Outcome] = {
    "successful": Outcome.PASSED,
    "failed": Outcome.FAILED,
    "inconclusive": Outcome.INCONCLUSIVE,
    "error": Outcome.ERROR,
}


def planned(*steps: tuple[str, int], approval: bool = False, **changed: Any) -> Plan:
    return Plan(
        steps=tuple(
            Step(
                strategy=strategy,
                weight=weight,
                bake_seconds=60,
                timeout_seconds=3600,
                min_requests=10,
                approval=approval,
                guards=(GUARD,),
            )
            for strategy, weight in steps
        ),
        **changed,
    )


CANARY = planned(("canary", 5), ("canary", 100))
SHADOW = planned(("shadow", 0), ("canary", 50))
AT_ONCE = Plan(steps=())


@pytest.fixture
def registry(registry_url: str) -> Any:
    """Four versions, the first of which is the champion."""
    registry = Registry(registry_url)
    for digest in ("d1", "d2", "d3", "d4"):
        registry.register(
            "delay", BundleRef(uri=f"/bundles/{digest}", digest=digest), params={}, metrics={},
            judgement={}, links={}, actor="training", reason="passed", now=NOW,
        )  # fmt: skip
    promoted(registry, 1)
    yield registry
    registry.close()


def promoted(registry: Registry, version: int, **changed: Any) -> Route:
    values: dict[str, Any] = {
        "expected_generation": registry.route("delay").generation, "actor": "anna",
        "reason": "better", "evidence": {}, "cause": f"promote {version}", "now": NOW,
    } | changed  # fmt: skip
    return registry.promote("delay", version, **values)


def begun(registry: Registry, version: int, plan: Plan = CANARY, **changed: Any) -> Rollout:
    values: dict[str, Any] = {
        "actor": "training", "reason": "better by 0.01", "cause": f"roll out {version}", "now": NOW,
    } | changed  # fmt: skip
    return registry.rollouts.begin("delay", version, plan, **values)


def rolled_back(registry: Registry, to: int | None = None, **changed: Any) -> Route:
    values: dict[str, Any] = {"actor": "anna", "reason": "too slow", "now": NOW} | changed
    return registry.rollback("delay", to, **values)


def commanded(registry: Registry, what: Any, reason: str = "") -> Rollout:
    return registry.rollouts.command("delay", what, actor="anna", reason=reason, now=NOW)


def after(rollout: Rollout, outcome: CheckOutcome, minutes: int = 2) -> Transition:
    """What follows from a check of the present step, some minutes after it began."""
    at = rollout.state.entered_at + minutes * MINUTE
    check = Check(
        at=at, step=rollout.state.step, outcome=outcome, requests=200,
        measurements=(Measurement(guard=GUARD.name, n_challenger=200, value=0.4, high=math.inf),),
        verdicts=(
            Verdict(
                outcome=OUTCOMES[outcome], reason="80 of 200 requests failed",
                evidence=Evidence(rule=GUARD.name, limit=0.01),
            ),
        ),
    )  # fmt: skip
    found = step(rollout, check, at)
    assert found is not None
    return found


def advanced(registry: Registry, rollout: Rollout, transition: Transition) -> Rollout:
    return registry.rollouts.advance(
        rollout, transition, actor="rollout", evidence={"share": 0.4}, now=NOW + MINUTE
    )


def quarantine(registry: Registry, version: int) -> Rollout:
    """Roll a version out, and back by a failed check."""
    rollout = begun(registry, version, cause=f"to fail {version}")
    return advanced(registry, rollout, after(rollout, "failed"))


def newest(registry: Registry, n: int) -> list[tuple[str, int | None, int | None, str]]:
    entries = registry.decisions("delay", n)[::-1]
    return [(e.action, e.version, e.generation, e.reason) for e in entries]


def told(registry: Registry) -> Any:
    """All that a rollout can change."""
    return (
        registry.route("delay"),
        registry.decisions("delay"),
        registry.rollouts.last("delay"),
        registry.quarantined("delay"),
    )


def assert_replays(registry: Registry) -> None:
    assert replayed("delay", registry.decisions("delay", 1000)) == registry.route("delay")


# Beginning


def test_a_rollout_begins_with_its_first_step_on_the_route_and_in_the_audit(
    registry: Registry,
) -> None:
    rollout = begun(registry, 2)
    assert (rollout.id, rollout.version, rollout.champion, rollout.revision) == (1, 2, 1, 0)
    assert (rollout.plan, rollout.state.phase, rollout.state.step) == (CANARY, "running", 0)
    assert (rollout.actor, rollout.reason) == ("training", "better by 0.01")
    assert (rollout.started_at, rollout.updated_at, rollout.ended_at) == (NOW, NOW, None)
    assert registry.route("delay") == Route(
        model="delay", champion=1, arms=(Arm(version=1, weight=95), Arm(version=2, weight=5)),
        shadow=(), generation=2, updated_at=NOW,
    )  # fmt: skip
    assert registry.rollouts.one(1) == registry.rollouts.active("delay") == rollout
    assert registry.rollouts.last("delay") == [rollout]
    (entry,) = registry.decisions("delay", 1)
    assert (entry.action, entry.version, entry.digest) == ("rollout began", 2, "d2")
    assert (entry.generation, entry.actor, entry.at) == (2, "training", NOW)
    assert entry.evidence["cause"] == "roll out 2"
    assert entry.evidence["plan"] == CANARY.model_dump(mode="json")
    assert entry.evidence["route"] == {
        "champion": 1,
        "arms": [{"version": 1, "weight": 95}, {"version": 2, "weight": 5}],
        "shadow": [],
    }
    assert_replays(registry)


def test_a_cause_begins_one_rollout_and_a_repeat_returns_it_as_it_is(registry: Registry) -> None:
    first = begun(registry, 2)
    assert begun(registry, 2) == first
    ended = commanded(registry, "abort")
    before = told(registry)
    assert begun(registry, 2, now=NOW + MINUTE, reason="once more") == ended
    assert told(registry) == before


def test_a_plan_without_steps_promotes_at_once(registry: Registry) -> None:
    rollout = begun(registry, 2, AT_ONCE)
    assert (rollout.state.phase, rollout.ended_at) == ("promoted", NOW)
    assert registry.rollouts.active("delay") is None
    route = registry.route("delay")
    assert (route.champion, route.arms) == (2, (Arm(version=2, weight=100),))
    assert newest(registry, 1)[0][:3] == ("promoted", 2, 2)
    assert_replays(registry)


def test_a_rollout_that_waits_for_approval_leaves_the_route_alone(registry: Registry) -> None:
    before = registry.route("delay")
    rollout = begun(registry, 2, planned(("canary", 5), approval=True))
    assert rollout.state.phase == "waiting"
    assert registry.route("delay") == before
    assert newest(registry, 1)[0][:3] == ("rollout began", 2, None)
    commanded(registry, "approve")
    assert registry.route("delay").arms == (Arm(version=1, weight=95), Arm(version=2, weight=5))
    assert_replays(registry)


def test_a_newer_version_supersedes_a_running_rollout(registry: Registry) -> None:
    begun(registry, 2)
    second = begun(registry, 3, SHADOW)
    first = registry.rollouts.one(1)
    assert (first.state.phase, first.revision, first.ended_at) == ("superseded", 1, NOW)
    assert registry.rollouts.active("delay") == second
    route = registry.route("delay")
    assert (route.arms, route.shadow) == ((Arm(version=1, weight=100),), (3,))
    assert [row[:3] for row in newest(registry, 3)] == [
        ("rollout began", 2, 2),
        ("superseded", 2, 3),
        ("rollout began", 3, 4),
    ]
    assert_replays(registry)


@pytest.mark.parametrize("version", [2, 3])
def test_an_older_version_or_the_same_supersedes_a_running_one_only_if_forced(
    registry: Registry, version: int
) -> None:
    begun(registry, 3)
    before = told(registry)
    with pytest.raises(InputError) as refused:
        begun(registry, version, cause="another")
    assert str(refused.value) == (
        f"delay@{version}: rollout 1 of version 3 has not ended "
        f"(wait for its end, or perennial rollout delay@{version} --force ends it)"
    )
    assert told(registry) == before
    forced = begun(registry, version, cause="another", force=True)
    assert registry.rollouts.active("delay") == forced
    assert registry.rollouts.one(1).state.phase == "superseded"


def test_what_is_older_than_the_champion_is_rolled_out_only_if_forced_or_judged_against_it(
    registry: Registry,
) -> None:
    promoted(registry, 3)
    before = told(registry)
    with pytest.raises(InputError) as refused:  # as an order that waited while 3 was promoted
        begun(registry, 2)
    assert str(refused.value) == (
        "delay@2: it is older than the champion, version 3 "
        "(perennial rollout delay@2 --force rolls it out all the same)"
    )
    assert told(registry) == before
    judged = begun(registry, 2, expected_champion=3)
    assert (judged.champion, judged.state.phase) == (3, "running")
    commanded(registry, "abort")
    forced = begun(registry, 1, force=True)
    assert registry.rollouts.active("delay") == forced
    assert_replays(registry)


def test_what_can_not_be_rolled_out_is_refused_and_nothing_is_written(registry: Registry) -> None:
    before = told(registry)
    for version, why in (
        (1, "delay@1: it is the champion already"),
        (9, "registry: 'delay' has no version 9 (its versions are 1 to 4)"),
    ):
        with pytest.raises(InputError) as refused:
            begun(registry, version)
        assert str(refused.value) == why
    assert told(registry) == before
    registry.register(
        "new", BundleRef(uri="/bundles/n1", digest="n1"), params={}, metrics={}, judgement={},
        links={}, actor="training", reason="passed", now=NOW,
    )  # fmt: skip
    with pytest.raises(InputError, match="there is no champion to roll it out beside"):
        registry.rollouts.begin("new", 1, CANARY, actor="a", reason="r", cause="c", now=NOW)
    assert registry.rollouts.last("new") == []


def test_a_version_judged_against_another_champion_is_judged_anew(registry: Registry) -> None:
    assert begun(registry, 3, expected_champion=1).champion == 1
    commanded(registry, "promote")
    before = told(registry)
    with pytest.raises(StaleRouteError) as stale:
        begun(registry, 4, expected_champion=1)
    assert str(stale.value) == (
        "version 4 of 'delay' was judged against version 1, and the champion is version 3 now; "
        "judge anew"
    )
    assert told(registry) == before


# Steps


def test_steps_that_go_well_end_in_a_promotion(registry: Registry) -> None:
    rollout = begun(registry, 2)
    rollout = advanced(registry, rollout, after(rollout, "successful"))
    assert (rollout.revision, rollout.state.step, rollout.updated_at) == (1, 1, NOW + MINUTE)
    assert registry.route("delay").arms == (Arm(version=1, weight=0), Arm(version=2, weight=100))
    assert registry.route("delay").champion == 1
    rollout = advanced(registry, rollout, after(rollout, "successful"))
    assert (rollout.state.phase, rollout.ended_at) == ("promoted", NOW + MINUTE)
    assert registry.rollouts.active("delay") is None
    route = registry.route("delay")
    assert (route.champion, route.arms, route.shadow) == (2, (Arm(version=2, weight=100),), ())
    assert [row[:3] for row in newest(registry, 3)] == [
        ("rollout began", 2, 2),
        ("step began", 2, 3),
        ("promoted", 2, 4),
    ]
    entry = registry.decisions("delay", 1)[0]
    assert entry.evidence["share"] == 0.4
    assert (entry.evidence["rollout"], entry.evidence["step"]) == (1, 1)
    assert_replays(registry)


def test_a_look_that_changed_nothing_but_counts_is_on_record_and_not_in_the_audit(
    registry: Registry,
) -> None:
    rollout = begun(registry, 2)
    route, decisions = registry.route("delay"), registry.decisions("delay")
    rollout = advanced(registry, rollout, after(rollout, "inconclusive"))
    assert (rollout.revision, rollout.state.counts.inconclusive) == (1, 1)
    assert registry.rollouts.one(1) == rollout
    assert (registry.route("delay"), registry.decisions("delay")) == (route, decisions)
    assert rollout.state.last is not None
    assert rollout.state.last.measurements[0].high is None  # it was infinite, which JSON has not


def test_a_step_decided_on_an_old_revision_is_refused_and_leaves_no_trace(
    registry: Registry,
) -> None:
    rollout = begun(registry, 2)
    commanded(registry, "pause")
    before = told(registry)
    with pytest.raises(StaleRolloutError) as stale:
        advanced(registry, rollout, after(rollout, "failed"))
    assert str(stale.value) == (
        "rollout 1 of 'delay' was at revision 0 when this was decided and is at 1 now (paused); "
        "read it again"
    )
    assert told(registry) == before


def test_of_two_writers_at_once_one_is_told_that_it_came_too_late(
    registry: Registry, registry_url: str
) -> None:
    rollout = begun(registry, 2)
    writers = [Registry(registry_url) for _ in range(2)]
    barrier = Barrier(2)

    def write(writer: Registry, outcome: CheckOutcome) -> Rollout | StaleRolloutError:
        barrier.wait(60)
        try:
            return advanced(writer, rollout, after(rollout, outcome))
        except StaleRolloutError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(write, writers, ("successful", "failed")))
    for writer in writers:
        writer.close()
    (won,) = [result for result in results if isinstance(result, Rollout)]
    assert registry.rollouts.one(1) == won
    assert won.revision == 1
    failed = won.state.phase == "rolled back"
    assert registry.quarantined("delay").keys() == ({2} if failed else set())
    assert len(newest(registry, 100)) == (8 if failed else 7)
    assert_replays(registry)


def test_controllers_in_any_interleaving_write_what_one_alone_would(
    registry: Registry, registry_url: str
) -> None:
    plan = planned(("shadow", 0), *(("canary", weight) for weight in (5, 25, 50, 100)))
    begun(registry, 2, plan)
    barrier = Barrier(4)

    def control(_: int) -> int:
        own, wins = Registry(registry_url), 0
        barrier.wait(60)
        while (rollout := own.rollouts.active("delay")) is not None:
            try:
                advanced(own, rollout, after(rollout, "successful"))
                wins += 1
            except StaleRolloutError:
                continue
        own.close()
        return wins

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(control, range(4))) == 5
    assert [row[:3] for row in newest(registry, 6)] == [
        ("rollout began", 2, 2),
        *(("step began", 2, generation) for generation in (3, 4, 5, 6)),
        ("promoted", 2, 7),
    ]
    assert_replays(registry)


def test_a_rollout_that_has_ended_goes_nowhere(registry: Registry) -> None:
    begun(registry, 2)
    ended = commanded(registry, "abort")
    with pytest.raises(StaleRolloutError, match=r"is at 1 now \(aborted\)"):
        advanced(registry, ended, after(begun(registry, 3), "successful"))
    commanded(registry, "abort")
    with pytest.raises(InputError) as refused:
        commanded(registry, "promote")
    assert str(refused.value) == "delay: no version of it is being rolled out"


def test_a_route_is_never_changed_without_a_word_in_the_audit(registry: Registry) -> None:
    rollout = begun(registry, 2)
    before = told(registry)
    silent = after(rollout, "successful").model_copy(update={"action": ""})
    with pytest.raises(ValueError, match="needs a word for the audit"):
        advanced(registry, rollout, silent)
    assert told(registry) == before


def test_the_latest_rollouts_come_first_and_bounded(registry: Registry) -> None:
    for version in (2, 3, 4):
        begun(registry, version)
    assert [rollout.version for rollout in registry.rollouts.last("delay", 2)] == [4, 3]
    with pytest.raises(InputError, match="there is no rollout 9"):
        registry.rollouts.one(9)


# Commands


def test_a_person_may_pause_resume_and_promote_a_rollout(registry: Registry) -> None:
    begun(registry, 2)
    route = registry.route("delay")
    assert commanded(registry, "pause", "lunch").state.phase == "paused"
    assert commanded(registry, "resume").state.phase == "running"
    assert registry.route("delay") == route
    rollout = commanded(registry, "promote", "we know it")
    assert (rollout.state.phase, rollout.revision) == ("promoted", 3)
    assert registry.route("delay").champion == 2
    assert [row[0] for row in newest(registry, 4)] == [
        "rollout began", "paused", "resumed", "promoted",
    ]  # fmt: skip
    entry = registry.decisions("delay", 1)[0]
    assert (entry.actor, entry.reason, entry.evidence["command"]) == (
        "anna", "we know it", "promote",
    )  # fmt: skip
    assert_replays(registry)


def test_a_command_that_makes_no_sense_is_refused_in_words_and_writes_nothing(
    registry: Registry,
) -> None:
    begun(registry, 2)
    before = told(registry)
    with pytest.raises(InputError) as refused:
        commanded(registry, "approve")
    assert str(refused.value) == "delay@2: no step of it waits for approval"
    assert told(registry) == before


# Quarantine


def test_a_failed_guard_gives_the_route_back_and_quarantines_the_version(
    registry: Registry,
) -> None:
    ended = quarantine(registry, 2)
    why = "step 1 of 2 (canary of 5 %): 80 of 200 requests failed"
    assert ended.state.phase == "rolled back"
    route = registry.route("delay")
    assert (route.champion, route.arms) == (1, (Arm(version=1, weight=100),))
    assert registry.quarantined("delay") == {2: why}
    assert newest(registry, 2) == [("rolled back", 2, 3, why), ("quarantined", 2, None, why)]
    assert_replays(registry)


def test_a_quarantined_version_is_neither_rolled_out_nor_promoted_nor_gone_back_to(
    registry: Registry,
) -> None:
    promoted(registry, 2)
    promoted(registry, 1, cause="back by hand")
    quarantine(registry, 2)
    before = told(registry)
    words = (
        "delay@2: it is quarantined: step 1 of 2 (canary of 5 %): 80 of 200 requests failed "
        "(perennial rollout delay@2 --force tries it once more)"
    )
    for attempt in (
        lambda: begun(registry, 2),
        lambda: promoted(registry, 2, cause="promote it all the same"),
        lambda: rolled_back(registry, 2),
    ):
        with pytest.raises(InputError) as refused:
            attempt()
        assert str(refused.value) == words
    with pytest.raises(InputError, match="no champion before version 1 to go back to"):
        rolled_back(registry)
    assert told(registry) == before


def test_force_releases_a_version_and_a_new_failure_quarantines_it_again(
    registry: Registry,
) -> None:
    quarantine(registry, 2)
    forced = begun(registry, 2, force=True, reason="the disk was full", actor="anna")
    assert registry.quarantined("delay") == {}
    assert [row[:2] for row in newest(registry, 2)] == [("released", 2), ("rollout began", 2)]
    assert newest(registry, 2)[0][3] == "forced: the disk was full"
    advanced(registry, forced, after(forced, "failed"))
    assert registry.quarantined("delay").keys() == {2}
    assert registry.quarantined("iris") == {}
    assert_replays(registry)


# Going back


def test_a_rollback_goes_to_the_champion_before_and_the_next_one_comes_back(
    registry: Registry,
) -> None:
    promoted(registry, 2)
    promoted(registry, 3)
    later = NOW + MINUTE
    assert rolled_back(registry, now=later) == Route(
        model="delay", champion=2, arms=(Arm(version=2, weight=100),), shadow=(), generation=4,
        updated_at=later,
    )  # fmt: skip
    assert registry.champion("delay") == registry.version("delay", 2).ref
    assert newest(registry, 1) == [("rolled back", 3, 4, "back to version 2: too slow")]
    assert registry.quarantined("delay") == {}
    assert rolled_back(registry, reason="").champion == 3
    assert newest(registry, 1) == [("rolled back", 2, 5, "back to version 3")]
    assert rolled_back(registry).champion == 2
    assert rolled_back(registry, 1).champion == 1
    assert_replays(registry)


def test_a_rollback_of_a_running_rollout_leaves_the_champion_with_everything(
    registry: Registry,
) -> None:
    begun(registry, 2)
    route = rolled_back(registry)
    assert (route.champion, route.arms) == (1, (Arm(version=1, weight=100),))
    assert registry.route("delay") == route
    assert registry.rollouts.one(1).state.phase == "aborted"
    assert registry.quarantined("delay") == {}
    assert newest(registry, 1) == [("aborted", 2, 3, "too slow")]
    assert_replays(registry)


def test_a_rollback_to_a_version_ends_a_running_rollout_and_goes_there(
    registry: Registry,
) -> None:
    promoted(registry, 2)
    begun(registry, 3)
    assert rolled_back(registry, 2).champion == 2
    begun(registry, 4)
    assert rolled_back(registry, 1).champion == 1
    assert registry.rollouts.active("delay") is None
    assert [row[:3] for row in newest(registry, 2)] == [("aborted", 4, 6), ("rolled back", 2, 7)]
    assert_replays(registry)


def test_a_rollback_to_nowhere_is_refused_and_nothing_is_written(registry: Registry) -> None:
    before = told(registry)
    for to, why in (
        (None, "delay: there is no champion before version 1 to go back to"),
        (1, "delay@1: it is the champion already"),
        (
            2,
            "delay@2: it never was the champion, so nothing goes back to it "
            "(perennial rollout delay@2 gives it requests step by step)",
        ),
        (9, "registry: 'delay' has no version 9 (its versions are 1 to 4)"),
    ):
        with pytest.raises(InputError) as refused:
            rolled_back(registry, to)
        assert str(refused.value) == why
    begun(registry, 2)
    running = told(registry)
    with pytest.raises(InputError, match="it never was the champion"):
        rolled_back(registry, 3)
    assert told(registry) == running != before
    with pytest.raises(InputError, match="no version of it was ever promoted"):
        registry.rollback("iris", None, actor="anna", reason="", now=NOW)
    promoted(registry, 3)
    with pytest.raises(InputError, match="delay@2 --force gives it requests step by step"):
        rolled_back(registry, 2)


def test_a_promotion_from_elsewhere_supersedes_a_running_rollout(registry: Registry) -> None:
    begun(registry, 2)
    route = promoted(registry, 3)
    assert (route.champion, registry.route("delay")) == (3, route)
    assert registry.rollouts.active("delay") is None
    assert [row[:2] for row in newest(registry, 2)] == [("superseded", 2), ("promoted", 3)]
    assert_replays(registry)


# The database itself


def test_the_database_itself_refuses_a_second_running_rollout(
    registry: Registry, registry_url: str
) -> None:
    begun(registry, 2)
    engine = sa.create_engine(registry_url)
    copy = (
        "INSERT INTO rollouts (model, version, champion, cause, plan, actor, reason, started_at, "
        "phase, state, revision, updated_at, ended_at) SELECT model, 3, champion, 'another', plan, "
        "actor, reason, started_at, '{}', state, revision, updated_at, {} FROM rollouts"
    )
    for phase, ended_at in (("running", "NULL"), ("running", "updated_at"), ("aborted", "NULL")):
        with pytest.raises(sa.exc.IntegrityError), engine.begin() as connection:
            connection.exec_driver_sql(copy.format(phase, ended_at))
    with engine.begin() as connection:
        connection.exec_driver_sql(copy.format("aborted", "updated_at"))
    engine.dispose()
    assert [rollout.version for rollout in registry.rollouts.last("delay")] == [3, 2]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("DELETE FROM rollouts", "what was begun in rollouts stays"),
        ("UPDATE rollouts SET champion = 4 WHERE version = 3", "what was begun in rollouts stays"),
        (
            "UPDATE rollouts SET phase = 'running', ended_at = NULL WHERE version = 2",
            "a rollout that has ended stays as it is",
        ),
    ],
    ids=["deleted", "rewritten", "revived"],
)
def test_the_database_itself_refuses_to_rewrite_rollouts(
    registry: Registry, registry_url: str, change: str, why: str
) -> None:
    begun(registry, 2)
    begun(registry, 3)
    before = told(registry)
    engine = sa.create_engine(registry_url)
    with pytest.raises(DBAPIError, match=why), engine.begin() as connection:
        connection.exec_driver_sql(change)
    engine.dispose()
    assert told(registry) == before


def test_limits_come_back_as_they_were_planned(registry: Registry) -> None:
    plan = planned(("ab_test", 50), alpha=0.01, limits=Limits(failed=2, inconclusive=9, error=1))
    assert begun(registry, 2, plan).plan == plan
