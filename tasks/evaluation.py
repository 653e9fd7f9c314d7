"""Judge a candidate on the test part: measured, compared with the champion, probed as served."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from prefect import task
from prefect.artifacts import create_markdown_artifact

from perennial.bundle.outputs import aligned
from perennial.bundle.probe import check_serving
from perennial.bundle.read import Bundle
from perennial.contracts.errors import IntegrityError, PerennialError
from perennial.contracts.refs import BundleRef, FeaturesRef, ModelRef, ReportRef, VersionRef
from perennial.contracts.runs import EvaluationRef, RouteRef
from perennial.contracts.verdicts import EvaluationReport
from perennial.data.frames import canonical_frame, table_columns
from perennial.data.mean import weighted_mean
from perennial.decisions.gates import judge
from perennial.decisions.wording import shortened
from perennial.learning.evaluation import measure
from perennial.learning.holdout import Holdout
from perennial.reports.evaluation import render_html, render_markdown
from perennial.reports.markdown import code, plain
from perennial.spec import ModelSpec
from perennial.spec.values import some
from perennial.stores.bundles import open_stored
from perennial.stores.folders import keep_folder, new_folder
from perennial.stores.importance import feature_importance
from perennial.stores.matrices import read_matrix, read_schema
from perennial.stores.project import Project
from perennial.stores.promises import HOLDOUT
from perennial.stores.storage.publishing import publish
from tasks._caching import Stage
from tasks._definition import read_definition
from tasks._running import RETRIES, cores, measured

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
    model: ModelRef, bundle: BundleRef, features: FeaturesRef, route: RouteRef
) -> EvaluationRef:
    """Measure the candidate and the champion on the same rows, judge, and write the report.

    Beside it lies the holdout, which estimates of a version's performance learn from.
    """
    spec = read_definition(model)
    with measured("evaluate") as counts:
        report, holdout = _evaluate(spec, bundle, Path(features.uri), route.champion)
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
    spec: ModelSpec, bundle: BundleRef, place: Path, champion: VersionRef | None
) -> tuple[EvaluationReport, Holdout | None]:
    from perennial.bundle.predictor import Predictor

    x, y = read_matrix(place, "test")
    rows_file = place / "test.rows.parquet"
    rows = canonical_frame(pq.read_table(rows_file), table_columns(spec))
    opened = open_stored(bundle)
    schema = read_schema(place)
    expected = _trained_predictions(opened, x)
    beaten, unread = _champion_predictions(champion, rows, schema.classes)
    serving = check_serving(opened.path, rows_file, expected)
    found = measure(spec, np.asarray(y), expected, beaten, rows, seed=spec.split.seed)
    judgement = judge(
        spec.gates, found, serving=serving, has_champion=champion is not None, unread=unread
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


def _champion_predictions(
    champion: VersionRef | None, rows: pd.DataFrame, classes: tuple[str, ...] | None
) -> tuple[np.ndarray | None, str]:
    """What the champion, with its own feature code, says of the same raw rows; or why it can't
    read them (a column it needs is gone): the comparison is then missing, its gate inconclusive.

    Raises IntegrityError for a damaged champion.
    """
    from perennial.bundle.predictor import Predictor

    if champion is None:
        return None, ""
    bundle = open_stored(champion)
    unread = f"version {champion.version} can't read these rows"
    gone = [column.name for column in bundle.schema.inputs if column.name not in rows]
    if gone:
        fix = "keep it with feature: false until a version without it has taken over"
        names = some(map(shortened, gone), 5)
        return None, f"{unread}: model.yaml no longer has {names} ({fix})"
    try:
        values = Predictor(bundle, cores()).predict(rows).values
    except IntegrityError:
        raise
    except PerennialError as error:
        return None, f"{unread}: {error.message.splitlines()[0][:200]}"
    return aligned(values, bundle.schema.classes, classes), ""
