"""Which columns tell the rows of a file apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from glob import escape
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from perennial.data.guesses import Guess, is_identifier
from perennial.data.samples import Sample

_MOST_COLUMNS = 3
_MOST_CANDIDATES = 12
_FIRST_ROWS = 20_000
_TRIES_ON_THE_FILE = 5


def find_entity(
    path: Path, sample: Sample, columns: Sequence[Guess], time: Guess | None
) -> tuple[str, ...]:
    """The fewest columns, at most three, that with the time differ in every row of the file; ()
    when the time alone does, or none are found.

    Looked at are text, whole numbers, times and booleans without missing values: first text and
    what is called an id, then, where there is a time, the others. Of a file that was sampled,
    columns that differ in the sample are tried on all its rows.
    """
    whole = [c for c in columns if c.values is not None and not c.missing and c.distinct > 1]
    naming = [c for c in whole if c.type in ("category", "string") or _names(c)]
    others = [c for c in whole if c.type in ("integer", "datetime", "boolean")]
    start = None if time is None else _codes(time)
    if time is not None and start is not None:
        alone = _differ([start]) and (sample.every == 1 or not _repeats(path, sample, [time.name]))
        if alone:
            return ()
    pools = (
        [naming] if time is None else [naming, [*naming, *(c for c in others if c not in naming)]]
    )
    tries = 0
    for pool in pools:
        for chosen in _differing(pool[:_MOST_CANDIDATES], start):
            names = tuple(column.name for column in chosen)
            keys = names if time is None else (time.name, *names)
            if sample.every == 1 or not _repeats(path, sample, keys):
                return names
            tries += 1
            if tries == _TRIES_ON_THE_FILE:
                return ()
    return ()


def _names(column: Guess) -> bool:
    return column.type == "integer" and (is_identifier(column.name) or not column.feature)


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
