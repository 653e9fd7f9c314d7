"""Computed batches, and predictions that failed, as rows of the prediction log."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from perennial.bundle.outputs import output_columns
from perennial.data.frames import arrow_columns
from perennial.serving.batching import Batch, Job
from perennial.serving.models import Loaded

_TIME = pa.timestamp("us", "UTC")
_PROBABILITIES = pa.list_(pa.float64())


class LogRows:
    """The log's rows of one version. Its schema is made once: making it takes as long as filling
    it, for few rows."""

    def __init__(self, loaded: Loaded) -> None:
        self._version = loaded.number
        self._classes = loaded.schema.classes
        self._columns = loaded.predictor.columns
        self._schema: pa.Schema | None = None

    def of(self, batch: Batch) -> pa.RecordBatch:
        """One row a prediction: ids, time, version, arm, latency, outputs, then the inputs.

        Predictions that nobody waits for any more have none: their request was refused.
        """
        rows = len(batch.values)
        ids: list[str] = []
        request_ids: list[str] = []
        arms: list[str] = []
        latencies: list[float] = []
        for job in batch.jobs:
            ids += job.ids
            request_ids += [job.request.id] * job.count
            arms += [job.arm] * job.count
            latencies += [(batch.ended - job.request.received) * 1e3] * job.count
        known = {
            "_id": pa.array(ids, pa.string()),
            "_request_id": pa.array(request_ids, pa.string()),
            "_time": pa.repeat(pa.scalar(datetime.now(UTC), _TIME), rows),
            "_version": _repeated(self._version, rows),
            "_arm": pa.array(arms, pa.string()),
            "_latency_ms": pa.array(latencies, pa.float64()),
            "_compute_ms": pa.array([(batch.ended - batch.started) * 1e3] * rows, pa.float64()),
            **self._outputs(batch.values),
        }
        arrays = [*known.values(), *arrow_columns(batch.rows, self._columns)]
        if self._schema is None:
            names = [*known, *self._columns]
            self._schema = pa.RecordBatch.from_arrays(arrays, names=names).schema
        record = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        awaited = [not job.answer.cancelled() for job in batch.jobs]
        if all(awaited):
            return record
        return record.filter(pa.array(np.repeat(awaited, [job.count for job in batch.jobs])))

    def _outputs(self, values: np.ndarray) -> dict[str, Any]:
        if values.ndim > 1:
            return output_columns(self._classes, values)
        prediction = pa.array(values.astype(np.float64))
        return {"_prediction": prediction, **_no_classes(len(values))}


def failure_rows(job: Job, error: Exception, ended: float) -> pa.RecordBatch:
    """One row for each of the rows that a version failed on. Of the error its type only: its text
    may quote them. ``ended`` is ``perf_counter``."""
    rows = job.count
    columns = {
        "_id": pa.array(job.ids, pa.string()),
        "_request_id": pa.repeat(pa.scalar(job.request.id), rows),
        "_time": pa.repeat(pa.scalar(datetime.now(UTC), _TIME), rows),
        "_version": pa.repeat(pa.scalar(job.version, pa.int64()), rows),
        "_arm": pa.repeat(pa.scalar(job.arm), rows),
        "_error": pa.repeat(pa.scalar(type(error).__name__), rows),
        "_latency_ms": pa.repeat(pa.scalar((ended - job.request.received) * 1e3), rows),
    }
    return pa.RecordBatch.from_pydict(columns)


@lru_cache(maxsize=128)
def _repeated(version: int, rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(version, pa.int64()), rows)


@lru_cache(maxsize=128)
def _no_classes(rows: int) -> dict[str, Any]:
    return {"_class": pa.nulls(rows, pa.string()), "_probabilities": pa.nulls(rows, _PROBABILITIES)}
