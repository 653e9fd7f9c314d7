"""Rows of the prediction log, and spools with some in them, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from perennial.stores.predictions import Spool
from perennial.stores.predictions.columns import TIMESTAMP
from perennial.stores.predictions.segments import Kind
from perennial.stores.predictions.waiting import Waiting, waiting

NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)


def prediction_rows(
    ids: Sequence[str],
    inputs: Mapping[str, Any] | None = None,
    version: int = 1,
    time: datetime = NOON,
) -> pa.RecordBatch:
    """Rows as the server logs them: ``inputs`` are columns as Arrow arrays or lists."""
    count = len(ids)
    columns: dict[str, Any] = {
        "_id": pa.array(ids, pa.string()),
        "_request_id": pa.array([f"r-{id}" for id in ids], pa.string()),
        "_time": pa.array([time] * count, TIMESTAMP),
        "_version": pa.array([version] * count, pa.int64()),
        "_arm": pa.array(["champion"] * count, pa.string()),
        "_latency_ms": pa.array([0.5] * count, pa.float64()),
        "_prediction": pa.array([0.25] * count, pa.float64()),
        "_class": pa.nulls(count, pa.string()),
        "_probabilities": pa.nulls(count, pa.list_(pa.float64())),
    }
    arrays = [*columns.values(), *(pa.array(v) for v in (inputs or {}).values())]
    return pa.RecordBatch.from_arrays(arrays, names=[*columns, *(inputs or {})])


def label_rows(ids: Sequence[str], label: Any = 1.0, time: datetime = NOON) -> pa.RecordBatch:
    columns = {
        "_received_at": pa.array([time] * len(ids), TIMESTAMP),
        "_id": pa.array(ids, pa.string()),
        "label": pa.array([label] * len(ids)),
    }
    return pa.RecordBatch.from_pydict(columns)


def seal(
    spool: Path, *batches: pa.RecordBatch, shadow: Sequence[int] = (), kind: Kind = "predictions"
) -> list[Waiting]:
    """Append to a spool as a server of its own that then ends: a sealed segment for each batch.

    Returns all that waits of model ``m`` in the newest session.
    """
    before = {one.session for stream in waiting(spool) for one in stream}
    server = Spool(spool, seal_bytes=1)
    for batch in batches:
        server.append("m", kind, batch, {"shadow": list(shadow)})
    server.close()
    (stream,) = (stream for stream in waiting(spool) if stream[0].session not in before)
    return stream
