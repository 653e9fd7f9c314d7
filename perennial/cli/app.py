"""The ``perennial`` command: what it takes, and how its errors end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from perennial import __version__
from perennial.cli import commands, data, keys, reading, tokens
from perennial.cli.auditing import audit
from perennial.cli.backtest import backtest
from perennial.cli.context import Context
from perennial.cli.drift import drift
from perennial.cli.exporting import export
from perennial.cli.publishing import publish
from perennial.cli.rollout import rollback, rollout
from perennial.cli.scoring import score
from perennial.cli.serving import serve
from perennial.cli.setting_up import setup
from perennial.cli.up import down, up
from perennial.contracts.errors import PerennialError
from perennial.stores.project import Project

app = typer.Typer(
    help="Continuous training for tabular XGBoost models.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    project: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Folder with models/ and .perennial/; by default the working directory.",
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the flow's own log.")] = False,
    version: Annotated[  # noqa: ARG001 (acted on by its callback)
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    place = Project(project.resolve()) if project else Project.current()
    context.obj = Context(project=place, verbose=verbose)


app.command()(commands.demo)
app.command()(commands.init)
app.command()(commands.check)
app.command()(commands.train)
app.command()(commands.reproduce)
app.command()(score)
app.command()(drift)
app.command()(backtest)
app.command()(export)
app.command()(publish)
app.command()(rollout)
app.command()(rollback)
app.command()(serve)
app.command()(up)
app.command()(down)
app.command()(setup)
app.add_typer(tokens.app, name="tokens")
app.add_typer(keys.app, name="keys")
app.command()(commands.quarantine)
app.add_typer(data.app, name="data")
app.command()(reading.status)
app.command()(reading.versions)
app.command()(reading.show)
app.command()(audit)


def main() -> None:
    """Entry point: a PerennialError is its message and exit code, never a trace."""
    try:
        app(prog_name="perennial")
    except PerennialError as error:
        typer.echo(error.message, err=True)
        sys.exit(error.exit_code)
