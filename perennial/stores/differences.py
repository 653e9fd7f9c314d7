"""What differs between two versions of a Delta table, row by row, in bounded memory.

Rows of files that both versions have are the same rows: only the other files are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perennial.contracts.data_versions import ColumnChange, DataDiff, Window
from perennial.spec.rules import OURS
from perennial.stores import engine, lake
from perennial.stores.history import at_version, newest, rows_of
from perennial.stores.staging import ROW

_OLD, _NEW = "old_rows", "new_rows"
_HERE = f"{OURS}here"


def diff(table_uri: str, before: int, after: int, time: str | None) -> DataDiff:
    """How the rows of version ``after`` differ from those of ``before``.

    ``time`` names the event time, None without one. Rows are the same by the identity the table was
    made with. A column that only one version has counts as missing in the other's rows, one whose
    type changed is compared as text.

    Raises InputError for a version that is not there or can't be read.
    """
    old, new = at_version(table_uri, before), at_version(table_uri, after)
    was, is_ = lake.schema_of(old), lake.schema_of(new)
    columns = [*was.names, *(name for name in is_.names if name not in was.names)]
    columns = [name for name in columns if name != ROW]
    by = tuple(lake.about(newest(table_uri)).get("identity") or ())
    time = time if time in columns else None
    with engine.connect(engine.spill_place(table_uri)) as connection:
        _make_view(connection, _OLD, old, new, table_uri, columns)
        _make_view(connection, _NEW, new, old, table_uri, columns)
        found = (
            _by_identity(connection, columns, by, time)
            if by
            else _by_content(connection, columns, time)
        )
    added, removed, changed, first, last, *each = found
    rest = [name for name in columns if name not in by] if by else []
    differing = sorted(zip(rest, each, strict=True), key=lambda one: (-one[1], one[0]))
    return DataDiff(
        before=before,
        after=after,
        by=by,
        rows_before=rows_of(old),
        rows_after=rows_of(new),
        added=added,
        removed=removed,
        changed=changed,
        schema_changes=tuple(_schema_changes(was, is_, columns)),
        columns={name: count for name, count in differing if count},
        window=None
        if first is None
        else Window(first=engine.moment(first), last=engine.moment(last)),
    )


def _schema_changes(was: Any, is_: Any, columns: Sequence[str]) -> list[ColumnChange]:
    kinds = [
        (name, *(str(s.field(name).type) if name in s.names else None for s in (was, is_)))
        for name in columns
    ]
    return [
        ColumnChange(column=name, before=before, after=after)
        for name, before, after in kinds
        if before != after
    ]


def _make_view(
    connection: Any, name: str, table: Any, other: Any, uri: str, columns: Sequence[str]
) -> None:
    """A view of the rows in files that only ``table`` has, with the columns of both."""
    schema, others = lake.schema_of(table), lake.schema_of(other)

    def chosen(column: str) -> str:
        quoted = engine.name(column)
        if column not in schema.names:
            return f"NULL AS {quoted}"
        if column in others.names and others.field(column).type != schema.field(column).type:
            return f"{quoted}::VARCHAR AS {quoted}"
        return quoted

    own = lake.paths_of(table) - lake.paths_of(other)
    rows = lake.relation(connection, table, uri, only=own)
    text = ", ".join(chosen(column) for column in columns)
    connection.execute(f"CREATE TEMP VIEW {name} AS SELECT {text} FROM {rows}")


def _by_identity(
    connection: Any, columns: Sequence[str], by: Sequence[str], time: str | None
) -> tuple[Any, ...]:
    """Rows added, removed and changed, first and last event of them all (microseconds), and for
    each column beside the identity how many of the changed rows differ in it."""
    differs = [
        f"(o.{engine.name(c)} IS DISTINCT FROM n.{engine.name(c)})" for c in columns if c not in by
    ]
    at = f"coalesce(n.{engine.name(time)}, o.{engine.name(time)})" if time else None
    both = f"o.{_HERE} AND n.{_HERE}"
    figures = [
        f"count(*) FILTER (o.{_HERE} IS NULL)",
        f"count(*) FILTER (n.{_HERE} IS NULL)",
        f"count(*) FILTER ({both})",
        *(engine.micros(f"{end}({at})") if at else "NULL" for end in ("min", "max")),
        *(f"count(*) FILTER ({both} AND {one})" for one in differs),
    ]
    changed = " OR ".join(differs) or "false"
    return engine.one(
        connection,
        f"SELECT {', '.join(figures)} FROM (SELECT *, true AS {_HERE} FROM {_OLD}) o "
        f"FULL JOIN (SELECT *, true AS {_HERE} FROM {_NEW}) n ON {engine.same(by, 'o', 'n')} "
        f"WHERE o.{_HERE} IS NULL OR n.{_HERE} IS NULL OR {changed}",
    )


def _by_content(connection: Any, columns: Sequence[str], time: str | None) -> tuple[Any, ...]:
    """As ``_by_identity``, where a row is all it holds, as often as it is there."""
    names = engine.names(columns)
    for name, one, other in (("plus", _NEW, _OLD), ("minus", _OLD, _NEW)):
        connection.execute(
            f"CREATE TEMP TABLE {name} AS SELECT {names} FROM {one} "
            f"EXCEPT ALL SELECT {names} FROM {other}"
        )
    at = engine.name(time) if time else None
    ends = [engine.micros(f"{end}({at})") if at else "max(NULL)" for end in ("min", "max")]
    return engine.one(
        connection,
        "SELECT (SELECT count(*) FROM plus), (SELECT count(*) FROM minus), 0, "
        f"{', '.join(ends)} FROM (FROM plus UNION ALL FROM minus)",
    )
