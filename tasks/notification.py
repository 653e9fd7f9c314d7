"""What people see of a run: its name, and a summary artifact that says what came of it and why."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from perennial.contracts.refs import BundleRef, DatasetRef, ModelRef, StudyRef
from perennial.contracts.runs import Decision, EvaluationRef, RunSummary
from perennial.reports.summary import render_summary
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from tasks._running import RETRIES, stage_records

STAGES = (
    "stage", "validate", "publish", "split", "features", "tune", "train", "evaluate", "register",
)  # fmt: skip


def flow_run_name() -> str:
    """``flight-delay as of 2013-07-01 (drift)``."""
    parameters = flow_run.get_parameters()
    as_of = parameters.get("as_of")
    if isinstance(as_of, str):
        as_of = datetime.fromisoformat(as_of)
    moment = as_of or datetime.now(UTC)
    return f"{parameters['model']} as of {moment:%Y-%m-%d} ({parameters.get('reason', 'by hand')})"


@task(cache_policy=NO_CACHE, timeout_seconds=120, **RETRIES)
def summarise(
    model: ModelRef,
    dataset: DatasetRef,
    bundle: BundleRef,
    study: StudyRef,
    evaluation: EvaluationRef | None,
    decision: Decision,
    trigger: str,
) -> RunSummary:
    """The run in one value and one artifact: what was decided, why, and what each stage took."""
    summary = RunSummary(
        model=model.name,
        as_of=dataset.as_of,
        trigger=trigger,
        decision=decision,
        champion=Registry(Project.current().registry_url).champion(model.name),
        bundle_digest=bundle.digest,
        bundle_uri=bundle.uri,
        report_uri=evaluation.report.html_uri if evaluation else None,
        study=study.study,
        tracking_group=study.tracking_group,
        rows=dataset.rows,
        stages=stage_records(str(flow_run.get_id()), STAGES),
    )
    create_markdown_artifact(
        render_summary(summary), key=f"{model.name}-run", description=decision.reason
    )
    if summary.report_uri:
        create_link_artifact(
            f"file://{summary.report_uri}",
            link_text="evaluation report",
            key=f"{model.name}-report",
        )
    return summary
