"""The command line's reference page, from the commands' own help."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer
import typer.main

from perennial.cli.app import app

_HEAD = """\
# The command line

Written from the code by `make docs`; do not edit.

Exit codes: 0 done, 1 the work failed or a gate said no (it says which), 2 the input is wrong. Every
command works from any directory: `models/` and `.perennial/` are those of the working directory, or
of `--project`.
"""


def cli_page() -> str:
    """Markdown: the help of ``perennial`` and of each of its commands."""
    sections = [_HEAD]
    for name, command in _commands("perennial", typer.main.get_command(app)):
        context = typer.Context(command, info_name=name, terminal_width=90)
        sections.append(f"## {name}\n\n```text\n{command.get_help(context).strip()}\n```\n")
    return "\n".join(sections)


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """A command and, of a group, all below it, by their full names."""
    yield name, command
    given = (p for p in command.params if p.param_type_name == "argument")
    if hasattr(command, "commands"):  # what a group takes stands before its command's name
        name = " ".join([name, *(str(p.name).upper() for p in given)])
    for own, below in getattr(command, "commands", {}).items():
        yield from _commands(f"{name} {own}", below)
