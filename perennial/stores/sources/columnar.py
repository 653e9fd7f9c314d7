"""Parquet files: the wanted columns only, row groups outside the window left unread where their
statistics say so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from perennial.contracts.errors import InputError, Problem
from perennial.spec import ModelSpec
from perennial.stores.sources.batches import ROWS, Piece, absent_columns
from perennial.stores.sources.files import Files, SourceFile

_FORMAT = ds.ParquetFileFormat(  # else a UUID comes as 16 bytes that nothing tells from others
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(arrow_extensions_enabled=True)
)

Window = tuple[datetime | None, datetime | None]
"""From when on, and until when (exclusive); None: no bound."""


def read_parquet(
    spec: ModelSpec, files: Files, wanted: Sequence[str], window: Window
) -> Iterator[Piece]:
    """The rows of Parquet files in order. Raises InputError for a file that is no Parquet file,
    lacks wanted columns or holds lists or structs in them; UnavailableError when their store stops
    to answer."""
    for file in files.files:
        try:
            with files.reading():
                schema, fragment = _opened(files, file)
                yield from read_fragments(spec, schema, [fragment], file.path, wanted, window)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
            raise InputError(_unreadable(file.path, error)) from None


def parquet_columns(files: Files, file: SourceFile) -> list[str]:
    """The columns of one of the files. Raises InputError when it is no Parquet file."""
    try:
        with files.reading():
            return list(_opened(files, file)[0].names)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(_unreadable(file.path, error)) from None


def _opened(files: Files, file: SourceFile) -> tuple[Any, Any]:
    """A file's schema, and the file as a fragment. Folders of the source that are called
    ``column=value`` are columns that it hasn't itself; their values are text, as those of a CSV."""
    own = _FORMAT.inspect(file.path, files.system)
    folders = [part.partition("=")[0] for part in file.name.split("/")[:-1] if "=" in part]
    given = [(name, pa.string()) for name in dict.fromkeys(folders) if name not in own.names]
    if not given:
        return own, _FORMAT.make_fragment(file.path, files.system)
    values = ds.partitioning(pa.schema(given), flavor="hive").parse(file.name)
    fragment = _FORMAT.make_fragment(file.path, files.system, partition_expression=values)
    return pa.schema([*own, *pa.schema(given)]), fragment


def _unreadable(path: str, error: Exception) -> Problem:
    return Problem(path, f"not readable as Parquet: {str(error).splitlines()[0][:200]}")


def read_fragments(
    spec: ModelSpec,
    schema: Any,
    fragments: Sequence[Any],
    where: str,
    wanted: Sequence[str],
    window: Window,
    stored: Mapping[str, str] | None = None,
    kept: Mapping[str, Any] | None = None,
) -> Iterator[Piece]:
    """The rows of Parquet files of one schema, in order.

    ``stored`` are the columns with their names in the files (None: the same). ``kept`` says of some
    files, by their paths, which rows count (an array of booleans; those beyond its end do). Raises
    InputError when wanted columns are not there or hold lists or structs.
    """
    stored = stored or {name: name for name in schema.names}
    problems = absent_columns(spec, wanted, list(stored), where)
    problems += [
        Problem(f"{where}, column {name!r}", f"holds {kind}", "flatten it")
        for name in wanted
        if name in stored and _is_nested(kind := schema.field(stored[name]).type)
    ]
    if problems:
        raise InputError(problems)
    undeclared = tuple(name for name in stored if name not in wanted)
    columns = {name: ds.field(stored[name]) for name in wanted}
    inside = within(schema, stored.get(spec.source.event_time or ""), *window)
    for fragment in fragments:
        counts = [fragment.metadata.row_group(i).num_rows for i in range(fragment.num_row_groups)]
        starts = np.cumsum([0, *counts])
        name = fragment.path.rpartition("/")[2]
        left = (kept or {}).get(fragment.path)
        for group in fragment.split_by_row_group(filter=inside, schema=schema):
            first = int(starts[group.row_groups[0].id])
            # Read ahead by one batch only: memory is bounded by the batch, not by the file.
            scanner = group.scanner(
                schema=schema, columns=columns, batch_size=ROWS, batch_readahead=1,
                fragment_readahead=1,
            )  # fmt: skip
            for batch in scanner.to_batches():
                rows = np.arange(first, first + batch.num_rows)
                first += batch.num_rows
                table = pa.Table.from_batches([batch])
                if left is not None:
                    stay = _stay(left, rows)
                    table, rows = table.filter(pa.array(stay)), rows[stay]
                yield Piece(table, name, rows + 1, undeclared=undeclared)


def _stay(left: Any, rows: np.ndarray) -> np.ndarray:
    """Which of some rows, numbered from 0 without a gap, are left."""
    stay = np.ones(len(rows), bool)
    if len(rows):
        told = left[rows[0] : rows[-1] + 1].to_numpy(zero_copy_only=False)
        stay[: len(told)] = told
    return stay


def _is_nested(kind: Any) -> bool:
    return bool(pa.types.is_nested(getattr(kind, "storage_type", kind)))


def is_moment(schema: Any, time: str | None) -> bool:
    """Whether a column is there and stored as a timestamp."""
    return time in schema.names and bool(pa.types.is_timestamp(schema.field(time).type))


def within(
    schema: Any, time: str | None, since: datetime | None, until: datetime | None
) -> Any | None:
    """What files and row groups may be left out by: None unless the event time ``is_moment``."""
    if not is_moment(schema, time):
        return None
    zone = schema.field(time).type.tz

    def moment(value: datetime) -> Any:
        naive = pa.scalar(value, pa.timestamp("us", "UTC")).cast(pa.timestamp("us", zone))
        return naive if zone else pa.scalar(value.replace(tzinfo=None), pa.timestamp("us"))

    bounds = [] if since is None else [ds.field(time) >= moment(since)]
    if until is not None:
        bounds.append(ds.field(time) < moment(until))
    if not bounds:
        return None
    # A missing event time is a fault to be told, not a reason to leave a row out.
    return (bounds[0] if len(bounds) == 1 else bounds[0] & bounds[1]) | ds.field(time).is_null()
