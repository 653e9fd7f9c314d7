"""``perennial score``: many rows at once, by the code that serves requests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perennial.cli.context import context_of
from perennial.contracts.errors import InputError, Problem
from perennial.contracts.scoring import ScoringSummary
from perennial.stores.storage.places import is_remote


def score(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The model.")],
    source: Annotated[
        str,
        typer.Option(
            "--input", help="CSV or Parquet files (file, folder or glob) or a Delta table."
        ),
    ],
    output: Annotated[
        str, typer.Option(help="Delta table for the predictions; what it holds is replaced.")
    ],
    version: Annotated[
        int | None, typer.Option(help="A registered version; by default the champion.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="Carry this column along; may be repeated. By default entity and event time."
        ),
    ] = None,
    all_columns: Annotated[
        bool, typer.Option("--all-columns", help="Carry all columns along.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score the rows of files or a table. Writes a Delta table with version and lineage; the same
    rows and version a second time change nothing."""
    if column and all_columns:
        raise InputError(
            Problem("--column", "--all-columns carries it already", "give one of them")
        )
    from perennial.stores import scored, scoring

    found = context_of(context)
    places = _place(source), _place(output)
    columns: scoring.Columns = "all" if all_columns else column or None
    # Most mistakes are told before Prefect is started.
    scored.find(scoring.plan(found.project, name, *places, version, columns))
    result = found.run_flow(
        "batch_scoring",
        model=name,
        source=places[0],
        output=places[1],
        version=version,
        columns=columns,
    )
    summary = ScoringSummary.model_validate(result)
    if as_json:
        typer.echo(summary.model_dump_json(indent=2))
        return
    typer.echo(summary.reason)
    typer.echo(f"  predictions  {summary.scores.uri} (version {summary.scores.version})")
    if summary.scores.bad_rows:
        typer.echo(f"  not scored   {summary.job.quarantine}")


def _place(text: str) -> str:
    """A path as the user's shell means it, whatever the project's folder is."""
    return text if is_remote(text) else str(Path(text).expanduser().absolute())
