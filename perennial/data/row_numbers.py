"""How a problem names a row, and how whoever handed on some of the rows puts their own number.

Rows are counted from 1 among those that were read together. Names and values in the text may look
like any of it, so that a number is found by what ends the text only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from perennial.contracts.errors import Problem

_TOO_GREAT = ", which float32 can't hold"
_AT = re.compile(r", row (\d+)$")
_IN = re.compile(rf" in row (\d+)( \([\d,]+ of [\d,]+ rows\){_TOO_GREAT})$")


def at_row(where: str, place: int) -> str:
    """A place's row; ``place`` is counted from 0."""
    return f"{where}, row {place + 1}"


def too_great(what: str, place: int, count: int, rows: int) -> str:
    """What is beyond float32 in ``count`` of ``rows`` rows, first in the one at ``place``, from
    0."""
    return f"{what} in row {place + 1} ({count:,} of {rows:,} rows){_TOO_GREAT}"


def renumbered(problem: Problem, place: Callable[[int], int]) -> Problem:
    """The problem with another row's number: that at ``place`` of its own, both from 0."""

    def number(row: re.Match[str]) -> str:
        return str(place(int(row[1]) - 1) + 1)

    where = _AT.sub(lambda row: f", row {number(row)}", problem.where)
    what = _IN.sub(lambda row: f" in row {number(row)}{row[2]}", problem.what)
    return replace(problem, where=where, what=what)


def called(problem: Problem, name: str) -> Problem:
    """The problem in words for whom rows are called otherwise."""
    return replace(problem, where=_AT.sub(rf", {name} \1", problem.where))


def unnumbered(problem: Problem) -> Problem:
    """The problem without its row, for one that is told of elsewhere."""
    what = _IN.sub(_TOO_GREAT, problem.what)
    return replace(problem, where=_AT.sub("", problem.where), what=what)
