"""Judge a candidate on the test part: measured, compared with the champion, probed as served."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from prefect import task
from prefect.artifacts import create_markdown_artifact

from perennial.bundle.outputs import aligned
from perennial.bundle.probe import check_serving
from perennial.bundle.read import Bundle
from perennial.bundle.targets import alike, target_of
from perennial.contracts.errors import IntegrityError, PerennialError
from perennial.contracts.refs import (
    BundleRef,
    DatasetRef,
    FeaturesRef,
    ModelRef,
    ReportRef,
    SplitRef,
    VersionRef,
)
from perennial.contracts.runs import EvaluationRef, RouteRef
from perennial.contracts.verdicts import EvaluationReport
from perennial.data.frames import canonical_frame, same_values, table_columns
from perennial.data.mean import weighted_mean
from perennial.decisions.gates import judge
from perennial.decisions.wording import counted, shortened
from perennial.learning.evaluation import measure
from perennial.learning.holdout import Holdout
from perennial.reports.evaluation import render_html, render_markdown
from perennial.reports.markdown import code, plain
from perennial.spec import ModelSpec
from perennial.spec.values import some
from perennial.stores.bundles import open_stored
from perennial.stores.fitted import fitted_rows
from perennial.stores.folders import keep_folder, new_folder
from perennial.stores.importance import feature_importance
from perennial.stores.matrices import read_matrix
from perennial.stores.project import Project
from perennial.stores.promises import HOLDOUT
from perennial.stores.storage.publishing import publish
from tasks._caching import Stage
from tasks._definition import read_definition
from tasks._running import RETRIES, cores, measured
from tasks.splitting import read_parts

_ONCE = "leave this gate out of model.yaml until a version"
_CACHE = Stage(
    name="evaluate",
    sections=("objective", "gates", "label", "source", "columns", "split"),
    libraries=("xgboost", "numpy", "pandas"),
)


@task(
    task_run_name="evaluate {model.name}",
    cache_policy=_CACHE,
    result_serializer="json",
    timeout_seconds=7200,
    **RETRIES,
)
def evaluate(
    model: ModelRef,
    dataset: DatasetRef,
    parts: SplitRef,
    bundle: BundleRef,
    features: FeaturesRef,
    route: RouteRef,
) -> EvaluationRef:
    """Measure the candidate and the champion on the same rows, judge, and write the report.

    The two are compared on those that the champion was not fitted to.
    Beside it lies the holdout, which estimates of a version's performance learn from.
    """
    spec = read_definition(model)
    with measured("evaluate") as counts:
        matrix = Path(features.uri)
        report, holdout = _evaluate(spec, dataset, parts, bundle, matrix, route.champion)
        counts.rows_in = counts.rows_out = report.holdout_rows
        project = Project.current()
        with new_folder(project.working("reports", model.name)) as folder:
            (folder / "evaluation.json").write_text(report.model_dump_json(indent=1))
            (folder / "evaluation.html").write_text(render_html(report), encoding="utf-8")
            if holdout is not None:
                pq.write_table(holdout.to_table(), folder / HOLDOUT)
            kept, digest = keep_folder(folder)
        place = f"{project.uri('reports', model.name)}/{digest}"
        publish(kept, place, last="evaluation.json")
    page = f"\nThe page with its plots: {code(f'{place}/evaluation.html')}\n"
    create_markdown_artifact(
        render_markdown(report) + page,
        key=f"{model.name}-evaluation",
        description=plain(report.judgement.reason),
    )
    written = ReportRef(
        uri=f"{place}/evaluation.json", html_uri=f"{place}/evaluation.html", digest=digest
    )
    return EvaluationRef(
        report=written, outcome=report.judgement.outcome, reason=report.judgement.reason
    )


def _evaluate(
    spec: ModelSpec,
    dataset: DatasetRef,
    parts: SplitRef,
    bundle: BundleRef,
    place: Path,
    champion: VersionRef | None,
) -> tuple[EvaluationReport, Holdout | None]:
    from perennial.bundle.predictor import Predictor

    x, y = read_matrix(place, "test")
    rows_file = place / "test.rows.parquet"
    rows = canonical_frame(pq.read_table(rows_file), table_columns(spec))
    opened = open_stored(bundle)
    expected = _trained_predictions(opened, x)
    beaten, left_out = None, 0
    if champion is not None:
        beaten = _champion(champion, opened, spec, rows, dataset, read_parts(parts))
        left_out = int(beaten.fitted.sum())
    serving = check_serving(opened.path, rows_file, expected)
    found = measure(
        spec,
        np.asarray(y),
        expected,
        beaten.values if beaten else None,
        rows,
        seed=spec.split.seed,
        compared=~beaten.fitted if beaten else None,
    )
    judgement = judge(
        spec.gates,
        found,
        serving=serving,
        has_champion=champion is not None,
        unread=beaten.unread if beaten else "",
        left_out=f"the {counted(left_out)} that version {champion.version} was fitted to"
        if champion is not None and left_out
        else "",
    )
    times = rows[spec.source.event_time] if spec.source.event_time else None
    holdout = None
    if len(rows):
        holdout = Holdout.sample(
            spec.objective, np.asarray(y), expected, np.asarray(x), seed=spec.split.seed
        )
    report = EvaluationReport(
        model=spec.name,
        objective=spec.objective,
        bundle_digest=bundle.digest,
        champion=champion.version if champion else None,
        champion_digest=champion.digest if champion else None,
        holdout_rows=len(rows),
        left_out_rows=left_out,
        holdout_start=times.min().isoformat() if times is not None else None,
        holdout_end=times.max().isoformat() if times is not None else None,
        estimates=found.estimates,
        comparisons=found.comparisons,
        slices=found.slices,
        calibration=found.calibration,
        curves=found.curves,
        champion_curves=found.champion_curves,
        importance=feature_importance(opened),
        unseen_categories=Predictor(opened, cores()).predict(rows).unseen,
        serving=serving,
        judgement=judgement,
    )
    return report, holdout


def _trained_predictions(bundle: Bundle, x: np.ndarray) -> np.ndarray:
    """What the candidate says of the matrix that it was trained beside, without the code that
    serves."""
    from perennial.learning.training import load_booster, predict

    if bundle.weights is not None:
        return weighted_mean(x, bundle.weights, bundle.class_count)
    return predict(load_booster(bundle.booster), x, bundle.schema)


@dataclass(frozen=True)
class _Champion:
    """What a champion says of the test rows, and which of them it was ``fitted`` to (bool a row).
    Without ``values`` ``unread`` says why the two can't be compared."""

    values: np.ndarray | None
    fitted: np.ndarray
    unread: str = ""


