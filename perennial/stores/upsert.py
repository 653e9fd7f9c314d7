"""Rows into a table by their identity: new ones are added, changed ones replaced, equal ones left.

All in one commit, so that a writer that is killed has done all or nothing, and the same rows a
second time change nothing, not even the version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from perennial.spec.rules import OURS
from perennial.stores import engine, lake
from perennial.stores.staging import ROW

ADDED, CHANGED = "perennial.rows_added", "perennial.rows_changed"
"""What a commit brought, in the table's history."""
PUT_BACK = "perennial.put_back"
"""A commit of rows that came out of quarantine, in the table's history."""

_CONTENT = f"{OURS}content"


@dataclass(frozen=True, slots=True)
class Incoming:
    """Rows to be taken in.

    ``relation`` (SQL) has the columns of ``schema`` and ``ROW``, unique; each identity (``keys``)
    is there once. Two rows are equal when they agree in ``content``. ``time`` is the column that
    ``window`` bounds (both ends included), None for no time; ``ordered``: they come by time.
    """

    relation: str
    schema: Any
    keys: Sequence[str]
    content: Sequence[str]
    time: str | None = None
    window: tuple[datetime | None, datetime | None] = (None, None)
    ordered: bool = False


@dataclass(frozen=True, slots=True)
class Upserted:
    version: int
    added: int
    changed: int


def upsert(connection: Any, uri: str, rows: Incoming, put_back: bool = False) -> Upserted:
    """Take rows into the Delta table at ``uri``, made when it is not there.

    Rows that are ``put_back`` from quarantine change none that the table has, and their commit is
    marked as theirs. Raises InputError when the table was made for other columns or another
    identity, UnavailableError when other writers keep being quicker.
    """
    return lake.until_committed(uri, lambda: _attempt(connection, uri, rows, put_back))


def _attempt(connection: Any, uri: str, rows: Incoming, put_back: bool) -> Upserted:
    table = lake.open_table(uri)
    columns = engine.names(rows.schema.names)
    if table is None:
        count = engine.one(connection, f"SELECT count(*) FROM {rows.relation}")[0]
        order = "" if rows.ordered else _by_time(rows)
        all_rows = connection.sql(f"SELECT {columns} FROM {rows.relation}{order}")
        lake.write(uri, None, _stream(all_rows), about={"identity": list(rows.keys)})
        return Upserted(lake.version_of(uri), count, 0)
    lake.check_fits(table, uri, rows.schema, rows.keys)
    present = lake.relation(connection, table, uri, rows.time, rows.window)
    added, changed = _compare(connection, rows, present, lake.schema_of(table).names, put_back)
    if not added and not changed:
        return Upserted(int(table.version()), 0, 0)
    taken = f"(SELECT {columns} FROM {rows.relation} SEMI JOIN todo USING ({ROW}))"
    inside = None
    if changed:
        if rows.time is not None:
            inside = _span(connection, rows.time, taken)
        taken = _merged(rows, present, taken, inside)
    after = connection.sql(f"SELECT * FROM {taken}{_by_time(rows)}")
    replace = changed > 0 and inside is None
    brought = {ADDED: str(added), CHANGED: str(changed)} | ({PUT_BACK: "true"} if put_back else {})
    lake.write(uri, table, _stream(after), predicate=inside, replace=replace, lineage=brought)
    return Upserted(lake.version_of(uri), added, changed)


def _compare(
    connection: Any, rows: Incoming, present: str, columns: list[str], put_back: bool
) -> tuple[int, int]:
    """Make the table ``todo``: the number of each row that is new or differs. Returns how many."""
    # Columns that the table doesn't have yet are compared as missing values.
    stored = [engine.name(c) if c in columns else "NULL" for c in rows.content]
    differs = "false" if put_back else f"e.{_CONTENT} <> b.{_CONTENT}"
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE todo AS "
        f"SELECT b.{ROW}, e.{_CONTENT} IS NOT NULL AS changed "
        f"FROM (SELECT {engine.names(rows.keys)}, {ROW}, "
        f"{_hash([engine.name(c) for c in rows.content])} AS {_CONTENT} FROM {rows.relation}) b "
        f"LEFT JOIN (SELECT {engine.names(rows.keys)}, {_hash(stored)} AS {_CONTENT} "
        f"FROM {present} WHERE {_within(rows)}) e ON {engine.same(rows.keys, 'b', 'e')} "
        f"WHERE e.{_CONTENT} IS NULL OR {differs}"
    )
    counts = "SELECT count(*) FILTER (NOT changed), count(*) FILTER (changed) FROM todo"
    added, changed = engine.one(connection, counts)
    return added, changed


def _within(rows: Incoming) -> str:
    start, end = rows.window
    if rows.time is None or start is None or end is None:
        return "true"
    return f"{engine.name(rows.time)} BETWEEN {engine.at(start)} AND {engine.at(end)}"


def _hash(expressions: list[str]) -> str:
    return f"hash({', '.join(expressions)})" if expressions else "hash(0)"


def _span(connection: Any, time: str, taken: str) -> str:
    """The time that rows cover, as a condition both DuckDB and Delta read."""
    column = engine.name(time)
    ends = f"{engine.micros(f'min({column})')}, {engine.micros(f'max({column})')}"
    first, last = (
        engine.literal(engine.moment(end).isoformat())
        for end in engine.one(connection, f"SELECT {ends} FROM {taken}")
    )
    return f"{column} >= {first} AND {column} <= {last}"


def _merged(rows: Incoming, present: str, taken: str, inside: str | None) -> str:
    """What the replaced part holds afterwards: its rows without the changed ones, and all taken."""
    same = engine.same(rows.keys, "p", "t")
    kept = f"SELECT p.* FROM {present} p ANTI JOIN {taken} t ON {same}"
    return (
        f"(SELECT * FROM ({kept}) WHERE {inside or 'true'} UNION ALL BY NAME SELECT * FROM {taken})"
    )


def _by_time(rows: Incoming) -> str:
    """Rows that lie by time let statistics of files and row groups leave most of them unread."""
    return "" if rows.time is None else f" ORDER BY {engine.name(rows.time)}"


def _stream(result: Any) -> Any:
    return result.to_arrow_reader(100_000)
