"""Parquet files and Delta tables: the wanted columns only, row groups outside the window left
unread where their statistics say so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from perennial.contracts.errors import InputError, IntegrityError, Problem
from perennial.spec import ModelSpec
from perennial.stores.sources.batches import ROWS, Piece, absent_columns
from perennial.stores.sources.files import Files
from perennial.stores.storage.delta import delta_options
from perennial.stores.storage.faults import fault
from perennial.stores.storage.places import is_remote

_FORMAT = ds.ParquetFileFormat(  # else a UUID comes as 16 bytes that nothing tells from others
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(arrow_extensions_enabled=True)
)

Window = tuple[datetime | None, datetime | None]
"""From when on, and until when (exclusive); None: no bound."""


def read_parquet(
    spec: ModelSpec, files: Files, wanted: Sequence[str], window: Window
) -> Iterator[Piece]:
    """The rows of Parquet files in order. Raises InputError for a file that is no Parquet file,
    lacks wanted columns or holds lists or structs in them."""
    for file in files.files:
        try:
            dataset = ds.dataset(file.path, format=_FORMAT, filesystem=files.system)
            fragments = list(dataset.get_fragments())
            yield from _read(spec, dataset.schema, fragments, file.path, wanted, window)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
            raise InputError(_unreadable(file.path, error)) from None


def parquet_columns(files: Files) -> list[str]:
    """The columns of the first file. Raises InputError when it is no Parquet file."""
    path = files.files[0].path
    try:
        return list(ds.dataset(path, format=_FORMAT, filesystem=files.system).schema.names)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(_unreadable(path, error)) from None


def _unreadable(path: str, error: Exception) -> Problem:
    return Problem(path, f"not readable as Parquet: {str(error).splitlines()[0][:200]}")


def delta_state(where: str) -> str:
    """The newest version of a Delta table, and which table it is: ``version 3 of <id>``.

    Raises InputError when there is none."""
    table = _delta(where, None)
    return f"version {table.version()} of {table.metadata().id}"


def delta_columns(where: str, state: str) -> list[str]:
    """The columns of a Delta table in a state. Raises InputError when there is none."""
    return list(_delta(where, int(state.split()[1])).to_pyarrow_dataset().schema.names)


def read_delta(
    spec: ModelSpec, where: str, state: str, wanted: Sequence[str], window: Window
) -> Iterator[Piece]:
    """The rows of a Delta table in a state (``delta_state``), older files first. Raises as
    ``read_parquet``."""
    version = int(state.split()[1])
    table = _delta(where, version)
    actions = pa.table(table.get_add_actions()).select(["path", "modification_time"])
    written = {row["path"]: row["modification_time"] for row in actions.to_pylist()}
    dataset = table.to_pyarrow_dataset()
    fragments = sorted(
        dataset.get_fragments(_window(dataset.schema, spec.source.event_time, *window)),
        key=lambda fragment: (written[fragment.path], fragment.path),
    )
    try:
        yield from _read(spec, dataset.schema, fragments, where, wanted, window)
    except (pa.ArrowInvalid, OSError) as error:
        what = f"version {version} is not readable: {str(error).splitlines()[0][:200]}"
        raise IntegrityError(Problem(where, what)) from None


def _delta(where: str, version: int | None) -> Any:
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError

    try:
        return DeltaTable(where, version=version, storage_options=delta_options(where))
    except TableNotFoundError:
        raise InputError(Problem(where, "no Delta table")) from None
    except (DeltaError, OSError) as error:
        if is_remote(where) and isinstance(error, OSError):
            raise fault(error, where) from None
        what = f"not readable as a Delta table: {str(error).splitlines()[0][:200]}"
        raise InputError(Problem(where, what)) from None


def _read(
    spec: ModelSpec,
    schema: Any,
    fragments: list[Any],
    where: str,
    wanted: Sequence[str],
    window: Window,
) -> Iterator[Piece]:
    problems = absent_columns(spec, wanted, schema.names, where)
    problems += [
        Problem(f"{where}, column {name!r}", f"holds {schema.field(name).type}", "flatten it")
        for name in wanted
        if name in schema.names and _is_nested(schema.field(name).type)
    ]
    if problems:
        raise InputError(problems)
    undeclared = tuple(name for name in schema.names if name not in wanted)
    inside = _window(schema, spec.source.event_time, *window)
    for fragment in fragments:
        counts = [fragment.metadata.row_group(i).num_rows for i in range(fragment.num_row_groups)]
        starts = np.cumsum([0, *counts])
        name = fragment.path.rpartition("/")[2]
        for group in fragment.split_by_row_group(filter=inside, schema=schema):
            first = int(starts[group.row_groups[0].id]) + 1
            # Read ahead by one batch only: memory is bounded by the batch, not by the file.
            scanner = group.scanner(
                schema=schema, columns=list(wanted), batch_size=ROWS, batch_readahead=1,
                fragment_readahead=1,
            )  # fmt: skip
            for batch in scanner.to_batches():
                rows = np.arange(first, first + batch.num_rows)
                first += batch.num_rows
                yield Piece(pa.Table.from_batches([batch]), name, rows, undeclared=undeclared)


def _is_nested(kind: Any) -> bool:
    return bool(pa.types.is_nested(getattr(kind, "storage_type", kind)))


def _window(
    schema: Any, time: str | None, since: datetime | None, until: datetime | None
) -> Any | None:
    """What row groups may be left out by: None unless the event time is stored as a timestamp."""
    if time not in schema.names or not pa.types.is_timestamp(schema.field(time).type):
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
