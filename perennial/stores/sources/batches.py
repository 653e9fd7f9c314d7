"""What a source is read in: batches of rows that know their places."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from perennial.contracts.errors import Problem
from perennial.data.frames import table_columns
from perennial.spec import ModelSpec
from perennial.spec.values import nearest

ROWS = 250_000
_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Malformed:
    """A row that can't be divided into columns: its place and number there, its text, why not."""

    place: str
    row: int
    text: str
    reason: str

    @property
    def where(self) -> str:
        return f"{self.place} row {self.row}"


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one place. ``rows`` are their numbers there, counted as a person would (in a CSV the
    header is row 1); ``malformed`` are rows found broken since the piece before."""

    table: Any
    place: str
    rows: np.ndarray
    malformed: tuple[Malformed, ...] = ()
    undeclared: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """Pieces put together: ``table`` has the declared columns in the types of the source."""

    table: Any
    pieces: tuple[Piece, ...]
    starts: tuple[int, ...]

    @property
    def num_rows(self) -> int:
        return int(self.table.num_rows)

    @property
    def malformed(self) -> Iterator[tuple[int, Malformed]]:
        """Malformed rows, each with the position in ``table`` of the row before it (or after)."""
        for start, piece in zip(self.starts, self.pieces, strict=True):
            for row in piece.malformed:
                at = start + int(np.searchsorted(piece.rows, row.row)) - 1
                yield min(max(at, 0), max(self.num_rows - 1, 0)), row

    @property
    def undeclared(self) -> Iterator[str]:
        return (name for piece in self.pieces for name in piece.undeclared)

    def where(self, position: int) -> str:
        """The place of a row: ``flights.csv row 12``."""
        at = bisect_right(self.starts, position) - 1
        piece = self.pieces[at]
        return f"{piece.place} row {piece.rows[position - self.starts[at]]}"


def join(pieces: Iterable[Piece]) -> Iterator[Batch]:
    """Join pieces of one schema to batches of about ``ROWS`` rows, in order."""
    waiting: list[Piece] = []
    rows = size = 0
    for piece in pieces:
        if waiting and (
            piece.table.schema != waiting[0].table.schema
            or rows + piece.table.num_rows > ROWS
            or size + piece.table.nbytes > _BYTES
        ):
            yield _batch(waiting)
            waiting, rows, size = [], 0, 0
        waiting.append(piece)
        rows += piece.table.num_rows
        size += piece.table.nbytes
    if waiting:
        yield _batch(waiting)


def _batch(pieces: list[Piece]) -> Batch:
    table = pa.concat_tables([piece.table for piece in pieces]).combine_chunks()
    starts = np.cumsum([0, *(piece.table.num_rows for piece in pieces[:-1])])
    return Batch(table, tuple(pieces), tuple(starts.tolist()))


def wanted_columns(spec: ModelSpec) -> tuple[str, ...]:
    """What training reads of a source: the declared columns, the event time and the label."""
    return tuple(table_columns(spec))


def absent_columns(
    spec: ModelSpec, wanted: Sequence[str], present: Sequence[str], where: str
) -> list[Problem]:
    """A problem for each wanted column that a source doesn't have."""
    problems = []
    others = [name for name in present if name not in wanted]
    for name in wanted:
        if name in present:
            continue
        role = {spec.label.column: "the label ", spec.source.event_time: "the event time "}
        what = f"{role.get(name, '')}column {name!r} is not there{nearest(name, others)}"
        columns = ", ".join(present[:30]) + (", …" if len(present) > 30 else "")
        problems.append(Problem(where, what, f"its columns: {columns}"))
    return problems
