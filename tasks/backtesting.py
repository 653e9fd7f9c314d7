"""Policies of retraining, tried on a model's past: settle what to walk through, walk, report."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from perennial.contracts.backtest import BacktestPlan, BacktestResult, BacktestSummary
from perennial.contracts.refs import ModelRef
from perennial.reports.backtest import headline, render_html, render_markdown
from perennial.reports.markdown import code, plain
from perennial.spec import ModelSpec
from perennial.stores.folders import keep_folder, new_folder
from perennial.stores.hindsight import Past, plan_backtest, read_past, walk_past
from perennial.stores.project import Project, feature_source
from perennial.stores.storage.publishing import publish
from tasks._caching import Stage
from tasks._definition import read_definition
from tasks._running import RETRIES, cores, measured

_CACHE = Stage(
    name="backtest",
    sections=tuple(
        key
        for key in ModelSpec.model_fields
        if key not in {"description", "quarantine", "rollout", "log"}
    ),
    feature_code=True,
    libraries=("xgboost", "numpy", "pandas", "apache-hamilton", "pyarrow", "optuna"),
)


@task(
    task_run_name="plan backtest of {model.name}",
    cache_policy=NO_CACHE,
    timeout_seconds=600,
    **RETRIES,
)
def plan_walk(
    model: ModelRef, start: datetime | None, end: datetime | None, every: str, metric: str | None
) -> BacktestPlan:
    """The dataset, the moments, and what candidates are trained with."""
    return plan_backtest(Project.current(), model.name, start, end, every, metric)


@task(
    task_run_name="walk {model.name}",
    cache_policy=_CACHE,
    result_serializer="json",
    timeout_seconds=24 * 3600,
    **RETRIES,
)
def walk_policies(model: ModelRef, plan: BacktestPlan) -> BacktestResult:
    """Walk every policy through the plan; they share their trainings."""
    spec = read_definition(model)
    with measured("backtest") as counts:
        past = Past(
            spec,
            feature_source(Path(model.directory)),
            read_past(spec, plan),
            plan.recipe,
            plan.moments[0],
            Project.current().folder("backtests", model.name),
            cores(),
        )
        result = walk_past(spec, plan, past, counts.progress)
        counts.rows_in = plan.rows
    return result


@task(
    task_run_name="report backtest of {model.name}",
    cache_policy=NO_CACHE,
    timeout_seconds=300,
    **RETRIES,
)
def report_walk(model: ModelRef, result: BacktestResult) -> BacktestSummary:
    """The backtest as a page with its pictures, as JSON, and as one artifact."""
    project = Project.current()
    with new_folder(project.working("reports", model.name)) as folder:
        (folder / "backtest.json").write_text(result.model_dump_json(indent=1), encoding="utf-8")
        (folder / "backtest.html").write_text(render_html(result), encoding="utf-8")
        kept, digest = keep_folder(folder)
    place = f"{project.uri('reports', model.name)}/{digest}"
    publish(kept, place, last="backtest.json")
    page = f"\nThe page: {code(f'{place}/backtest.html')}\n"
    create_markdown_artifact(
        render_markdown(result) + page,
        key=f"{model.name}-backtest",
        description=plain(headline(result)),
    )
    return BacktestSummary(
        result=result,
        report_uri=f"{place}/backtest.html",
        json_uri=f"{place}/backtest.json",
        seconds=round(time.time() - flow_run.get_scheduled_start_time().timestamp(), 1),
    )
