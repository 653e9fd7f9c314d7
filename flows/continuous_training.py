"""The life of a model on one page: from its source to a judged, registered version."""

from __future__ import annotations

from datetime import datetime

from prefect import flow

from perennial.contracts.retraining import Trigger
from perennial.contracts.runs import Claim, RunSummary
from tasks._storage import connect_storage, result_storage
from tasks.definition import find_champion, find_members, read_model
from tasks.notification import completed, declined, flow_run_name, summarise, tag_run
from tasks.retraining import claim_retraining, end_retraining, finish_retraining


@flow(
    name="continuous-training",
    flow_run_name=flow_run_name,
    persist_result=False,
    result_storage=result_storage(),
    result_serializer="json",
    on_running=[tag_run],
    on_failure=[end_retraining],
    on_crashed=[end_retraining],
    on_cancellation=[end_retraining],
)
def continuous_training(
    model: str,
    as_of: datetime | None = None,
    reason: str = "by hand",
    force: bool = False,
    trigger: Trigger | None = None,
) -> RunSummary | Claim:
    """Ingest what is new, train a candidate, and let it take over if the gates say so.

    Args:
        model: Name of a model below ``models/``.
        as_of: Train with what was known at this moment (UTC); now by default. Such a version takes
            over without a rollout if the champion was trained as of a moment too.
        reason: Why this run was started; kept in the registry's audit.
        force: Run every stage again, cached or not.
        trigger: The evidence that asks for it. The run ends at once where the policy says wait or
            no, or where another run has the retraining already. Without one it is by schedule or
            by hand.
    """
    connect_storage()
    definition = read_model(model)
    claim = claim_retraining(definition, trigger, as_of, reason)
    if claim.refused:
        return declined(claim)
    # Now, because they import pandas: a run has begun, or was declined, a second sooner.
    from tasks.evaluation import evaluate
    from tasks.features import compute_features
    from tasks.ingestion import inspect_source, publish, stage
    from tasks.publishing import publish_versions
    from tasks.registration import register
    from tasks.splitting import split
    from tasks.training import train
    from tasks.tuning import tune
    from tasks.validation import validate

    route = find_champion(definition)
    members = find_members(definition)  # of an ensemble; none otherwise

    source = inspect_source(definition, as_of, force)
    staged = stage(definition, source)
    audit = validate(definition, staged, route)
    dataset = publish(definition, source, staged, audit, as_of)

    parts = split(definition, dataset, members)
    features = compute_features(definition, dataset, parts, members)
    study = tune(definition, features)
    bundle = train(definition, dataset, features, study, members)

    evaluation, decision = None, None
    while decision is None:  # the champion may change while the candidate is judged
        route = find_champion(definition)
        if route.champion is None or route.champion.digest != bundle.digest:
            evaluation = evaluate(definition, dataset, parts, bundle, features, route)
        decision = register(definition, bundle, study, evaluation, route, as_of, reason)
    finish_retraining(claim, decision)
    publish_versions(model)

    summary = summarise(definition, audit, dataset, bundle, study, evaluation, decision, reason)
    return completed(summary)
