"""Text from data in Markdown, as Prefect's pages show it: nothing of it becomes markup.

What those pages show was tried out on 3.8.8, in both its user interfaces: tables, ``<br>`` in a
cell and images whose address is a data URI, but not SVG written into the text.
"""

from __future__ import annotations

import base64
import re

_MARKS = re.compile(r"([\\`*_\[\]<>|#~&])")


def plain(text: str) -> str:
    """The text as it is, on one line, also as the cell of a table."""
    return _MARKS.sub(r"\\\1", " ".join(text.split()))


def lines(text: str) -> str:
    """As ``plain``, but keeping line breaks."""
    return "<br>".join(plain(line) for line in text.splitlines())


def code(text: str) -> str:
    """A path or name to be copied, outside of tables."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence, space = "`" * (longest + 1), " " if "`" in text else ""
    return f"{fence}{space}{' '.join(text.split())}{space}{fence}"


def row(*cells: str) -> str:
    """A row of a table, of cells that are Markdown already."""
    return "| " + " | ".join(cells) + " |"


def picture(what: str, svg: str) -> str:
    """An SVG text as an image inside the page, so that no server has to hold it."""
    encoded = base64.b64encode(svg.encode()).decode()
    return f"![{plain(what)}](data:image/svg+xml;base64,{encoded})"
