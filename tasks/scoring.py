"""Score a source's rows by one version and put the predictions in a table: look, score, publish."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from perennial.contracts.refs import SourceRef, StagedRef, VersionRef
from perennial.contracts.scoring import ScoresRef, ScoringJob, ScoringSummary
from perennial.reports.markdown import plain
from perennial.reports.scoring import headline, render_scoring
from perennial.stores import scored, scoring, staging
from perennial.stores.bundles import open_stored
from perennial.stores.project import Project
from tasks._caching import Stage
from tasks._running import RETRIES, cores, measured, stage_records

_LIBRARIES = ("xgboost", "numpy", "pandas", "apache-hamilton", "pyarrow")


@task(task_run_name="look at {source}", cache_policy=NO_CACHE, timeout_seconds=300, **RETRIES)
def inspect_scoring(
    model: str,
    source: str,
    output: str,
    version: int | None,
    columns: list[str] | Literal["all"] | None,
) -> ScoringJob:
    """What is to be scored by which version, and where it goes."""
    return scoring.plan(Project.current(), model, source, output, version, columns)


@task(task_run_name="look at {job.output}", cache_policy=NO_CACHE, timeout_seconds=300, **RETRIES)
def find_scores(job: ScoringJob) -> ScoresRef | None:
    """The job's predictions, when they are there already."""
    return scored.find(job)


@task(
    task_run_name="score by {version.model}@{version.version}",
    cache_policy=Stage(name="score", libraries=_LIBRARIES),
    result_serializer="json",
    timeout_seconds=24 * 3600,
    **RETRIES,
)
def score_rows(version: VersionRef, source: SourceRef, columns: tuple[str, ...]) -> StagedRef:
    """Score the source's rows into a folder of their own, in bounded memory."""
    project = Project.current()
    bundle = open_stored(version)
    folder = project.folder("scores", version.model)
    with measured("score") as counts:
        staged = scoring.score(
            bundle,
            version.version,
            project.root,
            source,
            columns,
            folder,
            cores(),
            lambda rows: counts.progress(rows, None, f"{rows:,} rows"),
        )
        counts.rows_in, counts.rows_out = staged.rows + staged.bad_rows, staged.rows
    return staged


@task(
    task_run_name="publish to {job.output}",
    cache_policy=NO_CACHE,
    timeout_seconds=4 * 3600,
    **RETRIES,
)
def publish_scores(job: ScoringJob, staged: StagedRef) -> ScoresRef:
    """Put the predictions in the place of what the output holds, in one commit."""
    with measured("publish") as counts:
        scores = scored.publish(job, staged)
        counts.rows_in, counts.rows_out = staged.rows + staged.bad_rows, staged.rows
        folder = Project.current().folder("scores", job.version.model)
        staging.prune(folder, keep=Path(staged.uri))
    return scores


@task(
    task_run_name="summarise {job.version.model}",
    cache_policy=NO_CACHE,
    timeout_seconds=120,
    **RETRIES,
)
def summarise_scores(job: ScoringJob, scores: ScoresRef) -> ScoringSummary:
    """The run in one value and one artifact."""
    summary = ScoringSummary(
        job=job,
        scores=scores,
        reason=headline(job, scores),
        stages=stage_records(str(flow_run.get_id()), ("score", "publish")),
    )
    create_markdown_artifact(
        render_scoring(summary),
        key=f"{job.version.model}-scoring",
        description=plain(summary.reason),
    )
    return summary
