"""The drift watch as it runs: a real Prefect server, a version trained by the flow, a real log."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from perennial.bundle.predictor import Predictor
from perennial.bundle.read import open_bundle
from perennial.data.frames import to_arrow
from perennial.stores.predictions.columns import TIMESTAMP
from perennial.stores.predictions.tables import commit_rows
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from tests.logged import label_rows, prediction_rows
from tests.workplace import Workplace, demand_rows

_commits = count(1)
_DAY = timedelta(days=1)
START = datetime(2024, 4, 1, tzinfo=UTC)


def serve(
    project: Workplace,
    start: datetime,
    *,
    labelled: bool = True,
    turned: bool = False,
    **changes: Any,
) -> str:
    """Three weeks of requests that version 1 answers, logged as they came, and their labels two
    days later. Returns where the window ends."""
    rows = demand_rows(f"{start:%Y-%m-%d}", 21, seed=start.toordinal())
    busy = rows.pop("busy")
    for name, change in changes.items():
        rows[name] = change(rows[name])
    ref = Registry(Project(project.root).registry_url).version("demand", 1).ref
    predictor = Predictor(open_bundle(Path(ref.uri), ref.digest))
    frame = predictor.frame(rows)
    values = predictor.predict_frame(frame).values
    ids = [f"{start:%m%d}-{i}" for i in range(len(rows))]
    logged = to_arrow(frame, predictor.columns)
    inputs = dict(zip(logged.schema.names, logged.columns, strict=True))
    batch = prediction_rows(ids, inputs)
    times = pa.array(pd.to_datetime(rows["at"]), TIMESTAMP)
    batch = batch.set_column(2, "_time", times).append_column("at", times)
    batch = batch.set_column(6, "_prediction", pa.array(values.astype(np.float64)))
    commit(project, "predictions", batch)
    end = (start + 21 * _DAY).isoformat()
    if not labelled:
        return end
    labels = label_rows(ids, "0")
    true = (1 - busy if turned else busy).astype(str)
    labels = labels.set_column(0, "_received_at", pa.array(pd.to_datetime(rows["at"]) + 2 * _DAY))
    commit(project, "labels", labels.set_column(2, "label", pa.array(true, pa.string())))
    return end


def commit(project: Workplace, kind: Any, batch: pa.RecordBatch) -> None:
    uri = str(Project(project.root).folder(kind, "demand"))
    commit_rows(uri, kind, f"writer-{next(_commits)}", 1, [pa.table(batch)])


def looks(project: Workplace, *ends: str | None) -> list[dict[str, Any]]:
    """Runs of the flow, one after another in one process."""
    code = (
        "import json, sys; from flows.drift_watch import drift_watch\n"
        "for end in json.loads(sys.argv[1]): print(drift_watch('demand', end).model_dump_json())"
    )
    printed = project.python("-c", code, json.dumps(ends))
    return [json.loads(line) for line in printed.splitlines() if line.startswith("{")]


def snapshots(project: Workplace) -> list[str]:
    places = (project.root / ".perennial" / "evidently").glob("*/snapshots/*.json")
    return sorted(place.name for place in places)


def test_a_version_is_watched_from_its_first_day_to_the_day_the_world_turns(
    flow_project: Workplace,
) -> None:
    project = flow_project
    project.edit("retrain:", "drift: {window: 21d}\nretrain:")
    [nobody] = looks(project, None)
    assert nobody["finding"] == "inconclusive"
    assert nobody["reason"] == "no version of demand serves"
    project.run()

    ends = [
        serve(project, START),
        serve(project, START + 30 * _DAY, labelled=False, temperature=lambda t: 13.3 + t / 10),
        serve(project, START + 60 * _DAY, temperature=lambda t: t * np.nan),
        serve(project, START + 90 * _DAY, turned=True),
    ]
    usual, drifted, broken, turned = looks(project, *ends)
    assert usual["finding"] == "none", usual["reason"]
    assert usual["version"]["version"] == 1
    assert usual["rows"] == 840
    assert usual["estimated"] is not None  # the evaluation has kept its holdout

    assert drifted["finding"] == "harmful drift", drifted["reason"]
    assert drifted["trigger"]["kind"] == "drift"
    assert "temperature" in drifted["trigger"]["evidence"]["columns"]

    assert broken["finding"] == "data quality fault"
    assert broken["reason"].startswith("temperature: all of 840 values are missing")

    assert turned["finding"] == "concept drift", turned["reason"]
    assert turned["trigger"]["finding"] == "concept drift"
    before = snapshots(project)
    shown = project.cli("drift", "demand", "--end", ends[-1], "--json")
    assert shown.returncode == 0, shown.stderr
    again = json.loads(shown.stdout)
    assert again["trigger"]["evidence"] == turned["trigger"]["evidence"]
    assert again["trigger"]["data"] == turned["trigger"]["data"]
    assert snapshots(project) == before
    assert len(before) == 7  # columns of four windows, performance of three

    reports = turned["reports"]
    for page in (reports["html_uri"], *reports["evidently"].values()):
        assert Path(page).read_text().lstrip().lower().startswith("<!doctype html>"), page
        assert page.startswith(str(project.root / ".perennial" / "drift" / "demand"))
    for page in reports["evidently"].values():
        assert json.loads(Path(page).with_suffix(".json").read_text())["metrics"]
    kept = json.loads(Path(reports["json_uri"]).read_text())
    assert kept["finding"] == "concept drift"
    text = project.artifact("demand-drift")
    assert text.startswith("# ✗ demand@1: concept drift\n")
    assert "(data:image/svg+xml;base64," in text
    assert reports["html_uri"] in text


def test_what_is_asked_wrongly_is_told_before_anything_starts(project: Workplace) -> None:
    unknown = project.command("drift", "demnd")
    assert unknown.returncode == 2
    assert "no model 'demnd'; did you mean 'demand'?" in unknown.stderr
    when = project.command("drift", "demand", "--end", "yesterday")
    assert when.returncode == 2
    assert when.stderr.startswith("--end: 'yesterday' is not a time")
