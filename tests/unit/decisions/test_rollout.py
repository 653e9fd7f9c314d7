"""The state machine of rollouts, transition by transition."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perennial.contracts.rollouts import (
    Check,
    CheckOutcome,
    Command,
    Counts,
    Guard,
    Limits,
    Measurement,
    Plan,
    Rollout,
    RolloutState,
    RouteChange,
    Step,
    Transition,
)
from perennial.contracts.routes import Arm
from perennial.contracts.verdicts import Evidence, Outcome, Verdict
from perennial.decisions.rollout import awaited, command, route_at, start, step, supersede

NOW = datetime(2026, 3, 9, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ERRORS = Guard(name="error_rate", kind="error_rate", limit=0.01)
LOSS = Guard(name="logloss", kind="metric", limit=0.02)
REVENUE = Guard(name="mean revenue", kind="business", limit=0.5, column="revenue")
CHAMPION, VERSION = 3, 4
VERDICTS: dict[CheckOutcome, Outcome] = {
    "successful": Outcome.PASSED,
    "failed": Outcome.FAILED,
    "inconclusive": Outcome.INCONCLUSIVE,
    "error": Outcome.ERROR,
}


def planned(*steps: tuple[str, int], guards: Any = (ERRORS,), **changed: Any) -> Plan:
    limits = changed.pop("limits", Limits())
    values = {"bake_seconds": 600, "timeout_seconds": 3600, "min_requests": 100, **changed}
    return Plan(
        steps=tuple(
            Step.model_validate(
                {"strategy": strategy, "weight": weight, "guards": guards, **values}
            )
            for strategy, weight in steps
        ),
        limits=limits,
    )


CANARY = planned(("canary", 5), ("canary", 100))
APPROVED = planned(("canary", 5), ("canary", 100), approval=True)


def begun(plan: Plan, now: datetime = NOW) -> Rollout:
    return Rollout(
        id=1, model="m", version=VERSION, champion=CHAMPION, plan=plan,
        state=start(plan, CHAMPION, VERSION, now).state, revision=1, actor="a", reason="r",
        started_at=now, updated_at=now, ended_at=None,
    )  # fmt: skip


def after(rollout: Rollout, transition: Transition | None) -> Rollout:
    assert transition is not None
    return rollout.model_copy(update={"state": transition.state, "revision": rollout.revision + 1})


def looked(
    outcome: CheckOutcome,
    minutes: float = 10,
    number: int = 0,
    requests: int = 500,
    guards: tuple[Guard, ...] = (ERRORS,),
    reason: str = "error_rate: 0.1 %",
    **measured: dict[str, Any],
) -> Check:
    """A look some minutes after the beginning. ``measured`` are a guard's numbers, by its name
    without spaces; by default each is measured as well as can be."""
    measurements = []
    for guard in guards:
        told = {"value": 0.0, "n_champion": 500, "n_challenger": 500}
        told |= measured.get(guard.name.replace(" ", "_"), {})
        measurements.append(Measurement.model_validate({"guard": guard.name, **told}))
    verdict = Verdict(outcome=VERDICTS[outcome], reason=reason, evidence=Evidence(rule="r"))
    return Check(
        at=NOW + minutes * MINUTE, step=number, outcome=outcome, requests=requests,
        measurements=tuple(measurements), verdicts=(verdict,),
    )  # fmt: skip


def see(rollout: Rollout, check: Check) -> Transition | None:
    return step(rollout, check, check.at)


def everything_to(version: int) -> RouteChange:
    return RouteChange(champion=version, arms=(Arm(version=version, weight=100),))


def shared(champion: int, version: int) -> RouteChange:
    arms = (Arm(version=CHAMPION, weight=champion), Arm(version=VERSION, weight=version))
    return RouteChange(champion=CHAMPION, arms=arms)


# Routes


@pytest.mark.parametrize(
    ("strategy", "weight", "route"),
    [
        ("canary", 5, shared(95, 5)),
        ("canary", 100, shared(0, 100)),
        ("blue_green", 100, shared(0, 100)),
        ("ab_test", 30, shared(70, 30)),
        (
            "shadow",
            0,
            RouteChange(
                champion=CHAMPION, arms=(Arm(version=CHAMPION, weight=100),), shadow=(VERSION,)
            ),
        ),
    ],
)
def test_each_strategy_has_its_route_and_the_champion_stays_it(
    strategy: str, weight: int, route: RouteChange
) -> None:
    assert route_at(planned((strategy, weight)), 0, CHAMPION, VERSION) == route


# The beginning


def test_a_plan_without_steps_promotes_at_once() -> None:
    began = start(Plan(steps=()), CHAMPION, VERSION, NOW)
    assert (began.state.phase, began.action) == ("promoted", "promoted")
    assert began.route == everything_to(VERSION)
    assert began.reason == "at once: the plan has no steps"


def test_a_rollout_begins_with_its_first_step() -> None:
    began = start(CANARY, CHAMPION, VERSION, NOW)
    assert began.state == RolloutState(
        phase="running", step=0, entered_at=NOW, reason="step 1 of 2 (canary of 5 %)"
    )
    assert (began.route, began.action, began.quarantine) == (shared(95, 5), "rollout began", False)


def test_a_first_step_that_needs_approval_waits_and_leaves_the_route() -> None:
    began = start(APPROVED, CHAMPION, VERSION, NOW)
    assert (began.state.phase, began.state.step, began.route) == ("waiting", 0, None)
    assert began.reason == "step 1 of 2 (canary of 5 %) waits for approval"
    assert awaited(APPROVED, began.state) == 0


# Checks


def test_a_successful_check_of_a_baked_step_enters_the_next() -> None:
    entered = see(begun(CANARY), looked("successful"))
    assert entered is not None
    assert entered.state == RolloutState(
        phase="running", step=1, entered_at=NOW + 10 * MINUTE, last=looked("successful"),
        reason=entered.reason,
    )  # fmt: skip
    assert (entered.route, entered.action) == (shared(0, 100), "step began")
    assert entered.reason == (
        "step 1 of 2 (canary of 5 %) went well for 10m on 500 rows; step 2 of 2 (canary of 100 %)"
    )


def test_the_last_step_that_goes_well_promotes() -> None:
    rollout = after(begun(CANARY), see(begun(CANARY), looked("successful")))
    promoted = see(rollout, looked("successful", 20, number=1))
    assert promoted is not None
    assert (promoted.state.phase, promoted.state.step) == ("promoted", 1)
    assert (promoted.route, promoted.action) == (everything_to(VERSION), "promoted")
    assert promoted.reason == ("step 2 of 2 (canary of 100 %) went well for 10m on 500 rows")


@pytest.mark.parametrize(
    "check",
    [
        looked("successful", 9.99),
        looked("successful", requests=99),
        looked("successful", error_rate={"value": None}),
        looked("successful", error_rate={"error": "the log can't be read"}),
        looked("successful", guards=()),
        looked("inconclusive"),
        looked("error"),
    ],
    ids=["not baked", "few rows", "no value", "no measurement", "no guard", "unsure", "error"],
)
def test_a_step_does_not_end_well_before_all_of_it_is_there(check: Check) -> None:
    counted = see(begun(CANARY), check)
    assert counted is not None
    assert (counted.state.phase, counted.state.step, counted.state.last) == ("running", 0, check)
    assert (counted.route, counted.action, counted.reason) == (None, "", "")
    assert getattr(counted.state.counts, check.outcome) == 1


def test_a_step_without_guards_never_ends_well() -> None:
    rollout = begun(planned(("canary", 5), guards=()))
    counted = see(rollout, looked("successful", guards=()))
    assert counted is not None
    assert counted.state.phase == "running"


def test_a_failed_check_gives_everything_back_and_quarantines_at_any_time() -> None:
    back = see(begun(CANARY), looked("failed", 0.1, requests=3, reason="error_rate: 40 %"))
    assert back is not None
    assert (back.state.phase, back.action) == ("rolled back", "rolled back")
    assert (back.route, back.quarantine) == (everything_to(CHAMPION), True)
    assert back.reason == "step 1 of 2 (canary of 5 %): error_rate: 40 %"


def test_failed_checks_up_to_the_limit_are_borne() -> None:
    rollout = begun(planned(("canary", 5), limits=Limits(failed=1)))
    borne = see(rollout, looked("failed", 1))
    assert borne is not None
    assert (borne.state.phase, borne.action) == ("running", "")
    back = see(after(rollout, borne), looked("failed", 2))
    assert back is not None
    assert (back.state.phase, back.state.counts.failed) == ("rolled back", 2)


def test_errors_in_a_row_beyond_the_limit_give_everything_back_without_quarantine() -> None:
    rollout = begun(CANARY)
    for minute in range(4):
        rollout = after(rollout, see(rollout, looked("error", minute)))
        assert rollout.state.phase == "running"
    back = see(rollout, looked("error", 5, reason="the log can't be read"))
    assert back is not None
    assert (back.state.phase, back.route) == ("rolled back", everything_to(CHAMPION))
    assert back.quarantine is False
    assert back.reason == "5 checks in a row could not be measured: the log can't be read"


def test_another_outcome_ends_the_errors_in_a_row() -> None:
    rollout = begun(CANARY)
    for minute, outcome in enumerate(["error"] * 4 + ["inconclusive"] + ["error"] * 4):
        rollout = after(rollout, see(rollout, looked(outcome, minute)))  # type: ignore[arg-type]
    assert rollout.state.phase == "running"
    assert rollout.state.counts == Counts(error=8, inconclusive=1, errors_in_a_row=4)


def test_inconclusive_checks_beyond_the_limit_pause_and_the_route_stays() -> None:
    rollout = begun(planned(("canary", 5), limits=Limits(inconclusive=1)))
    rollout = after(rollout, see(rollout, looked("inconclusive", 1)))
    paused = see(rollout, looked("inconclusive", 2, reason="too few rows"))
    assert paused is not None
    assert (paused.state.phase, paused.state.before_pause) == ("paused", "running")
    assert (paused.route, paused.action) == (None, "paused")
    assert paused.reason == (
        "2 checks of step 1 of 1 (canary of 5 %) were inconclusive (limits.inconclusive is 1): "
        "too few rows; resume, promote or abort it"
    )


BORNE = planned(("canary", 5), limits=Limits(failed=3))


@pytest.mark.parametrize("known", [looked("failed", 5), looked("error", 5)])
def test_a_check_that_is_not_later_than_the_last_is_not_heard(known: Check) -> None:
    rollout = after(begun(BORNE), see(begun(BORNE), known))
    for outcome in VERDICTS:
        assert see(rollout, looked(outcome, 4)) is None
        assert see(rollout, looked(outcome, 5)) is None


def test_harm_that_one_check_shows_is_heard_whatever_the_clocks_say() -> None:
    rollout = after(begun(CANARY), see(begun(CANARY), looked("inconclusive", 5)))
    back = see(rollout, looked("failed", 4))
    assert back is not None
    assert back.state.phase == "rolled back"
    assert see(rollout, looked("error", 4)) is None


def test_a_check_of_another_step_is_not_heard() -> None:
    rollout = after(begun(CANARY), see(begun(CANARY), looked("successful")))
    assert see(rollout, looked("failed", 11, number=0)) is None


# Time


def test_time_alone_changes_nothing_until_the_timeout() -> None:
    assert step(begun(CANARY), None, NOW + 59 * MINUTE) is None


@pytest.mark.parametrize("check", [None, looked("inconclusive", 60, reason="too few rows")])
def test_what_was_not_shown_to_be_good_in_time_is_rolled_back_without_quarantine(
    check: Check | None,
) -> None:
    back = step(begun(CANARY), check, NOW + 60 * MINUTE)
    assert back is not None
    assert (back.state.phase, back.route) == ("rolled back", everything_to(CHAMPION))
    assert back.quarantine is False
    said = ": too few rows" if check else ""
    assert back.reason == f"step 1 of 2 (canary of 5 %) was not shown to be good in 1h{said}"


def test_a_step_that_is_good_at_its_last_moment_goes_on() -> None:
    entered = see(begun(CANARY), looked("successful", 60))
    assert entered is not None
    assert entered.state.step == 1


# Approval


def test_a_step_that_needs_approval_waits_and_the_one_before_goes_on_being_watched() -> None:
    plan = planned(("shadow", 0), ("canary", 100))
    plan = Plan(steps=(plan.steps[0], plan.steps[1].model_copy(update={"approval": True})))
    rollout = begun(plan)
    waiting = see(rollout, looked("successful"))
    assert waiting is not None
    assert (waiting.state.phase, waiting.state.step) == ("waiting", 0)
    assert waiting.state.entered_at == NOW
    assert (waiting.route, waiting.action) == (None, "waiting")
    assert waiting.reason == (
        "step 1 of 2 (shadow) went well for 10m on 500 rows; "
        "step 2 of 2 (canary of 100 %) waits for approval"
    )
    rollout = after(rollout, waiting)
    assert awaited(plan, rollout.state) == 1
    for check in (looked("successful", 11), looked("error", 11), looked("inconclusive", 500)):
        assert see(rollout, check) is None
    assert step(rollout, None, NOW + timedelta(days=9)) is None
    back = see(rollout, looked("failed", 12))
    assert back is not None
    assert (back.state.phase, back.quarantine) == ("rolled back", True)


def test_an_approved_step_begins_then_with_its_route_and_counts_of_its_own() -> None:
    approved = command(begun(APPROVED), "approve", NOW + MINUTE, "looks well")
    assert approved.state == RolloutState(
        phase="running", step=0, entered_at=NOW + MINUTE, approved=(0,), reason=approved.reason
    )
    assert (approved.route, approved.action) == (shared(95, 5), "approved")
    assert approved.reason == "looks well; step 1 of 2 (canary of 5 %)"
    rollout = after(begun(APPROVED), approved)
    rollout = after(rollout, see(rollout, looked("successful", 11)))
    assert awaited(APPROVED, rollout.state) == 1
    second = command(rollout, "approve", NOW + 15 * MINUTE, "")
    assert (second.state.step, second.state.approved) == (1, (0, 1))
    assert second.state.counts == Counts()
    assert second.route == shared(0, 100)


def test_what_was_approved_stays_on_record_in_later_steps() -> None:
    first, second = planned(("canary", 5), ("canary", 100)).steps
    plan = Plan(steps=(first.model_copy(update={"approval": True}), second))
    rollout = after(begun(plan), command(begun(plan), "approve", NOW, ""))
    rollout = after(rollout, see(rollout, looked("successful")))
    assert (rollout.state.step, rollout.state.approved) == (1, (0,))


def test_nothing_is_heard_of_a_first_step_that_nobody_approved() -> None:
    rollout = begun(APPROVED)
    assert see(rollout, looked("failed")) is None
    assert step(rollout, None, NOW + timedelta(days=9)) is None


# Commands


def test_promote_needs_no_measurement_but_a_person() -> None:
    promoted = command(begun(CANARY), "promote", NOW, "the board said so")
    assert (promoted.state.phase, promoted.route) == ("promoted", everything_to(VERSION))
    assert (promoted.action, promoted.reason) == ("promoted", "the board said so")


def test_abort_gives_everything_back_without_quarantine() -> None:
    aborted = command(begun(CANARY), "abort", NOW, "")
    assert (aborted.state.phase, aborted.route) == ("aborted", everything_to(CHAMPION))
    assert (aborted.quarantine, aborted.reason) == (False, "by hand")


def test_a_paused_rollout_keeps_its_route_and_still_rolls_back() -> None:
    paused = command(begun(CANARY), "pause", NOW, "lunch")
    assert (paused.state.phase, paused.route, paused.action) == ("paused", None, "paused")
    rollout = after(begun(CANARY), paused)
    assert see(rollout, looked("successful")) is None
    assert step(rollout, None, NOW + timedelta(days=9)) is None
    back = see(rollout, looked("failed", 11))
    assert back is not None
    assert (back.state.phase, back.state.before_pause) == ("rolled back", None)


def test_resume_goes_on_with_new_counts_the_same_evidence_and_all_of_its_time() -> None:
    rollout = after(begun(CANARY), see(begun(CANARY), looked("inconclusive", 1)))
    rollout = after(rollout, command(rollout, "pause", NOW + 2 * MINUTE, ""))
    resumed = command(rollout, "resume", NOW + timedelta(days=1), "back")
    assert (resumed.state.phase, resumed.state.counts) == ("running", Counts())
    assert resumed.state.entered_at == NOW
    assert (resumed.route, resumed.action, resumed.reason) == (None, "resumed", "back")
    rollout = after(rollout, resumed)
    assert step(rollout, None, NOW + timedelta(days=1, minutes=59)) is None
    back = step(rollout, None, NOW + timedelta(days=1, minutes=60))
    assert back is not None
    assert back.state.phase == "rolled back"


def test_a_pause_is_no_time_at_which_a_step_went_well() -> None:
    rollout, back = begun(CANARY), 2 * 1440
    rollout = after(rollout, command(rollout, "pause", NOW + MINUTE, ""))
    rollout = after(rollout, command(rollout, "resume", NOW + back * MINUTE, ""))
    soon = see(rollout, looked("successful", back + 9))
    assert soon is not None
    assert (soon.state.phase, soon.state.step) == ("running", 0)
    then = see(rollout, looked("successful", back + 10))
    assert then is not None
    assert then.state.step == 1
    assert "went well for 10m on 500 rows" in then.reason


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(599, "599s"), (659.5, "10m"), (7_384, "123m"), (172_803, "2d"), (1_000_000, "11d")],
)
def test_how_long_a_step_went_well_is_told_in_units_a_person_reads(
    seconds: float, told: str
) -> None:
    plan = planned(("canary", 5), bake_seconds=1, timeout_seconds=10_000_000)
    promoted = see(begun(plan), looked("successful", seconds / 60))
    assert promoted is not None
    assert f"went well for {told} on" in promoted.reason


def test_a_rollout_that_waits_waits_again_after_a_pause() -> None:
    rollout = begun(APPROVED)
    rollout = after(rollout, command(rollout, "pause", NOW, ""))
    assert awaited(APPROVED, rollout.state) == 0
    assert see(rollout, looked("failed")) is None
    rollout = after(rollout, command(rollout, "resume", NOW, ""))
    assert (rollout.state.phase, rollout.state.before_pause) == ("waiting", None)
    assert command(rollout, "approve", NOW, "").state.step == 0


def test_a_rollout_that_a_limit_paused_goes_on_when_resumed() -> None:
    rollout = begun(planned(("canary", 5), limits=Limits(inconclusive=0)))
    rollout = after(rollout, see(rollout, looked("inconclusive", 1)))
    rollout = after(rollout, command(rollout, "resume", NOW + 2 * MINUTE, ""))
    promoted = see(rollout, looked("successful", 12))
    assert promoted is not None
    assert promoted.state.phase == "promoted"


PAUSED = after(begun(CANARY), command(begun(CANARY), "pause", NOW, ""))
ENDED = after(begun(CANARY), command(begun(CANARY), "abort", NOW, ""))


@pytest.mark.parametrize(
    ("rollout", "what", "said"),
    [
        (begun(CANARY), "resume", "it is running, not paused"),
        (begun(APPROVED), "resume", "it is waiting, not paused"),
        (begun(CANARY), "approve", "no step of it waits for approval"),
        (PAUSED, "approve", "it is paused; resume it first"),
        (PAUSED, "pause", "it is paused already"),
        *[
            (ENDED, what, f"it has ended (aborted); there is nothing to {what}")
            for what in ("promote", "abort", "pause", "resume", "approve")
        ],
    ],
)
def test_a_command_that_makes_no_sense_is_refused_in_words(
    rollout: Rollout, what: Command, said: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        command(rollout, what, NOW, "")


# Superseded


@pytest.mark.parametrize("rollout", [begun(CANARY), begun(APPROVED), PAUSED])
def test_a_superseded_rollout_leaves_everything_to_the_champion(rollout: Rollout) -> None:
    ended = supersede(rollout, 7, NOW)
    assert (ended.state.phase, ended.action) == ("superseded", "superseded")
    assert (ended.route, ended.quarantine) == (everything_to(CHAMPION), False)
    assert ended.reason == "version 7 is rolled out instead"


def test_what_has_ended_stays_as_it_is() -> None:
    assert see(ENDED, looked("failed")) is None
    assert step(ENDED, None, NOW + timedelta(days=9)) is None
    with pytest.raises(ValueError, match="it has ended"):
        supersede(ENDED, 7, NOW)


# A/B tests

BOTH = (ERRORS, LOSS, REVENUE)
AB = planned(("ab_test", 50), guards=BOTH)
BETTER = {"value": -0.1, "low": -0.2, "high": -0.01}
WORSE = {"value": 0.01, "low": 0.001, "high": 0.02}
UNSURE = {"value": 0.0, "low": -0.1, "high": 0.1}
FEW = {"n_champion": 99}


@pytest.mark.parametrize(
    ("minutes", "outcome", "loss", "revenue", "phase"),
    [
        (10, "successful", BETTER, UNSURE, "promoted"),
        (10, "successful", BETTER, BETTER, "promoted"),
        (9, "successful", BETTER, UNSURE, "running"),  # not baked
        (10, "successful", BETTER | FEW, UNSURE, "running"),
        (10, "inconclusive", BETTER, UNSURE, "running"),  # another guard is unsure
        (10, "successful", WORSE, UNSURE, "rolled back"),
        (1, "successful", UNSURE, WORSE, "rolled back"),  # sure at any time
        (1, "successful", UNSURE, WORSE | FEW, "running"),
        (59, "successful", UNSURE, UNSURE, "running"),  # until the timeout
        (59, "inconclusive", UNSURE, UNSURE, "running"),
        (59, "successful", BETTER, UNSURE, "promoted"),
        (60, "successful", BETTER, UNSURE, "promoted"),
        (60, "successful", UNSURE, UNSURE, "no difference"),
        (10, "successful", UNSURE, UNSURE | FEW, "running"),
        (9, "successful", BETTER, WORSE, "running"),
        (10, "successful", BETTER, WORSE, "no difference"),
        (10, "successful", UNSURE, {"value": None}, "running"),
        (10, "error", WORSE, UNSURE, "running"),
        (60, "inconclusive", UNSURE, {"value": None}, "no difference"),  # timed out
        (10, "failed", WORSE, UNSURE, "rolled back"),
    ],
)
def test_an_ab_test_is_decided_by_its_labels(
    minutes: float, outcome: CheckOutcome, loss: Any, revenue: Any, phase: str
) -> None:
    check = looked(outcome, minutes, guards=BOTH, logloss=loss, mean_revenue=revenue)
    seen = see(begun(AB), check)
    assert seen is not None
    assert seen.state.phase == phase
    assert seen.quarantine is (phase == "rolled back")
    expected = {"promoted": everything_to(VERSION), "running": None}
    assert seen.route == expected.get(phase, everything_to(CHAMPION))


@pytest.mark.parametrize(
    ("minutes", "loss", "revenue", "said"),
    [
        (
            60,
            UNSURE | {"n_champion": 1400},
            UNSURE | {"n_challenger": 1200, "n_champion": 1300},
            "step 1 of 1 (ab_test of 50 %) showed neither version to be surely better in 1h and "
            "500 rows in each arm",
        ),
        (
            60,
            UNSURE | {"n_challenger": 0, "value": None},
            BETTER,
            "step 1 of 1 (ab_test of 50 %) was not shown to be good in 1h: few labels",
        ),
        (
            10,
            BETTER,
            WORSE,
            "surely better by logloss, but surely worse by mean revenue",
        ),
        (
            10,
            WORSE,
            UNSURE,
            "step 1 of 1 (ab_test of 50 %): surely worse than the champion by logloss",
        ),
        (
            10,
            UNSURE,
            BETTER,
            "step 1 of 1 (ab_test of 50 %) went well for 10m on 500 rows; surely better by "
            "mean revenue",
        ),
    ],
)
def test_an_ab_test_says_by_what_it_was_decided(
    minutes: float, loss: Any, revenue: Any, said: str
) -> None:
    outcome: CheckOutcome = "inconclusive" if said.endswith("few labels") else "successful"
    check = looked(
        outcome, minutes, reason="few labels", guards=BOTH, logloss=loss, mean_revenue=revenue
    )
    seen = see(begun(AB), check)
    assert seen is not None
    assert seen.reason == said


def test_an_ab_test_that_is_undecided_at_first_is_won_when_it_is_sure() -> None:
    rollout = begun(AB)
    for minute in range(1, 59):
        rollout = after(rollout, see(rollout, looked("successful", minute, guards=BOTH)))
    won = see(rollout, looked("successful", 59, guards=BOTH, logloss=BETTER))
    assert won is not None
    assert won.state.phase == "promoted"
    ended = step(rollout, None, NOW + 60 * MINUTE)
    assert ended is not None
    assert (ended.state.phase, ended.quarantine) == ("no difference", False)


def test_a_version_that_won_its_ab_test_goes_on_to_the_next_step() -> None:
    plan = planned(("ab_test", 50), ("canary", 100), guards=BOTH)
    seen = see(begun(plan), looked("successful", guards=BOTH, logloss=BETTER))
    assert seen is not None
    assert (seen.state.phase, seen.state.step, seen.route) == ("running", 1, shared(0, 100))


# Words


def test_what_many_guards_said_is_shown_in_part() -> None:
    back = see(begun(CANARY), looked("failed", reason="x" * 5000))
    assert back is not None
    assert len(back.reason) < 700
    assert back.reason.endswith("x…")


def test_a_check_without_words_is_told_by_its_outcome() -> None:
    silent = looked("failed").model_copy(update={"verdicts": ()})
    back = see(begun(CANARY), silent)
    assert back is not None
    assert back.reason == "step 1 of 2 (canary of 5 %): the last check was failed"
