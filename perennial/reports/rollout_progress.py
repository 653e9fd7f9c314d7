"""Where a rollout stands, as Markdown: who gets which requests, what was measured, what is next."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from perennial.contracts.rollouts import OF_REQUESTS, Check, Guard, Rollout, Step, awaits_first
from perennial.reports.figures import number
from perennial.reports.markdown import code, plain, row

_SIGNS = {
    "promoted": "✓",
    "rolled back": "✗",
    "aborted": "✗",
    "superseded": "–",
    "no difference": "–",
    "running": "▶",
    "waiting": "?",
    "paused": "‖",
}
_STEP_SIGNS = {**_SIGNS, "done": "✓", "promoted by hand": "–"}
_NEXT = {
    "waiting": "It waits for a person: {approve} begins the step, {abort} ends the rollout.",
    "paused": "It is paused and the route stays: {resume} goes on, {abort} ends it.",
    "running": "By hand: {promote}, {pause} or {abort}.",
}
_MINUTE = "%Y-%m-%d %H:%M"
_SECOND = f"{_MINUTE}:%S"
_STARTING = timedelta(minutes=2)
"""How long it may take until a run looks at what has begun."""


def headline(rollout: Rollout) -> str:
    """``flight-delay@4: canary 25 %, step 2 of 4`` or how it ended."""
    name = f"{rollout.model}@{rollout.version}"
    phase = rollout.state.phase
    if rollout.ended:
        return f"{name}: {phase}"
    step = rollout.state.step
    place = f"{step_name(rollout.plan.steps[step])}, step {step + 1} of {len(rollout.plan.steps)}"
    return f"{name}: {place}" if phase == "running" else f"{name}: {phase} at {place}"


def standing(rollout: Rollout, check_every: timedelta, now: datetime) -> str:
    """One that has not ended, in a line, as it stood ``now`` (UTC): the headline, since when, the
    last look, and the reason for which it stands or that nobody looks."""
    state = rollout.state
    told = f"{headline(rollout)}, since {state.entered_at:{_MINUTE}}"
    if state.last is not None and state.last.step == state.step:
        told += f"; last look {state.last.at:{_SECOND}}: {state.last.outcome}"
        told += f", {state.last.requests:,} rows so far"
    # Each look at one that runs is a change; at one that waits or is paused it leaves no trace.
    silent = now - rollout.updated_at > max(3 * check_every, _STARTING)
    if silent and state.phase == "running":
        since = f"nobody has looked since {rollout.updated_at:{_MINUTE}}"
        told += f"; {since}, perennial rollout {rollout.model} watches it"
    return told if state.phase == "running" else f"{told}; {state.reason}"


def step_name(step: Step) -> str:
    """``canary 25 %``, ``shadow``, ``blue/green``, ``A/B test 50 %``."""
    if step.strategy == "shadow":
        return "shadow"
    if step.strategy == "blue_green":
        return "blue/green"
    return f"{'A/B test' if step.strategy == 'ab_test' else 'canary'} {step.weight} %"


def step_state(rollout: Rollout, number: int) -> str:
    """What became of a step: ``done``, the rollout's phase for the present one, ``promoted by
    hand`` in the midst of it, ``not reached``, or "" for one that may come."""
    state = rollout.state
    if number < state.step:
        return "done"
    if number > state.step or (rollout.ended and awaits_first(rollout.plan, state)):
        return "not reached" if rollout.ended else ""
    if state.phase != "promoted":
        return state.phase
    # What a look decides is written as of its moment; a person's order has a moment of its own.
    by_look = state.last is not None and state.last.at == rollout.ended_at
    return "done" if by_look else "promoted by hand"


def amount(guard: Guard, value: float | None, digits: int = 4) -> str:
    """A value or limit of the guard as a reader wants it: shares of requests in percent."""
    if guard.kind not in OF_REQUESTS or value is None:
        return number(value, digits)
    return f"{number(100 * value, digits)}\u202f%"


def render_markdown(rollout: Rollout) -> str:
    """The page, as it is written anew while the rollout goes on. Same rollout, same text."""
    return "\n".join(_lines(rollout)) + "\n"


def _lines(rollout: Rollout) -> Iterator[str]:
    state = rollout.state
    yield f"# {_SIGNS[state.phase]} {plain(headline(rollout))}"
    yield ""
    if state.reason:
        yield plain(state.reason)
        yield ""
    yield (
        f"Rollout {rollout.id}, version {rollout.version} beside the champion, version "
        f"{rollout.champion}. Begun {rollout.started_at:%Y-%m-%d %H:%M:%S} UTC: "
        f"{plain(rollout.reason)}"
    )
    if rollout.ended_at is not None:
        yield f"Ended {rollout.ended_at:%Y-%m-%d %H:%M:%S} UTC."
    yield ""
    yield from _steps(rollout)
    if state.last is not None:
        yield ""
        yield from _check(state.last, rollout.plan.steps[state.last.step])
    if what := _NEXT.get(state.phase):
        name = f"{rollout.model}@{rollout.version}"
        asked = {
            order: code(f"perennial rollout {name} --{order}")
            for order in ("promote", "abort", "pause", "resume", "approve")
        }
        yield ""
        yield what.format(**asked)


def _steps(rollout: Rollout) -> Iterator[str]:
    if not rollout.plan.steps:
        return
    yield row("", "step", "at least", "at most", "guards")
    yield "|---|---|---|---|---|"
    for number_, step in enumerate(rollout.plan.steps):
        yield row(
            _STEP_SIGNS.get(step_state(rollout, number_), ""),
            plain(step_name(step)) + (" (a person approves)" if step.approval else ""),
            f"{_lasting(step.bake_seconds)}, {step.min_requests:,} rows",
            _lasting(step.timeout_seconds),
            plain(", ".join(guard.name for guard in step.guards) or "none"),
        )


def _check(check: Check, step: Step) -> Iterator[str]:
    yield (
        f"Last look, {check.at:%Y-%m-%d %H:%M:%S} UTC: **{check.outcome}**, "
        f"{check.requests:,} rows in step {check.step + 1} so far."
    )
    if not check.measurements:
        return
    yield ""
    yield row("guard", "measured", "surely between", "n champion", "n challenger")
    yield "|---|--:|--:|--:|--:|"
    guards = {guard.name: guard for guard in step.guards}
    for one in check.measurements:
        guard = guards[one.guard]
        between = ""
        if one.low is not None:
            between = f"{amount(guard, one.low)} and {amount(guard, one.high)}"
        yield row(
            plain(one.guard),
            plain(one.error) if one.error else amount(guard, one.value),
            between,
            f"{one.n_champion:,}",
            f"{one.n_challenger:,}",
        )
    yield ""
    for verdict in check.verdicts:
        yield f"- {verdict.outcome}: {plain(verdict.reason)}"


def _lasting(seconds: float) -> str:
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:g} s"
