"""Where rows come from: csv, parquet, delta and sql, looked at cheaply and read in batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

from perennial.contracts.errors import InputError, Problem
from perennial.contracts.moments import AHEAD, as_utc
from perennial.contracts.refs import SourceRef
from perennial.spec import ModelSpec
from perennial.stores.sources import columnar, database, delimited, delta
from perennial.stores.sources.batches import Batch, Piece, join, wanted_columns
from perennial.stores.sources.files import SourceFile, address, is_tabbed, kind_of, locate, overlaps

__all__ = [
    "Batch",
    "address",
    "columns",
    "inspect",
    "is_tabbed",
    "kind_of",
    "overlaps",
    "read",
    "start",
]

_MICROSECOND = timedelta(microseconds=1)
_AT_ONCE = 16


def inspect(
    spec: ModelSpec,
    root: Path,
    watermark: datetime | None,
    as_of: datetime | None,
    full: bool = False,
) -> SourceRef:
    """Look at a source without reading it.

    The fingerprint is of the files' names, sizes and times of change (csv, parquet), the version
    (delta), or the numbers of rows and labels and the first and last event time (sql), which say
    nothing of another value in a row: what is the same by them must be read to be known. Reading
    starts at ``watermark - source.lateness - label.delay``, as a label is known ``label.delay``
    after its event and may then come as late as a row; at the beginning without a watermark or with
    ``full``. It includes the events of ``as_of`` itself (naive times are UTC). A source without
    event time has no window.

    Raises InputError when there is nothing at the source's URI or ``as_of`` lies in the future,
    UnavailableError when the source doesn't answer.
    """
    since = until = None
    if spec.source.event_time is not None:
        since = None if full else start(spec, watermark)
        if as_of is not None:
            until = _past(as_of) + _MICROSECOND
    if spec.source.kind == "sql":
        uri, content = database.state(spec, root)
        uri = spec.source.uri if spec.source.uri.startswith("env:") else uri
        fingerprint = _digest(content)
    elif spec.source.kind == "delta":
        uri = address(spec.source.uri, root)
        fingerprint = delta.delta_state(uri)
    else:
        uri = address(spec.source.uri, root)
        found = [(file.name, file.size, file.changed) for file in locate(spec.source, root).files]
        fingerprint = _digest(json.dumps(found))
    return SourceRef(
        kind=spec.source.kind, uri=uri, fingerprint=fingerprint, since=since, until=until
    )


def start(spec: ModelSpec, watermark: datetime | None) -> datetime | None:
    """Where reading a source with event time starts; None: at its beginning."""
    if watermark is None:
        return None
    return as_utc(watermark) - spec.source.lateness - spec.label.delay


def _past(as_of: datetime) -> datetime:
    moment = as_utc(as_of)
    if moment > datetime.now(UTC) + AHEAD:
        fix = "leave it out to train with all that is known"
        raise InputError(Problem("as of", f"{moment.isoformat()} lies in the future", fix))
    return moment


def columns(spec: ModelSpec, root: Path, source: SourceRef) -> dict[str, list[str]]:
    """The columns of each file of a source of files, in the order these are read in, or of a Delta
    table, by the path of each.

    Raises InputError for what can't be read at all.
    """
    if source.kind == "delta":
        return {source.uri: delta.delta_columns(source.uri, source.fingerprint)}
    files = locate(spec.source, root)

    def of(file: SourceFile) -> list[str]:
        if source.kind == "csv":
            return delimited.columns(spec, files, file)
        return columnar.parquet_columns(files, file)

    with ThreadPoolExecutor(_AT_ONCE) as pool:  # in a bucket each waits for its answer
        paths = (file.path for file in files.files)
        return dict(zip(paths, pool.map(of, files.files), strict=True))


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
            return delta.read_delta(spec, source.uri, source.fingerprint, wanted, window)
        case _:
            return database.read(spec, root, *window)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
