"""``perennial data``: the versions of a model's table, what lies between two, and back to one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perennial.cli.context import context_of
from perennial.cli.output import console, table_of
from perennial.cli.reading import AsJson, open_registry

if TYPE_CHECKING:
    from perennial.contracts.data_versions import DataDiff, DataVersion
    from perennial.stores.project import Project

app = typer.Typer(
    help="The versions of a model's data: log, diff, restore, export.",
    no_args_is_help=True,
    rich_markup_mode=None,
    subcommand_metavar="COMMAND [ARGS]...",
)

_MODEL = "perennial.model"
_MOST_COLUMNS = 10


@app.callback()
def _of(context: typer.Context, name: Annotated[str, typer.Argument(help="The model.")]) -> None:
    context.meta[_MODEL] = name


@app.command()
def log(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="How many versions, the newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """What each version brought, and which versions of the model were trained on it."""
    from perennial.stores import history
    from perennial.stores.trained import trained_on

    project, name, uri = _table(context)
    versions = history.log(uri, limit)
    oldest = min(one.at for one in versions)
    trained = trained_on(project, open_registry(project), name, uri, oldest)
    versions = history.with_models(versions, trained)
    if as_json:
        typer.echo(json.dumps([one.model_dump(mode="json") for one in versions], indent=2))
    else:
        _print_log(versions)


@app.command()
def diff(
    context: typer.Context,
    before: Annotated[int, typer.Argument(metavar="A", help="A version of the table.")],
    after: Annotated[int, typer.Argument(metavar="B", help="Another.")],
    as_json: AsJson = False,
) -> None:
    """What differs in B: columns, and rows added, removed and changed, by their identity."""
    from perennial.stores.differences import diff as compare

    project, name, uri = _table(context)
    _, spec = project.load_model(name)
    found = compare(uri, before, after, spec.source.event_time)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        _print_diff(found)


@app.command()
def restore(
    context: typer.Context,
    version: Annotated[int, typer.Argument(metavar="V", help="The version to put back.")],
) -> None:
    """Put a version's rows back, as the newest version. All others stay. The next training reads
    the source again from the last restored event on, minus source.lateness and
    label.delay."""
    from perennial.stores import history

    _, name, uri = _table(context)
    done = history.restore(uri, version)
    if done.changed:
        what = f"version {done.version} holds the {done.rows:,} rows of version {version}"
    else:
        what = f"version {done.version} is the rows of version {version} already"
    typer.echo(f"{name}: {what}")


@app.command()
def export(
    context: typer.Context,
    output: Annotated[Path, typer.Option(help="Folder to write; new, or empty.")],
    version: Annotated[
        int | None, typer.Option(metavar="V", help="Of the table; the newest by default.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a former export.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a version's rows as Parquet files. The same version gives the same bytes, for what pins
    files by their content: DVC, lakeFS."""
    from perennial.stores.data_export import export_version
    from perennial.stores.history import newest

    _, name, uri = _table(context)
    number = int(newest(uri).version()) if version is None else version
    done = export_version(uri, number, name, output.expanduser().resolve(), force)
    if as_json:
        typer.echo(done.model_dump_json(indent=2))
    else:
        typer.echo(f"wrote {done.rows:,} rows of version {number} to {done.folder}")
        typer.echo(f"  digest  {done.digest}")


def _table(context: typer.Context) -> tuple[Project, str, str]:
    project, name = context_of(context).project, str(context.meta[_MODEL])
    project.model_folder(name)
    return project, name, project.uri("tables", name)


def _print_log(versions: Sequence[DataVersion]) -> None:
    counts = ("rows", "added", "changed", "removed")
    table = table_of("version", "at (UTC)", "what", *counts, "trained on it")
    for column in table.columns[3:7]:
        column.justify = "right"
    for one in versions:
        what = one.operation if one.restored is None else f"version {one.restored} restored"
        trained = ", ".join(
            f"@{t.version}" + (f" (run {t.run[:8]})" if t.run else "") for t in one.trained
        )
        numbers = (one.rows, one.rows_added, one.rows_changed, one.rows_removed)
        table.add_row(
            str(one.version),
            f"{one.at:%Y-%m-%d %H:%M:%S}",
            what if one.readable else f"{what}, can't be read any more",
            *("" if n is None else f"{n:,}" for n in numbers),
            trained,
        )
    console().print(table)


def _print_diff(found: DataDiff) -> None:
    out = console()

    def line(text: str) -> None:
        out.print(text, soft_wrap=True)

    by = f"by {', '.join(found.by)}" if found.by else "by all they hold: there is no identity"
    line(f"version {found.before}: {found.rows_before:,} rows")
    line(f"version {found.after}: {found.rows_after:,} rows")
    line(f"rows, {by}")
    line(f"  {found.added:,} added, {found.removed:,} removed, {found.changed:,} changed")
    if found.window is not None:
        first, last = (f"{at:%Y-%m-%d %H:%M}" for at in (found.window.first, found.window.last))
        line(f"  events from {first} to {last}")
    for one in found.schema_changes:
        if one.before is None:
            line(f"column {one.column}: new, {one.after}")
        elif one.after is None:
            line(f"column {one.column}: gone, was {one.before}")
        else:
            line(f"column {one.column}: {one.before} became {one.after}")
    for name, count in list(found.columns.items())[:_MOST_COLUMNS]:
        line(f"  {name} differs in {count:,} rows")
    hidden = len(found.columns) - _MOST_COLUMNS
    if hidden > 0:
        line(f"  … and {hidden} more columns")
