"""Rows into a table by their identity: new ones are added, changed ones replaced, equal ones left.

All in one commit, also with rows that are to leave the table, so that a writer that is killed has
done all or nothing, and the same rows a second time change nothing, not even the version.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from perennial.spec.rules import OURS
from perennial.stores import engine, lake
from perennial.stores.staging import ROW
from perennial.stores.standing import Standing, standing_of

ADDED, CHANGED = "perennial.rows_added", "perennial.rows_changed"
REMOVED = "perennial.rows_removed"
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

    Rows of a model pass the ``rules`` of this digest (0: there are none). They may be ``lacking``
    columns of ``schema``, missing because nobody read them. ``whole``: they are the whole source.
    ``seen``: see ``lake.check_latest``; rows that are new are taken in all the same.
    """

    relation: str
    schema: Any
    keys: Sequence[str]
    content: Sequence[str]
    time: str | None = None
    window: tuple[datetime | None, datetime | None] = (None, None)
    ordered: bool = False
    rules: int = 0
    lacking: frozenset[str] = frozenset()
    whole: bool = False
    seen: int | None = None


@dataclass(frozen=True, slots=True)
class Leaving:
    """Rows that are to leave the table: ``relation`` (SQL) has the identity of each, once."""

    relation: str
    rows: int


@dataclass(frozen=True, slots=True)
class Upserted:
    version: int
    added: int
    changed: int
    removed: int


Admit: TypeAlias = Callable[[Any | None], Leaving | None]
"""What is done with a table (None: not made yet) before rows are taken into it. It says which of
its rows are to leave, so that all others pass the rules of those that come."""

Narrow: TypeAlias = Callable[[], None]
"""Makes ``Incoming.relation`` the rows that are in quarantine still."""


def upsert(
    connection: Any,
    uri: str,
    rows: Incoming,
    put_back: Narrow | None = None,
    admit: Admit | None = None,
) -> Upserted:
    """Take rows into the Delta table at ``uri``, made when it is not there.

    ``put_back`` is given for rows from quarantine: it is called once the table was opened, and
    their commit is marked as theirs. It and ``admit`` may be called again when another writer was
    quicker. Raises InputError when the table was made for other columns or another identity,
    PerennialError as ``lake.check_latest``, before ``admit`` is called, and UnavailableError when
    other writers keep being quicker.
    """
    return lake.until_committed(uri, lambda: _attempt(connection, uri, rows, put_back, admit))


def _attempt(
    connection: Any, uri: str, rows: Incoming, put_back: Narrow | None, admit: Admit | None
) -> Upserted:
    table = lake.open_table(uri)
    columns = engine.names(rows.schema.names)
    if table is not None:
        lake.check_fits(table, uri, rows.schema, rows.keys)
        _check_latest(connection, table, uri, rows)
    if put_back is not None:
        put_back()
    leaving = None if admit is None else admit(table)
    ingestion = admit is not None
    standing = _standing(table, rows, admitted=ingestion)
    if table is None:
        count = engine.one(connection, f"SELECT count(*) FROM {rows.relation}")[0]
        order = "" if rows.ordered else _by_time(rows)
        all_rows = connection.sql(f"SELECT {columns} FROM {rows.relation}{order}")
        about = {"identity": list(rows.keys)}
        lake.write(
            uri, None, _stream(all_rows), about=about, standing=standing, ingestion=ingestion
        )
        return Upserted(lake.version_of(uri), count, 0, 0)
    window = rows.window if leaving is None else (None, None)
    present = lake.relation(connection, table, uri, rows.time, window)
    stored = lake.schema_of(table).names
    added, changed = _compare(connection, rows, present, stored)
    if not added and not changed and leaving is None:
        return Upserted(int(table.version()), 0, 0, 0)
    taken = f"(SELECT {columns} FROM {rows.relation} SEMI JOIN todo USING ({ROW}))"
    inside, replace = None, changed > 0 or leaving is not None
    if replace:
        if rows.time is not None:
            inside = _span(connection, rows.time, taken, leaving)
        taken = _merged(rows, stored, present, taken, leaving, inside)
    after = connection.sql(f"SELECT * FROM {taken}{_by_time(rows)}")
    removed = 0 if leaving is None else leaving.rows
    brought = {ADDED: str(added), CHANGED: str(changed), REMOVED: str(removed)}
    lake.write(
        uri, table, _stream(after), predicate=inside, replace=replace and inside is None,
        lineage=brought | ({PUT_BACK: "true"} if put_back is not None else {}), standing=standing,
        ingestion=ingestion,
    )  # fmt: skip
    return Upserted(lake.version_of(uri), added, changed, removed)


