"""Rows of a batch that come again: found by their identity, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perennial.stores import engine

_EXAMPLES = 5
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Repeats:
    """Rows whose identity comes again later in the batch.

    ``numbers`` is an Arrow table of the column ``row``, ascending; ``conflicts`` counts those that
    differ in content from the last of their identity, and ``examples`` are identities of some.
    """

    numbers: Any
    conflicts: int
    examples: tuple[str, ...]


def find_repeats(
    near: Path, files: Sequence[Path], row: str, keys: Sequence[str], content: Sequence[str]
) -> Repeats | None:
    """The repeats by ``keys`` in Parquet files whose rows are numbered by the column ``row``; None
    when there are none. Spills below ``near``.

    Nearly all rows are kept out of the exact comparison by a hash of their identity.
    """
    rows, key = engine.parquet(files), engine.names(keys)
    values = f"hash({engine.names(content)})" if content else "0"
    with engine.connect(near) as connection:
        connection.execute(
            f"CREATE TEMP TABLE suspect AS SELECT hash({key}) AS h FROM {rows} "
            "GROUP BY ALL HAVING count(*) > 1"
        )
        # Names of ours stand beside no column, or one of the same name would be taken for it.
        texts = ", ".join(f"{engine.name(k)}::VARCHAR" for k in keys)
        connection.execute(
            f"CREATE TEMP TABLE again AS SELECT {row}, [{texts}] AS texts, {values} AS content, "
            f"first_value({values}) OVER newest AS kept, row_number() OVER newest AS place "
            f"FROM {rows} WHERE hash({key}) IN (SELECT h FROM suspect) "
            f"WINDOW newest AS (PARTITION BY {key} ORDER BY {row} DESC)"
        )
        counts = "count(*), count(*) FILTER (content <> kept)"
        found, conflicts = engine.one(connection, f"SELECT {counts} FROM again WHERE place > 1")
        if not found:
            return None
        numbers = connection.sql(f"SELECT {row} FROM again WHERE place > 1 ORDER BY {row}")
        examples = connection.sql(
            f"SELECT texts FROM again WHERE content <> kept ORDER BY {row} LIMIT {_EXAMPLES}"
        )
        return Repeats(
            numbers=numbers.to_arrow_table(),
            conflicts=conflicts,
            examples=tuple(
                ", ".join(f"{k}={v}" for k, v in zip(keys, values, strict=True))[:_LONGEST]
                for (values,) in examples.fetchall()
            ),
        )
