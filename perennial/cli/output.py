"""How commands print: fitted to a terminal, whole in a pipe."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table


def console() -> Console:
    """Standard output, which says what it is given: brackets in a row, a reason, or a path are no
    markup. In a pipe lines are as long as they are: nothing is cut or wrapped."""
    found = Console(highlight=False, markup=False, emoji=False)
    if not found.is_terminal:
        found.width = 10_000
    return found


def table_of(*headings: str) -> Table:
    """A table without lines, whose cells wrap on a narrow terminal and are never cut."""
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
