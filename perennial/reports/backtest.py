"""A backtest as a page and as Markdown: the recommended policy first, then what speaks for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from perennial.contracts.backtest import (
    Attempt,
    BacktestResult,
    Difference,
    Policy,
    PolicyResult,
)
from perennial.reports.figures import number, ranged
from perennial.reports.markdown import picture, plain, row
from perennial.reports.pages import template
from perennial.reports.timeline import (
    STYLE,
    TITLES,
    cost_picture,
    front_picture,
    metric_picture,
)

OUTCOMES = {
    "promoted": "took over",
    "kept": "refused",
    "unchanged": "the same again",
    "failed": "failed",
}


@dataclass(frozen=True)
class PolicyRow:
    """A policy's figures as they are shown."""

    policy: Policy
    title: str
    meaning: str
    metric: str
    trainings: int
    accepted: int
    refused: int
    rows: str
    seconds: str
    on_front: bool
    chosen: bool


def headline(result: BacktestResult) -> str:
    """Which policy to have, and why, in a sentence."""
    return f"{TITLES[result.choice.policy]}: {result.choice.reason}"


def policy_rows(result: BacktestResult) -> list[PolicyRow]:
    """The policies in figures, in their order."""
    return [
        PolicyRow(
            policy=p.policy,
            title=TITLES[p.policy],
            meaning=_meaning(p),
            metric=number(p.metric),
            trainings=len(p.attempts),
            accepted=p.accepted,
            refused=len(p.attempts) - p.accepted,
            rows=f"{p.rows:,}",
            seconds=f"{p.seconds:,.0f}",
            on_front=p.policy in result.choice.front,
            chosen=p.policy == result.choice.policy,
        )
        for p in result.policies
    ]


def span(result: BacktestResult) -> str:
    """``2013-03-04 to 2014-01-01 in 44 steps of 1w``."""
    plan = result.plan
    steps = f"{len(plan.moments)} steps of {plan.every}"
    return f"{_day(plan.moments[0])} to {_day(plan.end)} in {steps}"


def render_html(result: BacktestResult) -> str:
    """One self-contained page: no script, nothing fetched. Same result, same text."""
    from markupsafe import Markup

    ends = [*result.plan.moments[1:], result.plan.end]
    by_policy = {p.policy: p for p in result.policies}
    return template("perennial.reports", "backtest.html.j2").render(
        result=result,
        titles=TITLES,
        outcomes=OUTCOMES,
        style=Markup(STYLE),
        span=span(result),
        chosen=TITLES[result.choice.policy],
        policies=policy_rows(result),
        metric_picture=Markup(metric_picture(result)),
        cost_picture=Markup(cost_picture(result)),
        front_picture=Markup(front_picture(result)),
        differences=[(d, _gain(d)) for d in result.choice.differences],
        attempts=_attempts(result),
        steps=[
            (_day(start), _day(end), f"{rows:,}", [_step(by_policy[p], i) for p in by_policy])
            for i, (start, end, rows) in enumerate(
                zip(result.plan.moments, ends, result.step_rows, strict=True)
            )
        ],
        day=_day,
    )


def render_markdown(result: BacktestResult) -> str:
    """The same, compact, for a Prefect artifact."""
    metric = plain(result.plan.metric)
    text = [
        f"# {plain(result.model)}: {plain(TITLES[result.choice.policy])}",
        "",
        plain(result.choice.reason),
        "",
        f"{span(result)}; {metric} by the version that would have served.",
        "",
        f"| policy | {metric} | retrainings | took over | refused | rows read | seconds |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for p in policy_rows(result):
        title = f"**{plain(p.title)}**" if p.chosen else plain(p.title)
        cells = (p.metric, str(p.trainings), str(p.accepted), str(p.refused), p.rows, p.seconds)
        text.append(row(title, *cells))
    text += ["", picture("metric over time", metric_picture(result, alone=True))]
    text += ["", picture("rows read", cost_picture(result, alone=True)), ""]
    text += [f"- {plain(note)}" for note in result.notes]
    return "\n".join(text) + "\n"


def _meaning(policy: PolicyResult) -> str:
    return {
        "never": "the first version for good",
        "schedule": "by retrain.schedule, weekly without one",
        "drift": "whenever the inputs or predictions drifted",
        "perennial": "the drift watch, labels and the policy of model.yaml",
    }[policy.policy]


def _gain(difference: Difference) -> tuple[str, str]:
    """The gain with its bounds, and what that comes to."""
    if not difference.steps:
        return "0", "the same in every step"
    if difference.low is None or difference.high is None:
        return number(difference.gain), "too few steps to tell"
    gain = ranged(difference.gain, difference.low, difference.high, sign=True)
    if difference.low > 0:
        return str(gain), "better" if difference.counts else "better, too little to count"
    return str(gain), "worse" if difference.high < 0 else "not told apart"


def _attempts(result: BacktestResult) -> tuple[Attempt, ...]:
    """The retrainings of Perennial's policy: what it would have done, and why."""
    return next(p.attempts for p in result.policies if p.policy == "perennial")


def _step(policy: PolicyResult, number_of_step: int) -> tuple[str, bool]:
    """A step's metric, and whether a version took over at its start."""
    serving = policy.serving
    new = number_of_step > 0 and serving[number_of_step] != serving[number_of_step - 1]
    return number(policy.values[number_of_step]), new


def _day(at: datetime) -> str:
    return f"{at:%Y-%m-%d}" if at.strftime("%H%M%S%f") == "000000000000" else f"{at:%Y-%m-%d %H:%M}"
