"""``perennial tokens``: who may ask the service, and for what."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from perennial.cli.context import context_of
from perennial.cli.output import console, table_of
from perennial.contracts.errors import InputError, Problem
from perennial.stores.tokens import FILE_NAME, ROLES, Role, Token, add_token, read_tokens
from perennial.stores.tokens import remove_tokens as remove_from

app = typer.Typer(
    help="Tokens of the service: add, list, remove. The server follows without a restart.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_FILE = typer.Option(help=f"File of tokens; by default .perennial/{FILE_NAME}.")
_JSON = typer.Option("--json", help="Print JSON.")
_Name = Annotated[str, typer.Argument(help="Who holds it: a program, a person.")]


@app.command()
def add(
    context: typer.Context,
    name: _Name,
    role: Annotated[list[str], typer.Option(help=f"{', '.join(ROLES)}; may be repeated.")],
    file: Annotated[Path | None, _FILE] = None,
) -> None:
    """Make a token and print it, this once. Only its SHA-256 is kept.

    A name may have several: add the new one, give it out, then remove the old one by its id.
    """
    path = _path(context, file)
    token = add_token(path, name, [_role(given) for given in role], datetime.now(UTC))
    typer.echo(token)
    typer.echo(f"kept in {path} as its SHA-256; it is not shown again", err=True)


@app.command("list")
def list_tokens(
    context: typer.Context,
    file: Annotated[Path | None, _FILE] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Show who has tokens, with which roles."""
    tokens = read_tokens(_path(context, file))[0]
    if as_json:
        typer.echo(json.dumps([_shown(token) for token in tokens], indent=2))
        return
    table = table_of("name", "id", "roles", "made at")
    for token in tokens:
        made = f"{token.created_at:%Y-%m-%d %H:%M}" if token.created_at else ""
        table.add_row(token.name, token.id, ", ".join(token.roles), made)
    console().print(table)


@app.command("remove")
def remove(
    context: typer.Context,
    name: _Name,
    identity: Annotated[
        str | None, typer.Option("--id", help="Only this one; perennial tokens list shows ids.")
    ] = None,
    file: Annotated[Path | None, _FILE] = None,
) -> None:
    """Take the tokens of a name away. The server refuses them a second later."""
    for token in remove_from(_path(context, file), name, identity):
        typer.echo(f"removed {token.name} {token.id} ({', '.join(token.roles)})")


def _path(context: typer.Context, file: Path | None) -> Path:
    return file or context_of(context).project.home / FILE_NAME


def _role(given: str) -> Role:
    for role in ROLES:
        if role == given:
            return role
    raise InputError(Problem("--role", f"{given!r} is not a role", f"roles: {', '.join(ROLES)}"))


def _shown(token: Token) -> dict[str, object]:
    return {**token.model_dump(mode="json", exclude={"sha256"}), "id": token.id}
