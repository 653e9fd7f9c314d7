"""What people see of a run: its name, and a summary artifact that says what came of it and why."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

from prefect import Flow, State, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.runtime import flow_run
from prefect.states import Completed

from perennial.contracts.refs import BundleRef, DatasetRef, ModelRef, StudyRef, ValidationRef
from perennial.contracts.runs import Claim, Decision, EvaluationRef, RunSummary
from perennial.reports.markdown import plain
from perennial.reports.summary import headline, render_summary
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
    return f"{parameters['model']} as of {moment:%Y-%m-%d} ({_short_reason(parameters)})"


def tag_run(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001
    """Tag a run with its model and why it was started, when it starts (a flow's ``on_running``).

    Tags of ``prefect.tags`` would be on every task too, and a task with tags asks the server for a
    concurrency slot before and after: 20 more calls a run, and seconds where a connection has
    timed out during a long stage.
    """
    tags = [f"model:{flow_run.parameters['model']}"]
    if reason := _short_reason(flow_run.parameters, ""):
        tags.append(f"reason:{reason}")
    _add_tags(flow_run.id, *tags)


def _short_reason(parameters: Mapping[str, Any], otherwise: str = "by hand") -> str:
    """Why a run was started, in a word or two: of a trigger its kind, as its reason is a sentence.
    The trigger is as it came (JSON) or as the flow takes it."""
    trigger = parameters.get("trigger")
    if trigger:
        kind = trigger["kind"] if isinstance(trigger, dict) else trigger.kind
        return str(kind)
    return parameters.get("reason") or otherwise


def _add_tags(run: UUID, *tags: str) -> None:
    with get_client(sync_client=True) as client:
        present = client.read_flow_run(run).tags
        client.update_flow_run(run, tags=sorted({*present, *tags}))


@task(task_run_name="summarise {model.name}", cache_policy=NO_CACHE, timeout_seconds=120, **RETRIES)
def summarise(
    model: ModelRef,
    audit: ValidationRef,
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
        warnings=audit.warnings,
    )
    create_markdown_artifact(
        render_summary(summary),
        key=f"{model.name}-run",
        description=plain(f"{headline(summary)}: {decision.reason}"),
    )
    return summary


def completed(summary: RunSummary) -> RunSummary:
    """End the flow in a state whose message says what came of it, and tag the run with the decision
    (``decision:kept``), so that a refusal shows, and can be filtered for, among all runs.

    The state's name stays Completed: automations that watch for dead runs wait for that event.
    A flow that returns a state hands its callers the state's data, as if that were returned.
    """
    _add_tags(UUID(str(flow_run.get_id())), f"decision:{summary.decision.action}")
    message = f"{headline(summary)}: {summary.decision.reason}"
    return cast("RunSummary", Completed(message=message, data=summary))


def declined(claim: Claim) -> Claim:
    """End the flow at once in a state whose message says why nothing was trained, and tag the run
    ``decision:declined``. Completed, as ``completed``: nothing went wrong."""
    _add_tags(UUID(str(flow_run.get_id())), "decision:declined")
    return cast("Claim", Completed(message=f"not trained, {claim.refused}", data=claim))
