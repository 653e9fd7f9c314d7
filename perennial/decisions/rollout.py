"""How a version earns a model's traffic, step by step, and how it loses it.

A rollout is a state; a check of its guards, the time, or a person gives the next one together with
the route and the word in the audit that go with it. Nothing here measures, waits or writes. The
counting of checks, each outcome with a limit of its own, is that of Argo Rollouts' analysis.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from perennial.contracts.rollouts import (
    DECISIVE,
    Check,
    Command,
    Counts,
    Measurement,
    Phase,
    Plan,
    Rollout,
    RolloutState,
    RouteChange,
    Step,
    Transition,
    awaits_first,
)
from perennial.contracts.routes import Arm
from perennial.contracts.verdicts import Outcome
from perennial.decisions.wording import counted
from perennial.spec.values import format_duration

_LONGEST_REASON = 600


def start(plan: Plan, champion: int, version: int, now: datetime) -> Transition:
    """The first step, entered or waiting for a person. A plan without steps promotes at once."""
    if not plan.steps:
        state = RolloutState(phase="promoted", step=0, entered_at=now)
        return _ended(state, "promoted", version, "at once: the plan has no steps")
    if plan.steps[0].approval:
        state = RolloutState(phase="waiting", step=0, entered_at=now)
        return _told(state, "rollout began", f"{_named(plan, 0)} waits for approval")
    state = RolloutState(phase="running", step=0, entered_at=now)
    return _entered(plan, state, champion, version, "rollout began", "")


def step(rollout: Rollout, check: Check | None, now: datetime) -> Transition | None:
    """What follows from a look at the present step, or (``check`` None) from the time alone; None
    when there is nothing to write.

    A check of another step is not heard, nor one that is not later than the last, unless it ends
    the rollout whatever was counted: harm doesn't wait for clocks to agree. While the rollout waits
    or is paused, its route stands and only a failed check counts.
    """
    state = rollout.state
    if rollout.ended or awaits_first(rollout.plan, state):
        return None
    heard = check is not None and check.step == state.step and _is_news(rollout, check)
    if state.phase == "running":
        return _seen(rollout, check, now) if check and heard else _timed_out(rollout, state, now)
    if check is None or not heard or check.outcome != "failed":
        return None
    return _failed(rollout, _counted(state, check), check)


def _is_news(rollout: Rollout, check: Check) -> bool:
    last = rollout.state.last
    if last is None or last.step != check.step or check.at > last.at:
        return True
    return check.outcome == "failed" and rollout.plan.limits.failed == 0


def _seen(rollout: Rollout, check: Check, now: datetime) -> Transition:
    """What a running step's check means: harm first, then an end that is good, then the limits of
    time and patience."""
    plan, state = rollout.plan, _counted(rollout.state, check)
    present, limits = plan.steps[state.step], plan.limits
    if check.outcome == "failed":
        back = _failed(rollout, state, check)
        return back if back.action else _timed_out(rollout, state, now) or back
    if state.counts.errors_in_a_row > limits.error:
        times = state.counts.errors_in_a_row
        why = f"{times} checks in a row could not be measured: {_reasons(check, Outcome.ERROR)}"
        return _back(rollout, state, why)
    baked = _lasted(state, now) >= timedelta(seconds=present.bake_seconds)
    if present.strategy == "ab_test":
        decided = _compared(rollout, state, check, baked, now)
    else:
        decided = _next(rollout, state, now) if baked and _good(present, check) else None
    decided = decided or _timed_out(rollout, state, now)
    most, times = limits.inconclusive, state.counts.inconclusive
    if decided is None and check.outcome == "inconclusive" and most is not None and times > most:
        why = (
            f"{times} checks of {_named(plan, state.step)} were inconclusive "
            f"(limits.inconclusive is {most}): {_reasons(check, Outcome.INCONCLUSIVE)}; "
            "resume, promote or abort it"
        )
        return _told(_changed(state, "paused", why, before_pause="running"), "paused", why)
    return decided or Transition(state=state)


def command(rollout: Rollout, what: Command, now: datetime, reason: str) -> Transition:
    """What a person asks for. ``promote`` is done without any measurement, at their word.

    Raises ValueError with a sentence when it makes no sense as the rollout stands.
    """
    plan, state = rollout.plan, rollout.state
    why = reason or "by hand"
    if rollout.ended:
        raise ValueError(f"it has ended ({state.phase}); there is nothing to {what}")
    match what:
        case "promote":
            return _ended(state, "promoted", rollout.version, why)
        case "abort":
            return _ended(state, "aborted", rollout.champion, why)
        case "pause":
            if state.phase == "paused":
                raise ValueError("it is paused already")
            before = "waiting" if state.phase == "waiting" else "running"
            return _told(_changed(state, "paused", why, before_pause=before), "paused", why)
        case "resume":
            if state.phase != "paused":
                raise ValueError(f"it is {state.phase}, not paused")
            phase = state.before_pause or "running"
            fresh = {"counts": Counts(), "resumed_at": now, "before_pause": None}
            return _told(_changed(state, phase, why, **fresh), "resumed", why)
        case "approve":
            if state.phase == "paused":
                raise ValueError("it is paused; resume it first")
            if state.phase != "waiting":
                raise ValueError("no step of it waits for approval")
            number = awaited(plan, state)
            assert number is not None
            approved = (*state.approved, number)
            fresh_state = RolloutState(
                phase="running", step=number, entered_at=now, approved=approved, last=state.last
            )
            return _entered(plan, fresh_state, rollout.champion, rollout.version, "approved", why)


def supersede(rollout: Rollout, by: int, now: datetime) -> Transition:  # noqa: ARG001
    """The end of a rollout since another version is rolled out. Raises ValueError when it has
    ended."""
    if rollout.ended:
        raise ValueError(f"it has ended ({rollout.state.phase}); there is nothing to supersede")
    why = f"version {by} is rolled out instead"
    return _ended(rollout.state, "superseded", rollout.champion, why)


def route_at(rollout_plan: Plan, step: int, champion: int, version: int) -> RouteChange:
    """Who answers while a step runs. The champion stays an arm, of weight 0 where it is kept loaded
    for the way back."""
    present = rollout_plan.steps[step]
    if present.strategy == "shadow":
        return RouteChange(
            champion=champion, arms=(Arm(version=champion, weight=100),), shadow=(version,)
        )
    arms = (
        Arm(version=champion, weight=100 - present.weight),
        Arm(version=version, weight=present.weight),
    )
    return RouteChange(champion=champion, arms=arms)


def awaited(plan: Plan, state: RolloutState) -> int | None:
    """The step that waits, or would if the rollout were not paused, for a person's approval."""
    if "waiting" not in (state.phase, state.before_pause):
        return None
    return 0 if awaits_first(plan, state) else state.step + 1