def _champion(
    version: VersionRef,
    candidate: Bundle,
    spec: ModelSpec,
    rows: pd.DataFrame,
    dataset: DatasetRef,
    parts: np.ndarray,
) -> _Champion:
    """Raises IntegrityError for a damaged champion."""
    bundle = open_stored(version)
    values, unread = _predictions(version.version, bundle, candidate, spec, rows)
    if values is None:
        return _Champion(None, np.zeros(len(rows), dtype=bool), unread)
    fitted = fitted_rows(Project.current(), bundle, spec, rows, dataset, parts)
    return _Champion(values, fitted)


def _predictions(
    number: int, champion: Bundle, candidate: Bundle, spec: ModelSpec, rows: pd.DataFrame
) -> tuple[np.ndarray | None, str]:
    """What the champion, with its own feature code, says of the same raw rows; or why that can't be
    compared: it predicts something else, or can't read them (a column it needs is gone, or has
    other values now). Gates that ask for it are then inconclusive."""
    from perennial.bundle.predictor import Predictor

    then, now = target_of(champion), target_of(candidate)
    if not alike(then, now):
        what = f"version {number} predicts {then}, model.yaml now asks for {now}"
        return None, f"{what} ({_ONCE} of the new target has taken over, or train another model)"
    unread = f"version {number} can't read these rows"
    inputs = champion.schema.inputs
    gone = [column.name for column in inputs if column.name not in rows]
    if gone:
        fix = "keep it with feature: false until a version without it has taken over"
        names = some(map(shortened, gone), 5)
        return None, f"{unread}: model.yaml no longer has {names} ({fix})"
    columns = table_columns(spec)
    changed = [
        f"{shortened(column.name)} from {column.type} to {columns[column.name].type}"
        for column in inputs
        if not same_values(column, columns[column.name])
    ]
    if changed:
        what = f"model.yaml has changed {some(changed, 5)}"
        return None, f"{unread}: {what} ({_ONCE} that reads it so has taken over)"
    try:
        values = Predictor(champion, cores()).predict(rows).values
    except IntegrityError:
        raise
    except PerennialError as error:
        return None, f"{unread}: {error.message.splitlines()[0][:200]}"
    return aligned(values, then.classes, now.classes), ""
