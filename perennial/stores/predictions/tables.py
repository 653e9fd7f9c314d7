"""From segments to Delta tables, exactly once.

Every commit carries a transaction: who wrote, and the number of the last segment in it. A writer
asks the table how far it has come and writes on that same snapshot; of two that wrote the same,
Delta lets one commit, and the other asks again and finds its work done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from perennial.contracts.errors import IntegrityError, Problem, UnavailableError
from perennial.stores.predictions.columns import DATE, TIME_COLUMNS, Layout
from perennial.stores.predictions.segments import Kind, Segment
from perennial.stores.predictions.waiting import Waiting
from perennial.stores.storage.delta import delta_options, has_log
from perennial.stores.storage.faults import fault, of_storage, reason

_ATTEMPTS = 8
_BATCH_ROWS = 16_384
ROW_GROUP = 131_072
_CONFIGURATION = {
    "delta.checkpointInterval": "100",
    "delta.logRetentionDuration": "interval 7 days",
    "delta.deletedFileRetentionDuration": "interval 1 days",
}
# A remote store that does not answer must not hold up the other tables for long.
_IMPATIENT = {"timeout": "60s", "max_retries": "2", "retry_timeout": "30s"}
_REBUILD = "restore the table from a backup, or move its folder away: a new one is begun"


class Committed(NamedTuple):
    """What a call added to a table: 0 rows when it was there already. ``damaged`` are the paths of
    segments of which only a part could be read, also of those that were there already."""

    rows: int
    damaged: tuple[Path, ...] = ()


def open_log(uri: str) -> Any | None:
    """The table, as it is now; None when there is none. Raises IntegrityError when its log is
    damaged, and as ``storage.faults.fault`` when the store does not answer."""
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError

    try:
        try:
            return DeltaTable(uri, storage_options=_options(uri))
        except TableNotFoundError:
            if not has_log(uri):
                return None
            return DeltaTable(uri, storage_options=_options(uri))  # another writer just made it
    except (DeltaError, TableNotFoundError, ValueError) as error:
        what = f"the Delta log can't be read: {reason(error)}"
        raise IntegrityError(Problem(f"{uri}/_delta_log", what, _REBUILD)) from None
    except OSError as error:
        raise fault(error, uri) from None


def schema_of(table: Any) -> pa.Schema:
    return pa.schema(table.schema().to_arrow())


def commit_segments(waiting: Sequence[Waiting], uri: str) -> Committed:
    """Add the rows of sealed segments of one stream, in the order of their numbers, in one commit.

    May be called again, by several processes at once, and after a kill at any moment: no row gets
    in twice. What is damaged in a segment is left out and said. One segment at a time is in memory.
    Raises UnavailableError when the store does not answer or others keep being quicker; then
    nothing was committed.
    """
    session, kind = waiting[0].session, waiting[0].kind
    damaged: list[Path] = []

    def parts_after(done: int) -> Iterator[_Part]:
        damaged.clear()
        for one in waiting:
            try:
                segment = Segment(one.path)
            except FileNotFoundError:  # another process committed it, as this one's commit will see
                continue
            except IntegrityError:
                damaged.append(one.path)
                continue
            if segment.damaged_bytes:
                damaged.append(one.path)
            if one.number > done:  # or a kill came before anybody heard what is damaged in it
                yield _Part(segment.schemas(), partial(_tables_of, one.path))

    count = _commit(uri, kind, session, waiting[-1].number, parts_after)
    return Committed(count, tuple(damaged))


def commit_rows(
    uri: str, kind: Kind, writer: str, number: int, rows: Sequence[pa.Table]
) -> Committed:
    """Add rows as one commit, unless ``writer`` has already committed this number or a later one.

    ``writer`` is unique to a source of rows that are counted from 1. Raises as
    ``commit_segments``.
    """
    part = _Part([table.schema for table in rows], lambda: rows)
    return Committed(_commit(uri, kind, writer, number, lambda _: [part]))


class _Part(NamedTuple):
    """Tables that go into a commit together: their schemas, and how to read them."""

    schemas: list[pa.Schema]
    read: Callable[[], Iterable[pa.Table]]


def _tables_of(path: Path) -> Iterator[pa.Table]:
    return Segment(path).tables()


def _commit(
    uri: str,
    kind: Kind,
    writer: str,
    number: int,
    parts_after: Callable[[int], Iterable[_Part]],
) -> int:
    for _ in range(_ATTEMPTS):
        table = open_log(uri)
        done = 0 if table is None else table.transaction_version(writer) or 0
        parts = [part for part in parts_after(done) if part.schemas]
        if done >= number or not parts:
            return 0
        count = _append(uri, table, kind, writer, number, parts)
        if count is not None:
            return count
    raise UnavailableError(f"{uri}: other writers were quicker {_ATTEMPTS} times")


def _append(
    uri: str, table: Any | None, kind: Kind, writer: str, number: int, parts: list[_Part]
) -> int | None:
    """One attempt: the rows added; None when another writer was quicker."""
    from deltalake import CommitProperties, Transaction, WriterProperties, write_deltalake
    from deltalake.exceptions import CommitFailedError, DeltaError

    layout = Layout(pa.schema([]) if table is None else schema_of(table))
    places = [[layout.place(schema) for schema in part.schemas] for part in parts]
    schema = pa.schema([*layout.used.items(), (DATE, pa.date32())])
    count = 0

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal count
        for part, names in zip(parts, places, strict=True):
            for rows, own in zip(part.read(), names, strict=True):
                count += rows.num_rows
                yield from _placed(rows, own, schema, kind)

    try:
        write_deltalake(
            uri if table is None else table,
            pa.RecordBatchReader.from_batches(schema, batches()),
            mode="error" if table is None else "append",
            partition_by=[DATE] if table is None else None,
            configuration=_CONFIGURATION if table is None else None,
            schema_mode=None if table is None else "merge",
            storage_options=_options(uri),
            writer_properties=WriterProperties(compression="ZSTD", max_row_group_size=ROW_GROUP),
            # Not even one retry: Delta's own doesn't always look at the transaction again.
            commit_properties=CommitProperties(
                app_transactions=[Transaction(writer, number)], max_commit_retries=0
            ),
        )
    except CommitFailedError:
        return None
    except (DeltaError, OSError) as error:
        if table is None and open_log(uri) is not None:
            return None  # the table was made by another writer meanwhile
        if of_storage(error, uri):
            raise fault(error, uri) from None
        raise UnavailableError(f"{uri} can't be written: {reason(error)}") from None
    return count


def _placed(
    table: pa.Table, names: list[str], schema: pa.Schema, kind: Kind
) -> Iterator[pa.RecordBatch]:
    """Rows in the columns of the commit, a little at a time; missing columns are null."""
    for start in range(0, table.num_rows, _BATCH_ROWS):
        rows = table.slice(start, _BATCH_ROWS)
        columns = dict(zip(names, rows.columns, strict=True))
        columns[DATE] = pc.cast(rows[TIME_COLUMNS[kind]], pa.date32())
        arrays = [
            columns[field.name] if field.name in columns else pa.nulls(rows.num_rows, field.type)
            for field in schema
        ]
        yield from pa.Table.from_arrays(arrays, schema=schema).combine_chunks().to_batches()


def _options(uri: str) -> dict[str, str] | None:
    return delta_options(uri, **_IMPATIENT)