def _check_latest(connection: Any, table: Any, uri: str, rows: Incoming) -> None:
    """As ``lake.check_latest``, of rows of which some may be new and some equal."""
    if rows.seen is None or lake.ingestions_of(table) <= rows.seen:
        return
    present = lake.relation(connection, table, uri, rows.time, rows.window)
    _, changed = _compare(connection, rows, present, lake.schema_of(table).names)
    if changed:
        lake.check_latest(table, uri, rows.seen)


def _standing(table: Any | None, rows: Incoming, admitted: bool) -> Standing:
    """What holds of all rows once these are in the table."""
    read = frozenset(rows.schema.names) - rows.lacking
    if table is None:
        return Standing(rows.rules, read)
    before = standing_of(table)
    known = admitted or before.rules == rows.rules
    columns = before.columns
    if rows.whole:
        columns = read
    elif columns is not None:
        columns &= read
    return Standing(rows.rules if known else 0, columns)


def _compare(connection: Any, rows: Incoming, present: str, columns: list[str]) -> tuple[int, int]:
    """Make the table ``todo``: the number of each row that is new or differs. Returns how many."""
    # Columns that the table doesn't have yet are compared as missing values.
    stored = [engine.name(c) if c in columns else "NULL" for c in rows.content]
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE todo AS "
        f"SELECT b.{ROW}, e.{_CONTENT} IS NOT NULL AS changed "
        f"FROM (SELECT {engine.names(rows.keys)}, {ROW}, "
        f"{_hash([engine.name(c) for c in rows.content])} AS {_CONTENT} FROM {rows.relation}) b "
        f"LEFT JOIN (SELECT {engine.names(rows.keys)}, {_hash(stored)} AS {_CONTENT} "
        f"FROM {present} WHERE {_within(rows)}) e ON {engine.same(rows.keys, 'b', 'e')} "
        f"WHERE e.{_CONTENT} IS NULL OR e.{_CONTENT} <> b.{_CONTENT}"
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


def _span(connection: Any, time: str, taken: str, leaving: Leaving | None) -> str:
    """The time that rows cover, as a condition both DuckDB and Delta read."""
    column = engine.name(time)
    if leaving is not None:
        left = f"SELECT {column} FROM {leaving.relation}"
        taken = f"(SELECT {column} FROM {taken} UNION ALL {left})"
    ends = f"{engine.micros(f'min({column})')}, {engine.micros(f'max({column})')}"
    first, last = (
        engine.literal(engine.moment(end).isoformat())
        for end in engine.one(connection, f"SELECT {ends} FROM {taken}")
    )
    return f"{column} >= {first} AND {column} <= {last}"


def _merged(
    rows: Incoming,
    stored: Sequence[str],
    present: str,
    taken: str,
    leaving: Leaving | None,
    inside: str | None,
) -> str:
    """What the replaced part holds afterwards: its rows without those that changed or leave, and
    all taken. What a changed row holds in columns that were not read is kept."""
    same = engine.same(rows.keys, "p", "t")
    unread = [name for name in stored if name not in rows.schema.names]
    whole = taken
    if unread:
        held = f"SELECT t.*, {engine.names(unread, 'p')} FROM {taken} t"
        whole = f"({held} LEFT JOIN {present} p ON {same})"
    kept = f"SELECT p.* FROM {present} p ANTI JOIN {taken} t ON {same}"
    if leaving is not None:
        kept += f" ANTI JOIN {leaving.relation} g ON {engine.same(rows.keys, 'p', 'g')}"
    kept = f"SELECT * FROM ({kept}) WHERE {inside or 'true'}"
    return f"({kept} UNION ALL BY NAME SELECT * FROM {whole})"


def _by_time(rows: Incoming) -> str:
    """Rows that lie by time let statistics of files and row groups leave most of them unread."""
    return "" if rows.time is None else f" ORDER BY {engine.name(rows.time)}"


def _stream(result: Any) -> Any:
    return result.to_arrow_reader(100_000)
