"""Divide a dataset's rows into training, validation and test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from prefect import task

from perennial.contracts.refs import PARTS, DatasetRef, ModelRef, SplitRef
from perennial.data.splits import assign, split_columns
from perennial.stores import tables
from perennial.stores.folders import keep_folder, new_folder
from perennial.stores.project import Project
from tasks._caching import Stage
from tasks._definition import read_definition
from tasks._running import RETRIES, measured

_CACHE = Stage(name="split", sections=("split", "label", "source", "objective"))


@task(
    task_run_name="split {model.name}",
    cache_policy=_CACHE,
    result_serializer="json",
    timeout_seconds=3600,
    **RETRIES,
)
def split(model: ModelRef, dataset: DatasetRef) -> SplitRef:
    """Assign every row to a part; reads only the columns the split needs."""
    spec = read_definition(model)
    with measured("split") as counts:
        frame = pd.concat(list(tables.scan(dataset, spec, split_columns(spec))), ignore_index=True)
        parts = assign(frame, spec, dataset.as_of)
        with new_folder(Project.current().folder("splits", model.name)) as folder:
            np.save(folder / "parts.npy", parts)
            place, digest = keep_folder(folder)
        rows = {part: int((parts == number).sum()) for number, part in enumerate(PARTS)}
        counts.rows_in, counts.rows_out = len(parts), sum(rows.values())
    return SplitRef(
        uri=str(place), digest=digest, rows=rows, unused_rows=len(parts) - sum(rows.values())
    )


def read_parts(ref: SplitRef) -> np.ndarray:
    """The int8 a row that ``split`` wrote."""
    parts: np.ndarray = np.load(Path(ref.uri) / "parts.npy", allow_pickle=False)
    return parts