# Checks


def _counted(state: RolloutState, check: Check) -> RolloutState:
    counts, outcome = state.counts, check.outcome
    more = {
        outcome: getattr(counts, outcome) + 1,
        "errors_in_a_row": counts.errors_in_a_row + 1 if outcome == "error" else 0,
    }
    return state.model_copy(update={"counts": counts.model_copy(update=more), "last": check})


def _failed(rollout: Rollout, state: RolloutState, check: Check) -> Transition:
    if state.counts.failed <= rollout.plan.limits.failed:
        return Transition(state=state)
    why = f"{_named(rollout.plan, state.step)}: {_reasons(check, Outcome.FAILED)}"
    return _back(rollout, state, why, quarantine=True)


def _good(present: Step, check: Check) -> bool:
    """Whether every guard was measured, on enough rows, and none objects."""
    enough = check.requests >= present.min_requests
    return check.outcome == "successful" and enough and _all_measured(present, check)


def _all_measured(present: Step, check: Check) -> bool:
    measured = {m.guard for m in check.measurements if m.value is not None and not m.error}
    return bool(present.guards) and {guard.name for guard in present.guards} <= measured


def _compared(
    rollout: Rollout, state: RolloutState, check: Check, baked: bool, now: datetime
) -> Transition | None:
    """The decision of an ab_test, by its metric and business guards, once both arms have enough
    rows with labels: None while neither version is surely better. Their intervals hold at every
    look, so that sure is sure at any time, and waiting for it makes no mistake more likely."""
    present = rollout.plan.steps[state.step]
    decisive = _decisive(present, check)
    if _least_rows(decisive) < present.min_requests or check.outcome == "error":
        return None
    better, worse = _sure(decisive)
    if worse and not better:
        why = f"surely worse than the champion by {', '.join(worse)}"
        return _back(rollout, state, f"{_named(rollout.plan, state.step)}: {why}", quarantine=True)
    if not baked or not better:
        return None
    by = f"surely better by {', '.join(better)}"
    if worse:  # more rows would only be surer of both
        why = f"{by}, but surely worse by {', '.join(worse)}"
        return _ended(state, "no difference", rollout.champion, why)
    return _next(rollout, state, now, f"; {by}") if _good(present, check) else None


def _decisive(present: Step, check: Check) -> list[Measurement]:
    measured = {m.guard: m for m in check.measurements}
    names = [guard.name for guard in present.guards if guard.kind in DECISIVE]
    return [measured.get(name, Measurement(guard=name)) for name in names]


