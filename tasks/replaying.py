"""How versions did on the time after they were made."""

from __future__ import annotations

import time
from datetime import datetime

import pandas as pd
from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from perennial.bundle.predictor import Predictor
from perennial.contracts.errors import InputError, Problem
from perennial.contracts.refs import ModelRef, VersionRef
from perennial.contracts.runs import Claim, ReplayPeriod, ReplaySummary, RunSummary
from perennial.data.labels import encode_label
from perennial.data.splits import unlearned
from perennial.learning.metrics import scores
from perennial.reports.replay import render_replay
from perennial.spec import ModelSpec
from perennial.stores import tables
from perennial.stores.bundles import open_stored
from perennial.stores.project import Project
from tasks._definition import read_definition
from tasks._running import RETRIES, cores


@task(
    task_run_name="score {model.name} from {start:%Y-%m-%d}",
    cache_policy=NO_CACHE,
    timeout_seconds=600,
    **RETRIES,
)
def score_period(
    model: ModelRef,
    first: RunSummary,
    run: RunSummary,
    start: datetime,
    end: datetime,
    metric: str,
) -> ReplayPeriod:
    """The metric of the first version and of the one serving after ``run``, on labelled rows from
    ``start`` until ``end``, those excluded that versions of ``start`` may have learned from. Raises
    InputError when nobody served or no row is there."""
    spec = read_definition(model)
    if first.champion is None or run.champion is None:
        raise InputError(Problem(model.name, f"no version was accepted by {start:%Y-%m-%d}"))
    rows = _rows_between(spec, start, end)
    return ReplayPeriod(
        start=start,
        end=end,
        rows=len(rows),
        metric=metric,
        stale=_score(spec, first.champion, rows, metric),
        current=_score(spec, run.champion, rows, metric),
        current_version=run.champion.version,
        decision=run.decision,
        report_uri=run.report_uri,
    )


@task(task_run_name="conclude replay of {model.name}", cache_policy=NO_CACHE, timeout_seconds=60)
def conclude(model: ModelRef, periods: list[ReplayPeriod]) -> ReplaySummary:
    """The replay in one value and one artifact."""
    started = flow_run.get_scheduled_start_time()
    summary = ReplaySummary(
        model=model.name,
        periods=tuple(periods),
        seconds=round(time.time() - started.timestamp(), 1),
    )
    create_markdown_artifact(render_replay(summary), key=f"{model.name}-replay")
    return summary


def trained(run: RunSummary | Claim) -> RunSummary:
    """What a training of the past came to: it is on no record, so nothing can refuse it."""
    assert isinstance(run, RunSummary)
    return run


def _rows_between(spec: ModelSpec, start: datetime, end: datetime) -> pd.DataFrame:
    uri = Project.current().uri("tables", spec.name)
    window = {"start": unlearned(spec, start), "end": unlearned(spec, end)}
    dataset = tables.dataset(spec, uri, end).model_copy(update=window)
    frame = pd.concat(list(tables.scan(dataset, spec)), ignore_index=True)
    labelled = frame[frame[spec.label.column].notna()].reset_index(drop=True)
    if not len(labelled):
        where = f"{start:%Y-%m-%d} to {end:%Y-%m-%d}"
        raise InputError(Problem(spec.name, f"no labelled rows from {where}"))
    return labelled


def _score(spec: ModelSpec, version: VersionRef, rows: pd.DataFrame, metric: str) -> float:
    bundle = open_stored(version)
    predicted = Predictor(bundle, cores()).predict(rows).values
    label = encode_label(rows[spec.label.column], spec, bundle.schema.classes)
    return scores(spec.objective, label, predicted)[metric]
