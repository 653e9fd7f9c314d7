"""The reference of a version for drift, from what its bundle holds.

The bundle keeps a random sample of 10,000 training rows, as bundles always have. Their statistics
take some 20 ms, so they are not kept beside it, where they could disagree. More rows would change
no verdict: the chance in a sample of this size is far below what matters (docs/adr/0017).
"""

from __future__ import annotations

import io
from collections.abc import Collection
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from perennial.bundle.outputs import output_columns
from perennial.bundle.read import Bundle
from perennial.contracts.drift import ReferenceStatistics
from perennial.data.drift.reference import combined, reference_statistics
from perennial.data.frames import table_columns
from perennial.spec.inputs import Column

_OUTPUTS = {
    "binary": {"_prediction": Column(type="float", min=0.0, max=1.0)},
    "regression": {"_prediction": Column(type="float")},
    "multiclass": {"_class": Column(type="category")},
}


def bundle_reference(
    bundle: Bundle,
    held_out: np.ndarray | None = None,
    leave_out: Collection[str] = (),
    window: timedelta | None = None,
) -> ReferenceStatistics:
    """Statistics of the version's inputs, without ``leave_out`` (what the log hashes or omits).

    ``window`` is the length of the windows to come: with it, the training time tells how far
    stretches of that length usually are from each other.

    ``held_out`` are the version's predictions for rows it was not trained on, (n,) or (n, classes);
    with them the predictions are compared too. Those for the sample itself won't do: a booster is
    surer of rows that it has seen.
    """
    table = pq.read_table(io.BytesIO(bundle.contents["reference.parquet"]))
    declared = table_columns(bundle.spec)
    names = [column.name for column in bundle.schema.inputs if column.name not in leave_out]
    columns, time = {name: declared[name] for name in names}, bundle.spec.source.event_time
    reference = reference_statistics(table, columns, time=time, window=window)
    if held_out is None or not len(held_out):
        return reference
    outputs = _OUTPUTS[bundle.objective]
    made = output_columns(bundle.schema.classes, np.asarray(held_out))
    predictions = pa.table({name: made[name] for name in outputs})
    return combined(reference, reference_statistics(predictions, outputs))
