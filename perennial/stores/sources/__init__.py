"""Where rows come from: csv, parquet, delta and sql, looked at cheaply and read in batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from perennial.contracts.refs import SourceRef
from perennial.spec import ModelSpec
from perennial.stores.sources import columnar, database, delimited
from perennial.stores.sources.batches import Batch, Piece, join
from perennial.stores.sources.files import address, locate

__all__ = ["Batch", "inspect", "read"]

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
        since = None if watermark is None or full else _utc(watermark) - spec.source.lateness
        until = None if as_of is None else _utc(as_of) + _MICROSECOND
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


def read(spec: ModelSpec, root: Path, source: SourceRef) -> Iterator[Batch]:
    """The rows of a source in bounded batches, with the declared columns, the label and the event
    time, in the order of the source.

    Rows outside the source's window are left out where that saves reading; others come along.
    Raises InputError for what can't be read at all: see the readers of each kind.
    """
    return join(_pieces(spec, root, source))


def _pieces(spec: ModelSpec, root: Path, source: SourceRef) -> Iterator[Piece]:
    match source.kind:
        case "csv":
            return delimited.read(spec, locate(spec.source, root))
        case "parquet":
            files = locate(spec.source, root)
            return columnar.read_parquet(spec, files, source.since, source.until)
        case "delta":
            state = source.fingerprint
            return columnar.read_delta(spec, source.uri, state, source.since, source.until)
        case _:
            return database.read(spec, root, source.since, source.until)


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
