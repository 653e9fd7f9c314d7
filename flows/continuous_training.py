"""The life of a model on one page: from its source to a judged, registered version."""

from __future__ import annotations

from datetime import datetime

from prefect import flow

from perennial.contracts.runs import RunSummary
from tasks.definition import find_champion, read_model
from tasks.evaluation import evaluate
from tasks.features import compute_features
from tasks.ingestion import inspect_source, publish, stage
from tasks.notification import completed, flow_run_name, summarise, tag_run
from tasks.registration import register
from tasks.splitting import split
from tasks.training import train
from tasks.tuning import tune
from tasks.validation import validate


@flow(
    name="continuous-training",
    flow_run_name=flow_run_name,
    persist_result=False,
    on_running=[tag_run],
)
def continuous_training(
    model: str, as_of: datetime | None = None, reason: str = "by hand", force: bool = False
) -> RunSummary:
    """Ingest what is new, train a candidate, and let it take over if the gates say so.

    Args:
        model: Name of a model below ``models/``.
        as_of: Train with what was known at this moment (UTC); now by default.
        reason: Why this run was started; kept in the registry's audit.
        force: Run every stage again, cached or not.
    """
    definition = read_model(model)
    route = find_champion(definition)

    source = inspect_source(definition, as_of, force)
    staged = stage(definition, source)
    audit = validate(definition, staged, route)
    dataset = publish(definition, source, staged, audit, as_of)

    parts = split(definition, dataset)
    features = compute_features(definition, dataset, parts)
    study = tune(definition, features)
    bundle = train(definition, dataset, features, study)

    evaluation, decision = None, None
    while decision is None:  # the champion may change while the candidate is judged
        route = find_champion(definition)
        if route.champion is None or route.champion.digest != bundle.digest:
            evaluation = evaluate(definition, bundle, features, route)
        decision = register(definition, bundle, study, evaluation, route, reason)

    summary = summarise(definition, dataset, bundle, study, evaluation, decision, reason)
    return completed(summary)
