"""A version's metrics on production rows whose labels have come."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from perennial.contracts.metrics import Objective
from perennial.contracts.performance import RealisedPerformance
from perennial.learning.evaluation import measure
from perennial.spec.schema import ModelSpec

MOST_ROWS = 200_000
"""Of more rows, this many are measured: more say hardly more, and take much longer."""


@dataclass(frozen=True)
class Outputs:
    """Predictions of a version as the log has them, and their labels where known.

    ``p`` float64 (n,) or (n, classes) and ``y`` float64 (n,), NaN without a label, as in
    ``perennial.learning.metrics``. ``unreadable`` rows are not among them.
    """

    y: np.ndarray
    p: np.ndarray
    unreadable: int

    @property
    def labelled(self) -> np.ndarray:
        """Which rows have a label, (n,) bool."""
        known: np.ndarray = ~np.isnan(self.y)
        return known

    def known(self, most: int, *, seed: int) -> Outputs:
        """The labelled rows; of more than ``most`` a random part, in their order."""
        rows = np.flatnonzero(self.labelled)
        if len(rows) > most:
            rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
        return Outputs(self.y[rows], self.p[rows], self.unreadable)


def read_outputs(
    batches: Iterable[pa.RecordBatch], objective: Objective, classes: tuple[str, ...] | None
) -> Outputs:
    """The predictions of one version: columns ``_prediction`` and ``_probabilities`` of the log
    and, where they have it, ``_label``.

    ``classes`` are the version's (binary: negative, positive), None for a regression. A row is
    unreadable when its prediction is missing, not finite or of another number of classes, or its
    label is none of the classes or not finite. Holds 16 bytes a row, or 8 for each class and one.
    """
    several = objective == "multiclass"
    ys: list[np.ndarray] = []
    ps: list[np.ndarray] = [np.empty((0, len(classes or ())) if several else 0)]
    unreadable = 0
    for batch in batches:
        y, p, good = _read(batch, objective, classes)
        unreadable += int((~good).sum())
        ys.append(y[good])
        ps.append(p[good])
    return Outputs(np.concatenate([np.empty(0), *ys]), np.concatenate(ps), unreadable)


def readable(
    batches: Iterable[pa.RecordBatch], objective: Objective, classes: tuple[str, ...] | None
) -> np.ndarray:
    """Which of the rows ``read_outputs`` keeps, (n,) bool."""
    kept = [_read(batch, objective, classes)[2] for batch in batches]
    return np.concatenate([np.empty(0, bool), *kept])


def realise(spec: ModelSpec, version: int, outputs: Outputs, *, seed: int) -> RealisedPerformance:
    """The version's metrics on the labelled rows, with 95 % intervals, and its calibration.

    Give it rows that are due: labels that come early are often those of one class. Rests on a
    random 200,000 of more rows; nothing is estimated where there are none, or of one class what
    needs two. Deterministic by ``seed``.
    """
    known = outputs.known(MOST_ROWS, seed=seed)
    without_gates, no_slices = spec.model_copy(update={"gates": ()}), pd.DataFrame(index=known.y)
    found = measure(without_gates, known.y, known.p, None, no_slices, seed=seed)
    return RealisedPerformance(
        version=version,
        rows=int(outputs.labelled.sum()),
        unreadable=outputs.unreadable,
        estimates=found.estimates,
        calibration=found.calibration,
    )


def _read(
    batch: pa.RecordBatch, objective: Objective, classes: tuple[str, ...] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, predictions, and which rows have both in order or lack a label only."""
    if objective == "multiclass":
        p = _probabilities(batch, len(classes or ()))
        good = np.isfinite(p).all(axis=1)
    else:
        p = _numbers(batch, "_prediction")
        good = np.isfinite(p)
    y, strange = _labels(batch, classes)
    return y, p, good & ~strange


def _labels(
    batch: pa.RecordBatch, classes: tuple[str, ...] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Labels as numbers, NaN where there is none, and which rows have one that is no number or
    class."""
    if "_label" not in batch.schema.names:
        return np.full(batch.num_rows, np.nan), np.zeros(batch.num_rows, bool)
    given = _array(batch.column("_label").is_valid())
    if classes is None:
        y = _numbers(batch, "_label")
        return y, given & ~np.isfinite(y)
    places = pc.index_in(batch.column("_label"), pa.array(classes, pa.string()))
    y = _array(pc.cast(places, pa.float64())).astype(np.float64)
    y[~given] = np.nan
    return y, given & np.isnan(y)


def _numbers(batch: pa.RecordBatch, name: str) -> np.ndarray:
    """A column of numbers, NaN where missing."""
    return _array(pc.cast(batch.column(name), pa.float64())).astype(np.float64)


def _probabilities(batch: pa.RecordBatch, classes: int) -> np.ndarray:
    """(n, classes), NaN in rows that are missing or of another length."""
    column = batch.column("_probabilities")
    lengths = _array(pc.fill_null(pc.list_value_length(column), -1))
    found = np.full((batch.num_rows, classes), np.nan)
    fits = lengths == classes
    values = pc.list_flatten(column.filter(pa.array(fits)))
    found[fits] = _array(values).reshape(-1, classes)
    return found


def _array(values: Any) -> np.ndarray:
    array: np.ndarray = values.to_numpy(zero_copy_only=False)
    return array
