"""Weeks of requests as a server logs them, and the drift watch's looks at them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from perennial.bundle.predictor import Predictor
from perennial.data.frames import to_arrow
from perennial.stores.bundles import open_stored
from perennial.stores.predictions.columns import TIMESTAMP
from perennial.stores.predictions.tables import commit_rows
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from tests.logged import label_rows, prediction_rows
from tests.workplace import Workplace, demand_rows

_commits = count(1)
DAY = timedelta(days=1)
START = datetime(2024, 4, 1, tzinfo=UTC)


def serve(
    project: Workplace,
    start: datetime,
    *,
    labelled: bool = True,
    turned: bool = False,
    seed: int | None = None,
    **changes: Any,
) -> str:
    """Three weeks of requests that version 1 answers, logged as they came, and their labels two
    days later, in the project's storage. Returns where the window ends."""
    rows = demand_rows(f"{start:%Y-%m-%d}", 21, seed=seed or start.toordinal())
    busy = rows.pop("busy")
    for name, change in changes.items():
        rows[name] = change(rows[name])
    place = Project(project.root)
    ref = Registry(place.registry_url).version("demand", 1).ref
    predictor = Predictor(open_stored(ref, place))
    frame = predictor.frame(rows)
    values = predictor.predict_frame(frame).values
    ids = [f"{start:%m%d}-{i}" for i in range(len(rows))]
    logged = to_arrow(frame, predictor.columns)
    inputs = dict(zip(logged.schema.names, logged.columns, strict=True))
    batch = prediction_rows(ids, inputs)
    times = pa.array(pd.to_datetime(rows["at"]), TIMESTAMP)
    batch = batch.set_column(2, "_time", times).append_column("at", times)
    batch = batch.set_column(6, "_prediction", pa.array(values.astype(np.float64)))
    _commit(place, "predictions", batch)
    end = (start + 21 * DAY).isoformat()
    if not labelled:
        return end
    labels = label_rows(ids, "0")
    true = (1 - busy if turned else busy).astype(str)
    labels = labels.set_column(0, "_received_at", pa.array(pd.to_datetime(rows["at"]) + 2 * DAY))
    _commit(place, "labels", labels.set_column(2, "label", pa.array(true, pa.string())))
    return end


def _commit(place: Project, kind: Any, batch: pa.RecordBatch) -> None:
    commit_rows(place.uri(kind, "demand"), kind, f"writer-{next(_commits)}", 1, [pa.table(batch)])


def looks(project: Workplace, *ends: str | None) -> list[dict[str, Any]]:
    """Runs of the flow, one after another in one process."""
    code = (
        "import json, sys; from flows.drift_watch import drift_watch\n"
        "for end in json.loads(sys.argv[1]): print(drift_watch('demand', end).model_dump_json())"
    )
    printed = project.python("-c", code, json.dumps(ends))
    return [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
