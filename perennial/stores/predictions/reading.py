"""Reading the log back, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from perennial.contracts.errors import InputError, Problem
from perennial.spec.values import nearest
from perennial.stores.predictions.columns import DATE, TIME_COLUMNS
from perennial.stores.predictions.segments import Kind
from perennial.stores.predictions.tables import open_log, schema_of

_BATCH_ROWS = 65_536


def predictions(
    uri: str,
    start: datetime | None = None,
    end: datetime | None = None,
    columns: Sequence[str] | None = None,
) -> Iterator[pa.RecordBatch]:
    """The predictions made in ``start <= _time < end`` (UTC; None: without bound), in no order.

    Batches have at most 65,536 rows and all columns of the table, or those asked for. Nothing
    comes of a table that isn't there yet. Raises InputError for a column that the table doesn't
    have, IntegrityError when the table is damaged, UnavailableError when its store does not answer.
    """
    return _rows(uri, "predictions", start, end, columns)


def labels(
    uri: str,
    start: datetime | None = None,
    end: datetime | None = None,
    columns: Sequence[str] | None = None,
) -> Iterator[pa.RecordBatch]:
    """The labels received in ``start <= _received_at < end``; otherwise as ``predictions``."""
    return _rows(uri, "labels", start, end, columns)


def _rows(
    uri: str,
    kind: Kind,
    start: datetime | None,
    end: datetime | None,
    columns: Sequence[str] | None,
) -> Iterator[pa.RecordBatch]:
    table = open_log(uri)
    if table is None:
        return
    known = schema_of(table).names
    problems = [
        Problem(f"{uri}, column {name!r}", f"no such column{nearest(name, known)}")
        for name in columns or ()
        if name not in known
    ]
    if problems:
        raise InputError(problems)
    time, wanted = pc.field(TIME_COLUMNS[kind]), pc.scalar(True)
    if start is not None:
        wanted = wanted & (pc.field(DATE) >= start.astimezone(UTC).date()) & (time >= start)
    if end is not None:
        wanted = wanted & (pc.field(DATE) <= end.astimezone(UTC).date()) & (time < end)
    scanner = table.to_pyarrow_dataset().scanner(
        columns=list(columns) if columns is not None else known,
        filter=wanted,
        batch_size=_BATCH_ROWS,
        batch_readahead=1,
        fragment_readahead=1,
        use_threads=False,
    )
    yield from (batch for batch in scanner.to_batches() if batch.num_rows)
