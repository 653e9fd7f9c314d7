"""``perennial backtest``: which policy of retraining a model should have, by its past."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from perennial.cli.context import context_of
from perennial.cli.moments import moment
from perennial.cli.output import console, table_of
from perennial.contracts.backtest import BacktestResult, BacktestSummary

if TYPE_CHECKING:
    from rich.console import Console

_MOST_STEPS = 60


def backtest(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The model.")],
    start: Annotated[
        str | None,
        typer.Option(help="When the first version is trained; by default as early as it can be."),
    ] = None,
    end: Annotated[
        str | None, typer.Option(help="Where the walk ends; by default at the last event.")
    ] = None,
    every: Annotated[str, typer.Option(help="The length of a step, such as 7d.")] = "7d",
    metric: Annotated[
        str | None, typer.Option(help="What is compared; by default what trials are ranked by.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Walk a model's past with four policies of retraining, and recommend one. Never, by schedule,
    at each drift, and Perennial's own: what they would have served, and what it would have cost.
    Reads what was ingested; registers nothing."""
    from perennial.stores.hindsight import plan_backtest

    found = context_of(context)
    begin = None if start is None else moment("--start", start)
    stop = None if end is None else moment("--end", end)
    # Most mistakes are told before Prefect is started.
    plan_backtest(found.project, name, begin, stop, every, metric)
    result = found.run_flow(
        "backtest",
        model=name,
        start=begin.isoformat() if begin else None,
        end=stop.isoformat() if stop else None,
        every=every,
        metric=metric,
    )
    summary = BacktestSummary.model_validate(result)
    if as_json:
        typer.echo(summary.model_dump_json(indent=2))
    else:
        _print(console(), summary)


def _print(out: Console, summary: BacktestSummary) -> None:
    from perennial.reports.backtest import headline, policy_rows, span

    result = summary.result
    if len(result.plan.moments) <= _MOST_STEPS:
        out.print(_steps_table(result))
        out.print("  * a new version took over   o a retraining was refused\n")
    table = table_of(
        "policy", result.plan.metric, "retrainings", "took over", "refused", "rows read",
        "seconds", "front",
    )  # fmt: skip
    for column in table.columns[1:-1]:
        column.justify = "right"
    for p in policy_rows(result):
        table.add_row(
            p.title, p.metric, str(p.trainings), str(p.accepted), str(p.refused), p.rows,
            p.seconds, "yes" if p.on_front else "",
        )  # fmt: skip
    out.print(table)
    out.print(f"{result.model}, {span(result)}\n", soft_wrap=True)
    out.print("recommended", style="bold")
    for line in (headline(result), *result.notes, f"page  {summary.report_uri}"):
        out.print(line, soft_wrap=True)


def _steps_table(result: BacktestResult) -> object:
    """The metric of each step by policy, with a mark where it began with a retraining."""
    from perennial.reports.figures import number
    from perennial.reports.timeline import TITLES

    table = table_of("from", "rows", *(TITLES[p.policy] for p in result.policies))
    for column in table.columns[1:]:
        column.justify = "right"
    marks = [
        {a.at: "*" if a.outcome == "promoted" else "o" for a in p.attempts} for p in result.policies
    ]
    for i, (at, rows) in enumerate(zip(result.plan.moments, result.step_rows, strict=True)):
        cells = (
            f"{mark.get(at, '')} {number(p.values[i])}"
            for p, mark in zip(result.policies, marks, strict=True)
        )
        table.add_row(f"{at:%Y-%m-%d}", f"{rows:,}", *cells)
    return table
