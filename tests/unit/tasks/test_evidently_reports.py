"""Evidently's view of a look: drawn for every objective, whatever the window holds."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perennial.stores.registry import Registry
from perennial.stores.watching import Seen, watch
from tasks._evidently import draw
from tests.watched import DAY, END, MODEL, Watched, make_watched, parcels


def seen(place: Watched) -> Seen:
    version = Registry(place.project.registry_url).version(MODEL, 1)
    window = (END - 7 * DAY, END)
    return watch(place.project, place.spec, version, window, now=END + 5 * DAY, threads=2)


def columns(page: Path) -> set[Any]:
    """The columns that a page's JSON has metrics of."""
    metrics = json.loads(page.with_suffix(".json").read_text())["metrics"]
    return {metric["config"].get("column") for metric in metrics} - {None}


@pytest.mark.parametrize("objective", ["binary", "multiclass", "regression"])
def test_columns_predictions_and_performance_are_drawn_and_kept_once_a_look(
    tmp_path: Path, objective: str
) -> None:
    place = make_watched(tmp_path / "project", objective)
    frame, ids = place.traffic(800)
    place.label(frame, ids)
    found, workspace = seen(place), tmp_path / "workspace"
    for name in ("first", "again"):
        (tmp_path / name).mkdir()
        pages = draw(found, tmp_path / name, workspace)
        assert set(pages) == {"drift", "performance"}
    predicted = "_class" if objective == "multiclass" else "_prediction"
    inputs = {"distance", "rain", "items", "express", "depot"}
    assert columns(tmp_path / "first" / pages["drift"]) == {*inputs, predicted}
    for page in pages.values():
        assert (tmp_path / "first" / page).stat().st_size > 100_000
    (project,) = workspace.glob("*/metadata.json")
    assert json.loads(project.read_text())["name"] == MODEL
    (dashboard,) = workspace.glob("*/dashboard.json")
    shown = {v["metric"] for p in json.loads(dashboard.read_text())["panels"] for v in p["values"]}
    measured = "RMSE" if objective == "regression" else "Accuracy"
    assert shown == {f"evidently:metric_v2:{m}" for m in ("DriftedColumnsCount", measured)}
    snapshots = [json.loads(p.read_text()) for p in workspace.glob("*/snapshots/*.json")]
    assert sorted(s["tags"] for s in snapshots) == [["drift", "none"], ["performance", "none"]]
    for snapshot in snapshots:
        assert snapshot["timestamp"].startswith("2026-05-15T00:00:00")
        assert snapshot["metadata"]["cause"] == found.look.trigger.cause


def test_a_column_without_values_or_of_another_type_is_left_out_of_the_drawing(
    tmp_path: Path,
) -> None:
    place = make_watched(tmp_path / "project")
    frame = parcels(END - 7 * DAY, 7, 500, 4).assign(
        rain=np.nan,
        items=3,
        distance=np.inf,
        depot=pd.Series([f"depot-{i}" for i in range(500)], dtype="str"),
    )
    place.log(frame, [f"{i}" for i in range(500)], np.full(500, 0.3))
    found = seen(place)
    assert found.look.finding == "data quality fault"
    pages = draw(found, tmp_path, tmp_path / "workspace")
    assert set(pages) == {"drift"}
    assert columns(tmp_path / pages["drift"]) == {"items", "express", "depot", "_prediction"}


def test_a_column_of_one_value_and_a_new_category_are_drawn_without_a_warning(
    tmp_path: Path,
) -> None:
    place = make_watched(tmp_path / "project")
    frame = parcels(END - 7 * DAY, 7, 500, 4).assign(
        rain=1.5, depot=pd.Series(["east"] * 500, dtype="str")
    )
    place.log(frame, [f"{i}" for i in range(500)], np.full(500, 0.3))
    found = seen(place)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert set(draw(found, tmp_path, tmp_path / "workspace")) == {"drift"}
    assert [str(each.message) for each in told] == []


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    place = make_watched(tmp_path / "project")
    assert draw(seen(place), tmp_path, tmp_path / "workspace") == {}
    place.traffic(1)
    assert draw(seen(place), tmp_path, tmp_path / "workspace") == {}
    frame, ids = place.traffic(300, seed=8)
    late = [["late"] * 300, frame["sent"] + 2 * DAY]
    place.put_labels(ids, *late)  # of one class: no performance to draw
    assert set(draw(seen(place), tmp_path, tmp_path / "workspace")) == {"drift"}


def test_what_somebody_asked_is_not_run_by_who_looks_at_the_page(tmp_path: Path) -> None:
    place = make_watched(tmp_path / "project")
    frame = parcels(END - 7 * DAY, 7, 300, 4)
    hostile = [f"</script><script>alert({i % 3})</script>" for i in range(300)]
    place.log(
        frame.assign(depot=pd.Series(hostile, dtype="str")),
        [f"{i}" for i in range(300)],
        np.full(300, 0.3),
    )
    page = tmp_path / draw(seen(place), tmp_path, tmp_path / "workspace")["drift"]

    text = page.read_text()
    assert "<script>alert" not in text
    assert r"\u003c/script>\u003cscript>alert(1)" in text
    begin = text.index(" = {") + 3
    data = json.JSONDecoder().raw_decode(text[begin:])[0]  # what the browser reads is what was
    assert "</script><script>alert(1)" in json.dumps(data)
