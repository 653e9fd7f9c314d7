"""Evidently's view of a look: for people to browse, from a sample. The verdict is not its own.

Evidently takes 7 s to import, so nobody else does. It is told every column's role: one that it
infers to be "unknown" is left out without a word, and one without values ends the whole report.
"""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from perennial.bundle.read import Bundle
from perennial.contracts.features import ColumnType
from perennial.contracts.watching import Look
from perennial.learning.holdout import Holdout
from perennial.learning.realised import read_outputs
from perennial.stores.performance import SAMPLED_ROWS
from perennial.stores.watching import Seen

_NUMBERS: set[ColumnType] = {"float", "integer"}
_LEAST_ROWS = 2
_NAMES = uuid.UUID("2f0f6b3c-0e0a-5b7e-9a35-6f1f5b9f1f11")
"""Of which projects' and reports' ids are made, so that the same look is the same report."""


def draw(seen: Seen, folder: Path, workspace: Path) -> dict[str, str]:
    """Write the pages that the rows allow into the folder, ``evidently-<what>.html`` with its JSON
    beside it, and put them into the workspace, in the model's project; the same look takes the
    place of its former self. Returns the names of the pages by what they show: ``drift`` (columns
    and predictions, and what they hold), ``performance`` (of rows with labels)."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    pages = {}
    with warnings.catch_warnings():
        # A column of one value has no variance, a new category no expected count: what Evidently's
        # libraries say of that tells nobody anything.
        warnings.simplefilter("ignore")
        for what, snapshot in _snapshots(seen):
            page = folder / f"evidently-{what}.html"
            html = inert(snapshot.get_html_str(as_iframe=False))
            page.write_text(html, encoding="utf-8")
            snapshot.save_json(str(page.with_suffix(".json")))
            _keep(snapshot, seen, what, workspace)
            pages[what] = page.name
    return pages


def inert(html: str) -> str:
    """Evidently's page, whose data can't leave their place: it writes them as JSON into a script,
    with names and values as they are, so that one with ``</script>`` in it (a category that
    somebody sent in a request) would be read as markup, and run. JSON has no line break and, out of
    texts, no ``<``. Raises ValueError for a page that is made otherwise."""
    begin = html.index("<script>\n    var ") + len("<script>")
    end = html.index("\n</script>\n", begin)
    return html[:begin] + html[begin:end].replace("<", "\\u003c") + html[end:]


def _snapshots(seen: Seen) -> Iterator[tuple[str, Any]]:
    from evidently import Report
    from evidently.presets import (
        ClassificationPreset,
        DataDriftPreset,
        DataSummaryPreset,
        RegressionPreset,
    )

    bundle, look = seen.bundle, seen.look
    if bundle is None:
        return
    about = {
        "timestamp": look.window[1].astimezone(UTC).replace(tzinfo=None),
        "metadata": _metadata(look),
    }
    if seen.rows is not None and seen.rows.num_rows >= _LEAST_ROWS:
        reference, current, roles = _tables(bundle, seen)
        columns = [*roles["numerical_columns"], *roles["categorical_columns"]]
        if columns:
            share = look.drift.max_drifted_share if look.drift else 0.5
            presets = [
                DataDriftPreset(columns=columns, drift_share=share),
                DataSummaryPreset(columns=columns),
            ]
            run = Report(presets).run(
                _dataset(current, roles), _dataset(reference, roles),
                name=_name(look, "drift"), tags=["drift", str(look.finding)], **about,
            )  # fmt: skip
            yield "drift", run
    if seen.labelled is not None and seen.labelled.num_rows >= _LEAST_ROWS:
        rows = seen.labelled.to_batches()
        outputs = read_outputs(rows, bundle.objective, bundle.schema.classes)
        if len(np.unique(outputs.y)) < _LEAST_ROWS:
            return
        now, roles = _outcomes(bundle, outputs.y, outputs.p)
        held = seen.promise.holdout if seen.promise else None
        before = None if held is None else _dataset(_outcomes(bundle, held.y, held.p)[0], roles)
        regression = bundle.objective == "regression"
        preset = RegressionPreset() if regression else ClassificationPreset()
        run = Report([preset]).run(
            _dataset(now, roles), before,
            name=_name(look, "performance"), tags=["performance", str(look.finding)], **about,
        )  # fmt: skip
        yield "performance", run


def _dataset(frame: pd.DataFrame, roles: dict[str, Any]) -> Any:
    from evidently import DataDefinition, Dataset

    return Dataset.from_pandas(frame, data_definition=DataDefinition(**roles))


def _tables(bundle: Bundle, seen: Seen) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Reference, window, and the columns' roles: those that have values in both.

    The reference's predictions are those of the holdout, beside inputs of other rows: Evidently
    compares each column by itself.
    """
    assert seen.rows is not None
    before = _reference(bundle).to_pandas()
    after = seen.rows.to_pandas()
    types = {c.name: c.type for c in bundle.schema.inputs if c.name in seen.columns}
    for name in ("_prediction", "_class"):
        if name in seen.columns and seen.promise is not None and seen.promise.holdout is not None:
            types[name] = "category" if name == "_class" else "float"
            held_out = _predicted(bundle, seen.promise.holdout)
            count = min(len(before), len(held_out))
            before = before.head(count).reset_index(drop=True)
            before[name] = held_out[:count]
    kept: dict[str, list[str]] = {"numerical_columns": [], "categorical_columns": []}
    frames: tuple[dict[str, pd.Series], dict[str, pd.Series]] = {}, {}
    for name, kind in types.items():
        if kind == "datetime" or name not in after or name not in before:
            continue
        number = kind in _NUMBERS
        pair = [_column(frame[name], number) for frame in (before, after)]
        if any(column is None or not column.notna().any() for column in pair):
            continue
        kept["numerical_columns" if number else "categorical_columns"].append(name)
        for frame, column in zip(frames, pair, strict=True):
            assert column is not None
            frame[name] = column
    return pd.DataFrame(frames[0]), pd.DataFrame(frames[1]), kept


