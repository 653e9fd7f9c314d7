"""DuckDB, for what must not be held in memory: sorting, joining, and finding repeats."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from perennial.contracts.errors import InputError
from perennial.stores.folders import new_folder
from perennial.stores.storage.places import is_remote

MEMORY_MIB = 512
"""What DuckDB may hold before it spills to disk. The process takes about as much again for reading
and writing Parquet."""

_MOST_THREADS = 4  # each needs a share of the memory


@contextmanager
def connect(near: Path) -> Iterator[Any]:
    """A DuckDB connection in UTC that spills into a temporary folder below ``near``.

    Raises InputError when there is no space left to spill to.
    """
    import duckdb

    with new_folder(near) as spill, duckdb.connect() as connection:
        connection.execute(f"SET memory_limit = '{MEMORY_MIB}MiB'")
        connection.execute(f"SET temp_directory = {literal(str(spill))}")
        connection.execute(f"SET threads = {min(os.cpu_count() or 1, _MOST_THREADS)}")
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET python_enable_replacements = false")  # no variable is a table
        try:
            # An error keeps frames, and Prefect the error: what they hold must not be the
            # connection itself, which has to go before the process does.
            yield weakref.proxy(connection)
        except duckdb.OutOfMemoryException as error:
            first = str(error).splitlines()[0]
            raise InputError(f"no space left for work on data below {near}: {first}") from None


def one(connection: Any, query: str) -> tuple[Any, ...]:
    """The single row that a query gives."""
    (row,) = connection.execute(query).fetchall()
    return tuple(row)


def micros(expression: str) -> str:
    """A time as microseconds since 1970, in SQL; ``moment`` reads it."""
    return f"epoch_us({expression})"


def moment(since_1970: int) -> datetime:
    """A time that a query gave as microseconds."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=since_1970)


def at(value: datetime) -> str:
    """A time with an offset, in SQL."""
    return f"{literal(value.isoformat())}::TIMESTAMPTZ"


def spill_place(uri: str) -> Path:
    """Where work on a table spills: beside it, or in the system's place when it is remote."""
    return Path(tempfile.gettempdir()) if is_remote(uri) else Path(uri).parent


def parquet(paths: Iterable[Path | str], by_name: bool = False, partitioned: bool = False) -> str:
    """Parquet files as a relation, in SQL; ``by_name`` when they may differ in their columns,
    ``partitioned`` when folders called ``column=value`` are columns and not only a place."""
    files = ", ".join(literal(str(path)) for path in paths)
    options = f"union_by_name = {by_name}, hive_partitioning = {partitioned}"
    return f"(SELECT * FROM read_parquet([{files}], {options}))"


def name(column: str) -> str:
    """A column's name, in SQL."""
    return '"' + column.replace('"', '""') + '"'


def names(columns: Iterable[str], of: str = "") -> str:
    """Columns' names with commas, in SQL; ``of`` is a table's alias."""
    return ", ".join(f"{of}.{name(c)}" if of else name(c) for c in columns)


def same(columns: Sequence[str], left: str, right: str) -> str:
    """That two rows agree in these columns, missing values included, in SQL."""
    return " AND ".join(f"{left}.{name(c)} IS NOT DISTINCT FROM {right}.{name(c)}" for c in columns)


def literal(text: str) -> str:
    """A text, in SQL."""
    return "'" + text.replace("'", "''") + "'"
