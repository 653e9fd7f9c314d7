"""``perennial quarantine``: bad rows with their reasons, and the way back."""

from __future__ import annotations

import json

import typer

from perennial.cli.output import console, table_of
from perennial.stores import quarantine
from perennial.stores.project import Project


def show_rows(project: Project, name: str, limit: int, as_json: bool) -> None:
    """Print the newest quarantined rows."""
    project.load_model(name)
    uri = project.uri("quarantine", name)
    total, rows = quarantine.count(uri), quarantine.rows(uri, limit)
    if as_json:
        values = [row.model_dump(mode="json") for row in rows]
        typer.echo(json.dumps({"count": total, "rows": values}, indent=2))
        return
    if not rows:
        typer.echo(f"{name}: no row is in quarantine")
        return
    typer.echo(f"{name}: {len(rows):,} of {total:,} rows in quarantine")
    table = table_of("where", "why", "row")
    for row in rows:
        text = row.row if isinstance(row.row, str) else json.dumps(row.row, ensure_ascii=False)
        table.add_row(row.place, row.reason, text)
    console().print(table)


def put_rows_back(project: Project, name: str, as_json: bool) -> None:
    """Check the rows by today's rules, put back what passes, and say how it went."""
    _, spec = project.load_model(name)
    done = quarantine.put_back(spec, project.uri("quarantine", name), project.uri("tables", name))
    if as_json:
        typer.echo(done.model_dump_json(indent=2))
        return
    typer.echo(
        f"{name}: {done.checked:,} rows checked, {done.put_back:,} put back, "
        f"{done.present:,} told the table nothing new, {done.bad:,} still break a rule"
    )