def _column(values: pd.Series, number: bool) -> pd.Series | None:
    """Plain floats, or text; None for what is neither."""
    if number:
        try:
            return pd.to_numeric(values).astype(np.float64).replace([np.inf, -np.inf], np.nan)
        except (TypeError, ValueError):
            return None
    return values.astype(object).where(values.notna(), None).map(_text, na_action="ignore")


def _text(value: Any) -> str:
    """The same for true in a column with missing values, where it is 1.0, and in one without."""
    return str(float(value)) if isinstance(value, bool | float | np.bool_) else str(value)


def _reference(bundle: Bundle) -> pa.Table:
    import io

    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(bundle.contents["reference.parquet"]))
    return table.slice(0, SAMPLED_ROWS)


def _predicted(bundle: Bundle, holdout: Holdout) -> np.ndarray:
    if bundle.objective != "multiclass":
        return holdout.p
    names = np.asarray(bundle.schema.classes, object)
    return np.asarray(names[holdout.p.argmax(axis=1)])


def _outcomes(bundle: Bundle, y: np.ndarray, p: np.ndarray) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Labels and predictions as Evidently reads them, and their roles."""
    from evidently import BinaryClassification, MulticlassClassification, Regression

    classes = bundle.schema.classes
    if bundle.objective == "regression":
        frame = pd.DataFrame({"label": y, "prediction": p})
        roles: dict[str, Any] = {
            "regression": [Regression(target="label", prediction="prediction")],
            "numerical_columns": ["label", "prediction"],
        }
        return frame, roles
    assert classes is not None
    names = np.asarray(classes, object)
    if bundle.objective == "binary":
        frame = pd.DataFrame(
            {
                "label": names[y.astype(int)],
                "prediction": names[(p > 0.5).astype(int)],
                "probability": p,
            }
        )
        task = BinaryClassification(
            target="label", prediction_labels="prediction", prediction_probas="probability",
            pos_label=classes[1],
        )  # fmt: skip
        return frame, {
            "classification": [task],
            "categorical_columns": ["label", "prediction"],
            "numerical_columns": ["probability"],
        }
    frame = pd.DataFrame({"label": names[y.astype(int)], "prediction": names[p.argmax(axis=1)]})
    task = MulticlassClassification(target="label", prediction_labels="prediction")
    return frame, {"classification": [task], "categorical_columns": ["label", "prediction"]}


def _keep(snapshot: Any, seen: Seen, what: str, workspace: Path) -> None:
    """Into the model's project, which is made when it isn't there."""
    from evidently.sdk.models import ProjectModel
    from evidently.ui.workspace import Workspace

    look, place = seen.look, Workspace.create(str(workspace))
    project = uuid.uuid5(_NAMES, look.model)
    if place.get_project(project) is None:
        about = f"What the drift watch saw of {look.model}"
        place.add_project(ProjectModel(id=project, name=look.model, description=about))
        if seen.bundle is not None:  # once: what people make of it stays
            place.save_dashboard(project, _dashboard(seen.bundle))
    # Not add_run, which would give the same look a new id, and so a second report.
    report = uuid.uuid5(project, f"{look.trigger.cause} {what}")
    place.state.write_snapshot(project, report, snapshot.to_snapshot_model())


def _dashboard(bundle: Bundle) -> Any:
    """The history as lines, to begin with."""
    from evidently.sdk.models import DashboardModel, DashboardTabModel, PanelMetric
    from evidently.sdk.panels import line_plot_panel

    metric = "RMSE" if bundle.objective == "regression" else "Accuracy"
    shown = [
        ("Share of columns that Evidently marks", "DriftedColumnsCount", {"value_type": "share"}),
        (f"{metric} of the rows with labels", metric, {}),
    ]
    panels = [
        line_plot_panel(title, [PanelMetric(metric=name, legend=name, metric_labels=labels)])
        for title, name, labels in shown
    ]
    tab = DashboardTabModel(title="History", panels=[panel.id for panel in panels])
    return DashboardModel(tabs=[tab], panels=panels)


def _metadata(look: Look) -> dict[str, str]:
    return {
        "finding": str(look.finding),
        "reason": look.reason,
        "version": str(look.version.version if look.version else ""),
        "rows": str(look.rows),
        "window": "/".join(moment.isoformat() for moment in look.window),
        "cause": look.trigger.cause,
    }


def _name(look: Look, what: str) -> str:
    version = f"@{look.version.version}" if look.version else ""
    return f"{look.model}{version}, {what} until {look.window[1]:%Y-%m-%d %H:%M}: {look.finding}"
