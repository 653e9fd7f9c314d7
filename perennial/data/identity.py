"""Which columns tell the rows of a file apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import escape
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from perennial.data.guesses import Guess, is_identifier
from perennial.data.samples import Sample

_NAMING = ("category", "string", "integer")
_PANDAS_INDEX = "__index_level_"
"""Begins a Parquet column that pandas wrote for its index: where a row lay, not which it is."""
_MOST_COLUMNS = 3
_MOST_CANDIDATES = 12
_FIRST_ROWS = 20_000
_TRIES_ON_THE_FILE = 5
_SERIAL_SPAN = 10
"""Whole numbers that differ in every row, within this many times their count, number the rows:
prices or populations that happen to differ lie farther apart."""


@dataclass(frozen=True, slots=True)
class Entity:
    """``columns`` with the time differ in every row of the file; () where none were found.
    ``time_alone``: so does the time by itself."""

    columns: tuple[str, ...]
    time_alone: bool = False


def find_entity(path: Path, sample: Sample, columns: Sequence[Guess], time: Guess | None) -> Entity:
    """What names a row, so that a corrected one replaces the old one.

    First a column that differs in every row by itself: one called an id, a text without blanks, or
    a serial number. Else the fewest columns, at most three, that with the time differ in every row;
    where the time alone does, those called an id, as nothing else tells what belongs to a row's
    name: at most three, of more those with most values, as later rows may share a time. One that
    never changes only where there is no other.

    Looked at are text, whole numbers, times and booleans without missing values: first what is
    called an id, then other text and serial numbers, then, where there is a time, the others. Of a
    file that was sampled, columns that differ in the sample are tried on all its rows.
    """
    whole = [
        column
        for column in columns
        if column.values is not None
        and not column.values.null_count
        and not column.name.startswith(_PANDAS_INDEX)
    ]
    varied = [c for c in whole if c.distinct > 1]
    naming = [c for c in varied if c.type in ("category", "string") or _names(c)]
    naming.sort(key=lambda column: not is_identifier(column.name))
    single = [c for c in naming if c.distinct == len(c.values) and _is_name(c, sample.rows)]
    for column in single[:_TRIES_ON_THE_FILE]:
        if _holds(path, sample, [column.name]):
            return Entity((column.name,))
    if time is None:
        return Entity(_fewest(path, sample, [naming], None))
    if _differ([_codes(time)]) and _holds(path, sample, [time.name]):
        called = [c for c in whole if c.type in _NAMING and is_identifier(c.name)]
        called = [c for c in called if c.distinct > 1] or called[:1]
        called.sort(key=lambda column: -column.distinct)
        return Entity(tuple(c.name for c in called[:_MOST_COLUMNS]), time_alone=True)
    others = [c for c in varied if c.type in ("integer", "datetime", "boolean")]
    pools = [naming, [*naming, *(c for c in others if c not in naming)]]
    return Entity(_fewest(path, sample, pools, time))


def _holds(path: Path, sample: Sample, names: Sequence[str]) -> bool:
    """Whether columns that differ in every row of the sample do so in the file."""
    return sample.every == 1 or not _repeats(path, sample, names)


def _fewest(
    path: Path, sample: Sample, pools: Sequence[Sequence[Guess]], time: Guess | None
) -> tuple[str, ...]:
    start = None if time is None else _codes(time)
    tries = 0
    for pool in pools:
        for chosen in _differing(pool[:_MOST_CANDIDATES], start):
            names = tuple(column.name for column in chosen)
            if _holds(path, sample, names if time is None else (time.name, *names)):
                return names
            tries += 1
            if tries == _TRIES_ON_THE_FILE:
                return ()
    return ()


def _names(column: Guess) -> bool:
    return column.type == "integer" and (is_identifier(column.name) or not column.feature)


def _is_name(column: Guess, rows: int) -> bool:
    """Whether a column that differs in every row is there to tell rows apart."""
    if is_identifier(column.name):
        return True
    if column.type == "integer":
        low, high = column.range_seen()
        return high - low < _SERIAL_SPAN * rows
    return not pc.any(pc.match_substring_regex(column.values, r"\S\s+\S")).as_py()


def _differing(pool: Sequence[Guess], start: np.ndarray | None) -> Iterator[tuple[Guess, ...]]:
    """Sets of columns that differ in every row of the sample, the smaller first."""
    codes = {column.name: _codes(column) for column in pool}
    for size in range(1, _MOST_COLUMNS + 1):
        for chosen in combinations(pool, size):
            parts = [codes[column.name] for column in chosen]
            if _differ(parts if start is None else [start, *parts]):
                yield chosen


def _codes(column: Guess) -> np.ndarray:
    """The number of each row's value, from 1; 0 where it is missing."""
    codes: np.ndarray = pc.fill_null(column.values.dictionary_encode().indices, -1).to_numpy()
    return codes.astype(np.int64) + 1


def _differ(parts: Sequence[np.ndarray]) -> bool:
    """No two rows have the same codes. Looks at some rows first: that settles most cases."""
    for rows in dict.fromkeys((min(_FIRST_ROWS, len(parts[0])), len(parts[0]))):
        keys = parts[0][:rows]
        for part in parts[1:]:
            keys = np.unique(keys * (int(part.max()) + 1) + part[:rows], return_inverse=True)[1]
        if len(np.unique(keys)) < rows:
            return False
    return True


def _repeats(path: Path, sample: Sample, columns: Sequence[str]) -> bool:
    """Whether two rows of the whole file are alike in these columns. Spills to disk."""
    import duckdb

    source: Any = duckdb.connect(config={"memory_limit": "1GB", "threads": 2})
    file = escape(str(path))  # DuckDB takes a name such as rows[1].csv for a pattern
    with source:
        relation = (
            source.read_parquet(file, hive_partitioning=False)
            if sample.kind == "parquet"
            else source.read_csv(
                file,
                sep=sample.delimiter,
                header=True,
                all_varchar=True,
                ignore_errors=True,
                hive_partitioning=False,
            )
        )
        keys = ", ".join('"' + name.replace('"', '""') + '"' for name in columns)
        alike = relation.aggregate("count(*) AS n", keys).filter("n > 1").limit(1)
        return bool(alike.fetchall())