def _least_rows(decisive: Sequence[Measurement]) -> int:
    """Of both arms and all measures; 0 when nothing decides."""
    return min((min(m.n_champion, m.n_challenger) for m in decisive), default=0)


def _sure(decisive: Sequence[Measurement]) -> tuple[list[str], list[str]]:
    """The guards by which the challenger is surely better, and those by which surely worse."""
    better = [m.guard for m in decisive if m.high is not None and m.high < 0]
    worse = [m.guard for m in decisive if m.low is not None and m.low > 0]
    return better, worse


def _lasted(state: RolloutState, now: datetime) -> timedelta:
    """How long the present step has gone on without a pause."""
    return now - (state.resumed_at or state.entered_at)


def _timed_out(rollout: Rollout, state: RolloutState, now: datetime) -> Transition | None:
    present = rollout.plan.steps[state.step]
    longest = timedelta(seconds=present.timeout_seconds)
    if _lasted(state, now) < longest:
        return None
    named, lasted = _named(rollout.plan, state.step), format_duration(longest)
    last = state.last if state.last is not None and state.last.step == state.step else None
    why = f"{named} was not shown to be good in {lasted}"
    why += f": {_reasons(last)}" if last is not None else ""
    if present.strategy != "ab_test":
        return _back(rollout, state, why)
    decisive = _decisive(present, last) if last is not None else []
    rows = _least_rows(decisive)
    if rows and not any(_sure(decisive)):
        shown = "showed neither version to be surely better"
        why = f"{named} {shown} in {lasted} and {counted(rows)} in each arm"
    return _ended(state, "no difference", rollout.champion, why)


# Transitions


def _next(rollout: Rollout, state: RolloutState, now: datetime, by: str = "") -> Transition:
    """The step after one that went well."""
    plan, number = rollout.plan, state.step + 1
    lasted = _length(_lasted(state, now))
    rows = state.last.requests if state.last is not None else 0
    why = f"{_named(plan, state.step)} went well for {lasted} on {counted(rows)}{by}"
    if number == len(plan.steps):
        return _ended(state, "promoted", rollout.version, why)
    if plan.steps[number].approval:
        why = f"{why}; {_named(plan, number)} waits for approval"
        return _told(_changed(state, "waiting", why), "waiting", why)
    entered = RolloutState(
        phase="running", step=number, entered_at=now, approved=state.approved, last=state.last
    )
    return _entered(plan, entered, rollout.champion, rollout.version, "step began", why)


def _entered(
    plan: Plan, state: RolloutState, champion: int, version: int, action: str, after: str
) -> Transition:
    why = f"{after}; {_named(plan, state.step)}" if after else _named(plan, state.step)
    route = route_at(plan, state.step, champion, version)
    return _told(state, action, why).model_copy(update={"route": route})


def _told(state: RolloutState, action: str, why: str) -> Transition:
    return Transition(state=state.model_copy(update={"reason": why}), action=action, reason=why)


def _back(rollout: Rollout, state: RolloutState, why: str, quarantine: bool = False) -> Transition:
    return _ended(state, "rolled back", rollout.champion, why, quarantine)


def _ended(
    state: RolloutState, phase: Phase, champion: int, why: str, quarantine: bool = False
) -> Transition:
    """One champion, who answers everything."""
    return Transition(
        state=_changed(state, phase, why, before_pause=None),
        route=RouteChange(champion=champion, arms=(Arm(version=champion, weight=100),)),
        action=phase,
        reason=why,
        quarantine=quarantine,
    )


def _changed(state: RolloutState, phase: Phase, why: str, **more: Any) -> RolloutState:
    return state.model_copy(update={"phase": phase, "reason": why, **more})


# Words


def _named(plan: Plan, number: int) -> str:
    return f"step {number + 1} of {len(plan.steps)} ({_share(plan.steps[number])})"


def _share(one: Step) -> str:
    if one.strategy == "shadow":
        return "shadow"
    return f"{one.strategy} of {one.weight} %"


def _length(lasted: timedelta) -> str:
    """Rounded down to the largest unit of which there are ten."""
    units = (timedelta(days=1), timedelta(hours=1), timedelta(minutes=1))
    unit = next((unit for unit in units if lasted >= 10 * unit), timedelta(seconds=1))
    return format_duration(lasted // unit * unit)


def _reasons(check: Check, outcome: Outcome | None = None) -> str:
    """What the guards said, bounded: those with an outcome, or all that object."""
    said = [
        verdict.reason
        for verdict in check.verdicts
        if (verdict.outcome is outcome if outcome else verdict.outcome is not Outcome.PASSED)
    ]
    text = "; ".join(said) or f"the last check was {check.outcome}"
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 1] + "…"
