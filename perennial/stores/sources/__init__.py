"""Where rows come from: csv, parquet, delta and sql, looked at cheaply and read in batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from perennial.contracts.moments import as_utc
from perennial.contracts.refs import SourceRef
from perennial.spec import ModelSpec
from perennial.stores.sources import columnar, database, delimited
from perennial.stores.sources.batches import Batch, Piece, join, wanted_columns
from perennial.stores.sources.files import address, kind_of, locate

__all__ = ["Batch", "columns", "inspect", "kind_of", "read"]

_MICROSECOND = timedelta(microseconds=1)


def inspect(
    spec: ModelSpec,
    root: Path,
    watermark: datetime | None,
    as_of: datetime | None,
    full: bool = False,
) -> SourceRef:
    """Look at a source without reading it.

    The fingerprint is of the files' names, sizes and times of change (csv, parquet), the version
    (delta), or the number of rows and the first and last event time (sql). Reading starts at
    ``watermark - source.lateness``, at the beginning without a watermark or with ``full``, and
    includes the events of ``as_of`` itself (naive times are UTC). A source without event time has
    no window.

    Raises InputError when there is nothing at the source's URI, UnavailableError when it doesn't
    answer.
    """
    since = until = None
    if spec.source.event_time is not None:
        since = None if watermark is None or full else as_utc(watermark) - spec.source.lateness
        until = None if as_of is None else as_utc(as_of) + _MICROSECOND
    if spec.source.kind == "sql":
        uri, content = database.state(spec, root)
        uri = spec.source.uri if spec.source.uri.startswith("env:") else uri
        fingerprint = _digest(content)
    elif spec.source.kind == "delta":
        uri = address(spec.source.uri, root)
        fingerprint = columnar.delta_state(uri)
    else:
        uri = address(spec.source.uri, root)
        found = [(file.name, file.size, file.changed) for file in locate(spec.source, root).files]
        fingerprint = _digest(json.dumps(found))
    return SourceRef(
        kind=spec.source.kind, uri=uri, fingerprint=fingerprint, since=since, until=until
    )


def columns(spec: ModelSpec, root: Path, source: SourceRef) -> list[str]:
    """The columns of a source of files or a Delta table: of its first file, where it has several.

    Raises InputError for what can't be read at all.
    """
    match source.kind:
        case "csv":
            return delimited.columns(spec, locate(spec.source, root))
        case "parquet":
            return columnar.parquet_columns(locate(spec.source, root))
        case _:
            return columnar.delta_columns(source.uri, source.fingerprint)


def read(
    spec: ModelSpec, root: Path, source: SourceRef, wanted: Sequence[str] | None = None
) -> Iterator[Batch]:
    """The rows of a source in bounded batches, in the order of the source, with the declared
    columns, the label and the event time, or with the ``wanted`` columns (of files and Delta
    tables only).

    Rows outside the source's window are left out where that saves reading; others come along.
    Raises InputError for what can't be read at all: see the readers of each kind.
    """
    return join(_pieces(spec, root, source, wanted or wanted_columns(spec)))


def _pieces(
    spec: ModelSpec, root: Path, source: SourceRef, wanted: Sequence[str]
) -> Iterator[Piece]:
    window = source.since, source.until
    match source.kind:
        case "csv":
            return delimited.read(spec, locate(spec.source, root), wanted)
        case "parquet":
            return columnar.read_parquet(spec, locate(spec.source, root), wanted, window)
        case "delta":
            return columnar.read_delta(spec, source.uri, source.fingerprint, wanted, window)
        case _:
            return database.read(spec, root, *window)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
