"""The command line's reference page, from the commands' own help."""

from __future__ import annotations

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
    root = typer.main.get_command(app)
    pages = [("perennial", root)]
    pages += [(f"perennial {name}", command) for name, command in root.commands.items()]  # type: ignore[attr-defined]
    sections = [_HEAD]
    for name, command in pages:
        context = typer.Context(command, info_name=name, terminal_width=90)
        sections.append(f"## {name}\n\n```text\n{command.get_help(context).strip()}\n```\n")
    return "\n".join(sections)
