"""What becomes of a candidate: it takes the route or begins to earn it, or the champion stays. All
of that is audited."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from perennial.contracts.errors import IntegrityError, Problem
from perennial.contracts.events import BEGUN, ROLLOUT_LABEL, Event
from perennial.contracts.refs import BundleRef, ModelRef, StudyRef, VersionRef
from perennial.contracts.rollouts import Rollout
from perennial.contracts.runs import Decision, EvaluationRef, RouteRef
from perennial.contracts.verdicts import EvaluationReport, Outcome
from perennial.decisions.plans import plan_of
from perennial.stores.project import Project
from perennial.stores.registry import Action, Registry, StaleRouteError
from perennial.stores.storage.objects import read
from tasks._definition import read_definition
from tasks._events import emit, payload_of
from tasks._running import RETRIES, measured
from tasks._tracking import run_links, tracker_of

_AS_OF = "as_of"


@task(task_run_name="register {model.name}", cache_policy=NO_CACHE, timeout_seconds=300, **RETRIES)
def register(
    model: ModelRef,
    bundle: BundleRef,
    study: StudyRef,
    evaluation: EvaluationRef | None,
    route: RouteRef,
    as_of: datetime | None,
    reason: str,
) -> Decision | None:
    """Act on the judgement, once however often it runs.

    Passed: the bundle becomes a version, and its rollout begins. It takes the route at once where
    there is nothing to earn it by: the first version, model.yaml's rollout has no steps, or one
    version trained ``as_of`` the past follows another, a replay, which has no requests. Otherwise
    the champion stays, and the audit says why: also of a version that was tried beside this
    champion before, and isn't tried again by itself. None when the route changed since ``route``
    was read: judge anew.
    """
    registry = Registry(Project.current().registry_url)
    now = datetime.now(UTC)
    actor = f"flow run {flow_run.get_name()}"
    with measured("register"):
        if evaluation is None:
            assert route.champion is not None
            why = f"the same data and settings make version {route.champion.version} again"
            return Decision(action="unchanged", version=route.champion, reason=why)

        report = _report(evaluation)
        evidence = report.judgement.model_dump(mode="json")
        both = f"{bundle.digest} against {report.champion_digest or 'nobody'}"
        if evaluation.outcome is not Outcome.PASSED:
            cause = f"refused {both}"
            action: Action = "kept champion" if route.champion else "refused"
            entry = registry.record(
                model.name, action, version=None, digest=bundle.digest, actor=actor,
                reason=evaluation.reason, evidence=evidence, cause=cause, now=now,
            )  # fmt: skip
            if entry.at == now:  # judged once before, it was told of then
                told = payload_of(
                    model.name, evaluation.reason, cause, evidence=evidence,
                    report=evaluation.report.html_uri, digest=bundle.digest,
                )  # fmt: skip
                emit(Event.CANDIDATE_REFUSED, model.name, told)
            return Decision(action="kept", version=None, reason=evaluation.reason)

        spec = read_definition(model)
        mean = spec.ensemble is not None and spec.ensemble.combine == "mean"
        params = study.best_params if mean else spec.training.of_booster(study.best_params)
        version = registry.register(
            model.name, bundle, params=params, judgement=evidence, actor=actor,
            metrics={e.metric: e.value for e in report.estimates},
            links=_links(study, evaluation, as_of, reason), reason=evaluation.reason, now=now,
        )  # fmt: skip
        tracker_of(model).link_registration(study, version)
        plan = plan_of(spec.rollout)
        cause = f"judged {both}"
        told = payload_of(
            model.name, evaluation.reason, cause, evidence=evidence,
            report=evaluation.report.html_uri, version=version.version,
        )  # fmt: skip
        replay = as_of is not None and _of_the_past(registry, route.champion)
        rollout: Rollout | None = None
        try:
            if route.champion is None or replay or not plan.steps:
                registry.promote(
                    model.name, version.version, expected_generation=route.generation, actor=actor,
                    reason=evaluation.reason, evidence=evidence, cause=cause, now=now,
                )  # fmt: skip
            else:
                rollout = registry.rollouts.begin(
                    model.name, version.version, plan, actor=actor, reason=evaluation.reason,
                    cause=cause, now=now, expected_champion=route.champion.version,
                )  # fmt: skip
        except StaleRouteError:
            return None
        if rollout is not None and not rollout.ended:
            emit(Event.VERSION_REGISTERED, model.name, told, {ROLLOUT_LABEL: BEGUN})
            return Decision(action="rolling out", version=version, reason=evaluation.reason)
        present = registry.route(model.name)
        if present.champion == version.version:
            if rollout is None:
                emit(Event.VERSION_REGISTERED, model.name, told)
            return Decision(action="promoted", version=version, reason=evaluation.reason)
        # What was written for this cause was written before, and something came of it since.
        why = _tried_before(registry, version, rollout)
        registry.record(
            model.name, "kept champion", version=version, actor=actor, reason=why,
            evidence=evidence, cause=f"{cause} again at generation {present.generation}", now=now,
        )  # fmt: skip
        return Decision(action="kept", version=version, reason=why)


def _report(evaluation: EvaluationRef) -> EvaluationReport:
    text = read(evaluation.report.uri)
    if text is None:  # gone since the task before: a run that is started again makes it anew
        raise IntegrityError(Problem(evaluation.report.uri, "the report is gone", "run again"))
    return EvaluationReport.model_validate_json(text)


def _tried_before(registry: Registry, version: VersionRef, rollout: Rollout | None) -> str:
    """What became of a version that was judged beside this champion before, and how to try it once
    more."""
    number = version.version
    replaced = registry.replaced(version.model, number)
    became = "was judged beside this champion before"
    if rollout is not None:
        became = f"was {rollout.state.phase}: {rollout.state.reason}"
    if replaced is not None:
        why = f"{replaced.action}: {replaced.reason}"
        became = f"served until {replaced.at:%Y-%m-%d %H:%M} UTC ({why})"
    champion = registry.route(version.model).champion or 0
    held = number < champion or number in registry.quarantined(version.model)
    force = " --force" if held else ""
    again = f"perennial rollout {version.model}@{number}{force} tries it once more"
    return f"version {number} is this bundle and {became}; {again}"


def _of_the_past(registry: Registry, champion: VersionRef | None) -> bool:
    """Whether the champion was itself trained as of a moment that was asked for."""
    if champion is None:
        return False
    return _AS_OF in registry.version(champion.model, champion.version).links


def _links(
    study: StudyRef, evaluation: EvaluationRef, as_of: datetime | None, reason: str
) -> dict[str, str]:
    return {
        **run_links(),
        **({} if as_of is None else {_AS_OF: as_of.isoformat()}),
        "study": study.study,
        "wandb_group": study.tracking_group,
        "report": evaluation.report.html_uri,
        "trigger": reason,
    }
