"""A rollout as a page: what became of it, its steps, what was measured, both versions side by side.

While it goes on, ``rollout_progress`` tells in Markdown where it stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from markupsafe import Markup

from perennial.contracts.comparing import ArmFacts, SideBySide, StepComparison
from perennial.contracts.rollouts import OF_REQUESTS, Check, Guard, Measurement, Rollout, Step
from perennial.reports.figures import number, percent, ranged
from perennial.reports.markdown import plain, row
from perennial.reports.pages import template
from perennial.reports.rollout_picture import draw_differences, draw_guard
from perennial.reports.rollout_progress import amount, headline, step_name, step_state

_SIGNS = {"promoted": "✓", "rolled back": "✗", "aborted": "✗"}
_CSS = {"✓": "passed", "✗": "failed"}
_CHECK_CSS = {"successful": "passed", "failed": "failed", "error": "error"}


class Happened(NamedTuple):
    """One decision on a rollout, as the audit has it."""

    at: datetime
    action: str
    actor: str
    reason: str


class GuardRow(NamedTuple):
    step: str
    guard: str
    outcome: str
    css: str
    value: str
    interval: str
    limit: str
    champion: str
    challenger: str
    reason: str
    drawing: Markup


def render_html(
    rollout: Rollout,
    history: Sequence[Happened],
    looks: Sequence[Check],
    compared: Sequence[StepComparison],
) -> str:
    """One self-contained page: no script, nothing fetched. Same input, same text.

    ``history`` and ``looks`` in the order of time, looks of all steps that are known; ``compared``
    one a step at most.
    """
    sign = _SIGNS.get(rollout.state.phase, "–" if rollout.ended else "▶")
    return template("perennial.reports", "rollout.html.j2").render(
        title=headline(rollout),
        rollout=rollout,
        sign=sign,
        css=_CSS.get(sign, "inconclusive"),
        steps=[
            (step_name(step), step_state(rollout, i), step)
            for i, step in enumerate(rollout.plan.steps)
        ],
        history=history,
        guards=list(guard_rows(rollout, looks)),
        compared=[
            (
                step_name(rollout.plan.steps[one.step]),
                one,
                list(arm_rows(one)),
                list(_agreement(one.same_rows)) if one.same_rows else [],
                draw_differences(one.same_rows.bins) if one.same_rows else Markup(""),
            )
            for one in compared
        ],
        number=number,
    )


def render_markdown(
    rollout: Rollout, looks: Sequence[Check], compared: Sequence[StepComparison]
) -> str:
    """The same, compact, for a Prefect artifact."""
    text = [f"# {plain(headline(rollout))}", "", plain(rollout.state.reason or rollout.reason), ""]
    guards = list(guard_rows(rollout, looks))
    if guards:
        text += [row("step", "guard", "", "measured", "surely between", "limit", "n challenger")]
        text.append("|---|---|---|--:|--:|--:|--:|")
    for g in guards:
        cells = (g.step, g.guard, g.outcome, g.value, g.interval, g.limit, g.challenger)
        text.append(row(*map(plain, cells)))
    for one in compared:
        step = step_name(rollout.plan.steps[one.step])
        text += ["", f"**{plain(step)}**", "", row("", "champion", "challenger"), "|---|--:|--:|"]
        text += [row(*map(plain, cells)) for cells in arm_rows(one)]
        if one.same_rows is not None:
            text.append("")
            text += [f"- {plain(what)}: {plain(fact)}" for what, fact in _agreement(one.same_rows)]
    return "\n".join(text) + "\n"


def guard_rows(rollout: Rollout, looks: Sequence[Check]) -> Iterator[GuardRow]:
    """Each guard of each step as it was measured last, with all looks at it."""
    for i, step in enumerate(rollout.plan.steps):
        own = [check for check in looks if check.step == i]
        for guard in step.guards if own else ():
            measured = [(c.at, m) for c in own for m in c.measurements if m.guard == guard.name]
            if measured:
                yield _guard_row(step, guard, own[-1], measured)


def arm_rows(found: StepComparison) -> Iterator[tuple[str, str, str]]:
    """What is told of both arms: its name, the champion's, the challenger's."""

    def both(what: str, of: str) -> tuple[str, str, str]:
        values = [getattr(arm, of) for arm in (found.champion, found.challenger)]
        texts = [f"{v:,}" if isinstance(v, int) else number(v) for v in values]
        return what, texts[0], texts[1]

    yield "version", str(found.champion.version), str(found.challenger.version)
    yield both("rows", "rows")
    yield both("requests", "requests")
    yield "failed", _failed(found.champion), _failed(found.challenger)
    yield both("latency, median, ms", "latency_p50_ms")
    yield both("latency, 99th percentile, ms", "latency_p99_ms")
    yield both("computing, median, ms", "compute_p50_ms")
    yield both("computing, 99th percentile, ms", "compute_p99_ms")
    if found.champion.mean is not None or found.challenger.mean is not None:
        yield both("mean prediction", "mean")


def _guard_row(
    step: Step, guard: Guard, check: Check, measured: Sequence[tuple[datetime, Measurement]]
) -> GuardRow:
    last = measured[-1][1]
    verdict = next((v for v in check.verdicts if v.evidence.rule == guard.name), None)
    outcome = str(verdict.outcome) if verdict else "inconclusive"
    interval = ""
    if last.value is not None and last.low is not None and last.high is not None:
        scale, unit = (100, "\u202f%") if guard.kind in OF_REQUESTS else (1, "")
        shown = ranged(scale * last.value, scale * last.low, scale * last.high)
        interval = f"{shown.low}{unit} to {shown.high}{unit}"
    return GuardRow(
        step=step_name(step),
        guard=guard.name,
        outcome=outcome,
        css=_CHECK_CSS.get("successful" if outcome == "passed" else outcome, "inconclusive"),
        value=amount(guard, last.value),
        interval=interval,
        limit=amount(guard, guard.limit),
        champion=f"{last.n_champion:,}",
        challenger=f"{last.n_challenger:,}",
        reason=last.error or (verdict.reason if verdict else ""),
        drawing=draw_guard(guard, measured),
    )


def _agreement(both: SideBySide) -> Iterator[tuple[str, str]]:
    yield "rows that both predicted", f"{both.rows:,}"
    if both.agree is not None:
        yield "same class", percent(both.agree)
    if both.rows:
        yield "mean difference", number(both.mean)
        spread = f"{number(both.p01)} to {number(both.p99)}, median {number(both.p50)}"
        yield "98 of 100 differences", spread


def _failed(arm: ArmFacts) -> str:
    if not arm.requests:
        return "0"
    return f"{arm.failed:,} ({percent(arm.failed / arm.requests)})"
