"""The last word on a candidate: it takes the route, or the champion stays. Both are audited."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from perennial.contracts.events import Event
from perennial.contracts.refs import BundleRef, ModelRef, StudyRef
from perennial.contracts.runs import Decision, EvaluationRef, RouteRef
from perennial.contracts.verdicts import EvaluationReport, Outcome
from perennial.stores.project import Project
from perennial.stores.registry import Action, Registry, StaleRouteError
from tasks._events import bounded, emit
from tasks._running import RETRIES, measured
from tasks._tracking import tracker_of


@task(task_run_name="register {model.name}", cache_policy=NO_CACHE, timeout_seconds=300, **RETRIES)
def register(
    model: ModelRef,
    bundle: BundleRef,
    study: StudyRef,
    evaluation: EvaluationRef | None,
    route: RouteRef,
    reason: str,
) -> Decision | None:
    """Act on the judgement, once however often it runs.

    Passed: the bundle becomes a version and takes the route. Otherwise the champion stays, and the
    audit says why. None when the route changed since ``route`` was read: judge anew.
    """
    registry = Registry(Project.current().registry_url)
    now = datetime.now(UTC)
    actor = f"flow run {flow_run.get_name()}"
    with measured("register"):
        if evaluation is None:
            assert route.champion is not None
            why = f"the same data and settings make version {route.champion.version} again"
            return Decision(action="unchanged", version=route.champion, reason=why)

        report = EvaluationReport.model_validate_json(Path(evaluation.report.uri).read_text())
        evidence = report.judgement.model_dump(mode="json")
        cause = f"judged {bundle.digest} against {report.champion_digest or 'nobody'}"
        if evaluation.outcome is not Outcome.PASSED:
            action: Action = "kept champion" if route.champion else "refused"
            entry = registry.record(
                model.name, action, version=None, digest=bundle.digest, actor=actor,
                reason=evaluation.reason, evidence=evidence, cause=cause, now=now,
            )  # fmt: skip
            if entry.at == now:  # judged once before, it was told of then
                told = _told(model.name, evaluation, evidence, cause)
                emit(Event.CANDIDATE_REFUSED, model.name, {**told, "digest": bundle.digest})
            return Decision(action="kept", version=None, reason=evaluation.reason)

        version = registry.register(
            model.name, bundle, params=study.best_params, judgement=evidence, actor=actor,
            metrics={e.metric: e.value for e in report.estimates},
            links=_links(study, evaluation, reason), reason=evaluation.reason, now=now,
        )  # fmt: skip
        tracker_of(model).link_registration(study, version)
        try:
            registry.promote(
                model.name, version.version, expected_generation=route.generation, actor=actor,
                reason=evaluation.reason, evidence=evidence, cause=cause, now=now,
            )  # fmt: skip
        except StaleRouteError:
            return None
        told = _told(model.name, evaluation, evidence, cause)
        emit(Event.VERSION_REGISTERED, model.name, {**told, "version": version.version})
        return Decision(action="promoted", version=version, reason=evaluation.reason)


def _told(
    model: str, evaluation: EvaluationRef, evidence: dict[str, Any], cause: str
) -> dict[str, Any]:
    """What events say of a judgement."""
    return {
        "model": model,
        "reason": evaluation.reason,
        "window": None,
        "finding": None,
        "evidence": bounded(evidence),
        "report": evaluation.report.html_uri,
        "cause": cause,
    }


def _links(study: StudyRef, evaluation: EvaluationRef, reason: str) -> dict[str, str]:
    return {
        "prefect_flow_run": str(flow_run.get_id()),
        "prefect_flow_run_url": str(flow_run.ui_url or ""),
        "study": study.study,
        "wandb_group": study.tracking_group,
        "report": evaluation.report.html_uri,
        "trigger": reason,
    }
