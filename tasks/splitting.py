"""Divide a dataset's rows into training, validation and test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from prefect import task

from perennial.contracts.refs import PARTS, DatasetRef, MemberRef, ModelRef, SplitRef
from perennial.data.overlap import drop_seen
from perennial.data.splits import assign, narrowed, split_columns
from perennial.spec import ModelSpec
from perennial.stores import tables
from perennial.stores.ensembles import clean_since, open_members
from perennial.stores.folders import keep_folder, new_folder
from perennial.stores.project import Project
from tasks._caching import Stage
from tasks._definition import read_definition
from tasks._running import RETRIES, measured

_CACHE = Stage(name="split", sections=("split", "label", "source", "objective", "ensemble"))


@task(
    task_run_name="split {model.name}",
    cache_policy=_CACHE,
    result_serializer="json",
    timeout_seconds=3600,
    **RETRIES,
)
def split(model: ModelRef, dataset: DatasetRef, members: tuple[MemberRef, ...] = ()) -> SplitRef:
    """Assign every row to a part, none of an ensemble's to one whose members may know it; reads
    only the columns the split needs."""
    spec = read_definition(model)
    with measured("split") as counts:
        by = dataset.rows_by
        read = tables.scan(dataset, spec, split_columns(spec, by))
        frame = pd.concat([narrowed(rows, spec, by) for rows in read], ignore_index=True)
        parts = assign(frame, spec, dataset.as_of, by)
        if members:
            parts = _unseen(parts, frame, spec, members)
        with new_folder(Project.current().folder("splits", model.name)) as folder:
            np.save(folder / "parts.npy", parts)
            place, digest = keep_folder(folder)
        rows = {part: int((parts == number).sum()) for number, part in enumerate(PARTS)}
        counts.rows_in, counts.rows_out = len(parts), sum(rows.values())
    return SplitRef(
        uri=str(place), digest=digest, rows=rows, unused_rows=len(parts) - sum(rows.values())
    )


def _unseen(
    parts: np.ndarray, frame: pd.DataFrame, spec: ModelSpec, members: tuple[MemberRef, ...]
) -> np.ndarray:
    assert spec.ensemble is not None
    since = clean_since(spec, open_members(members))
    if since is None:
        return parts
    assert spec.source.event_time is not None
    return drop_seen(parts, frame[spec.source.event_time], since, spec.ensemble.combine, spec)


def read_parts(ref: SplitRef) -> np.ndarray:
    """The int8 a row that ``split`` wrote."""
    parts: np.ndarray = np.load(Path(ref.uri) / "parts.npy", allow_pickle=False)
    return parts
