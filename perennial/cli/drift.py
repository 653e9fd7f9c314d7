"""``perennial drift``: look at what a model sees in production, now or at another time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from perennial.cli.context import context_of
from perennial.cli.moments import moment
from perennial.cli.output import console, table_of
from perennial.contracts.watching import Look
from perennial.decisions.wording import counted


def drift(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The model.")],
    end: Annotated[
        str | None, typer.Option(help="Where the window ends: 2013-07-01, UTC. By default now.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look whether what a model sees has drifted. And what that does to it; as the drift watch
    does by itself."""
    until = None if end is None else moment("--end", end)
    found = context_of(context)
    found.project.load_model(name)  # most mistakes are told before Prefect is started
    result = found.run_flow("drift_watch", model=name, end=until.isoformat() if until else None)
    look = Look.model_validate(result)
    if as_json:
        typer.echo(look.model_dump_json(indent=2))
    else:
        _print(look)


def _print(look: Look) -> None:
    """The finding, the columns, how well it does, and where to look on."""
    from perennial.reports.drift import column_rows, headline, performance_rows, window

    out = console()
    out.print(headline(look), style="bold")
    out.print(look.reason, soft_wrap=True)
    out.print(f"\n{counted(look.rows, 'prediction')}, {window(look)}", soft_wrap=True)
    columns = [
        (c.column, c.outcome, c.weight, c.effect, c.limit, c.shows) for c in column_rows(look)
    ]
    measured = [
        (p.what, p.change, p.observed, p.expected, p.gain, p.n) for p in performance_rows(look)
    ]
    for rows, headings in (
        (columns, ("column", "", "importance", "effect", "limit", "shows from")),
        (measured, ("performance", "", "observed", "expected", "gain", "rows")),
    ):
        if rows:
            table = table_of(*headings)
            for column in table.columns[2:]:
                column.justify = "right"
            for row in rows:
                table.add_row(*row)
            out.print()
            out.print(table)
    out.print()
    for line in (*(f"- {note}" for note in look.notes), *_places(look)):
        out.print(line, soft_wrap=True)


def _places(look: Look) -> Iterator[str]:
    if look.reports is None:
        return
    yield f"report     {look.reports.html_uri}"
    for what, place in look.reports.evidently.items():
        yield f"evidently  {place} ({what})"
    if look.reports.workspace:
        yield f"history    evidently ui --workspace {look.reports.workspace}"
