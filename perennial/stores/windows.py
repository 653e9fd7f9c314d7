"""A dataset divided into stretches of its canonical order, which workers read for themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

import pandas as pd

from perennial.contracts.errors import IntegrityError, Problem
from perennial.contracts.refs import DatasetRef
from perennial.spec import ModelSpec
from perennial.stores import engine, tables
from perennial.stores.compute import Compute
from perennial.stores.staging import ROW

MOST_ROWS = 262_144
LEAST_ROWS = 4_096


@dataclass(frozen=True)
class Window:
    """Rows of a dataset that lie together in its canonical order; a few hundred bytes, wherever
    they are. ``rows`` is their number, ``part`` what makes them out in SQL."""

    ref: DatasetRef
    spec: ModelSpec
    rows: int
    part: str = "true"
    columns: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.rows

    def of(self, columns: Sequence[str]) -> Window:
        """The same rows, of which these columns are wanted."""
        return replace(self, columns=tuple(columns))

    def frame(self) -> pd.DataFrame:
        """The rows, in canonical order. Raises as ``tables.scan``, and IntegrityError when they are
        not those that were counted."""
        frames = tables.scan(self.ref, self.spec, self.columns, part=self.part)
        frame = pd.concat(list(frames), ignore_index=True)
        if len(frame) != self.rows:
            what = f"{len(frame):,} rows where there were {self.rows:,}: {self.part}"
            raise IntegrityError(Problem(self.ref.uri, what, "run again"))
        return frame


def reader(
    ref: DatasetRef, spec: ModelSpec, compute: Compute
) -> Callable[[Sequence[str]], Iterator[pd.DataFrame | Window]]:
    """How a dataset's columns are read where they are wanted: as frames here, as windows on a
    cluster, a few for each of its threads."""
    if not compute.remote:
        return partial(tables.scan, ref, spec)
    found = windows(ref, spec, 2 * compute.threads)
    return lambda columns: (window.of(columns) for window in found)


def windows(ref: DatasetRef, spec: ModelSpec, pieces: int) -> list[Window]:
    """A dataset as windows of about equal size in canonical order, ``pieces`` of them unless they
    would be larger than 262,144 rows or smaller than 4,096.

    Windows are stretches of the first column that orders the rows: rows that agree in it stay
    together. Raises as ``tables.scan``.
    """
    each = min(max(-(-ref.rows // pieces), LEAST_ROWS), MOST_ROWS)
    column = spec.identity[0] if spec.identity else ROW
    by_time = column == spec.source.event_time
    ends = list(_ends(ref, spec, column, by_time, each))
    found = []
    for at, (low, first) in enumerate(ends):
        high, after = ends[at + 1] if at + 1 < len(ends) else (None, ref.rows)
        window = Window(ref, spec, after - first)
        if by_time:  # files and row groups outside it are left unread
            inside = {"start": low or ref.start, "end": high or ref.end}
            found.append(replace(window, ref=ref.model_copy(update=inside)))
        else:
            found.append(replace(window, part=_between(column, low, high)))
    return found


def _ends(
    ref: DatasetRef, spec: ModelSpec, column: str, by_time: bool, each: int
) -> Iterator[tuple[Any, int]]:
    """Where each window begins: the column's value (None: at the very first) and how many rows come
    before it."""
    yield None, 0
    name = engine.name(column)
    value = engine.micros(name) if by_time else name
    with tables.opened(ref, spec) as (connection, rows):
        found = connection.execute(
            f"SELECT DISTINCT value, before FROM (SELECT {value} AS value, rank() OVER o - 1 AS "
            f"before, row_number() OVER o - 1 AS number FROM {rows} WINDOW o AS (ORDER BY {name})) "
            f"WHERE number % {each} = 0 AND before > 0 AND value IS NOT NULL ORDER BY before"
        ).fetchall()
    for value, before in found:
        yield (engine.moment(value) if by_time else value), int(before)


def _between(column: str, low: Any, high: Any) -> str:
    """Missing values come last."""
    name = engine.name(column)
    conditions = [] if low is None else [f"{name} >= {_literal(low)}"]
    if high is not None:
        conditions.append(f"{name} < {_literal(high)}")
    elif conditions:
        conditions = [f"({conditions[0]} OR {name} IS NULL)"]
    return " AND ".join(conditions) or "true"


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{engine.literal(repr(value))}::DOUBLE"
    if isinstance(value, datetime):
        return engine.at(value)
    return str(value) if isinstance(value, int) else engine.literal(str(value))
