"""Train a registered version again from what its bundle recorded, and compare."""

from __future__ import annotations

from prefect import flow

from perennial.contracts.runs import ReproductionSummary
from tasks._storage import connect_storage, result_storage
from tasks.features import compute_features
from tasks.notification import tag_run
from tasks.reproducing import compare, recall
from tasks.splitting import split
from tasks.training import train


@flow(
    name="reproduction",
    flow_run_name="{model}@{version} again",
    persist_result=False,
    result_storage=result_storage(),
    result_serializer="json",
    on_running=[tag_run],
)
def reproduction(
    model: str,
    version: int,
    force: bool = True,  # noqa: ARG001 (the cache policy reads it)
) -> ReproductionSummary:
    """Split, compute features and train as for the version; nothing is registered.

    Args:
        model: Name of a model.
        version: A registered version of it.
        force: Do the work again, cached or not; without it only missing results are made.
    """
    connect_storage()
    original = recall(model, version)
    parts = split(original.definition, original.dataset, original.members)
    features = compute_features(original.definition, original.dataset, parts, original.members)
    bundle = train(
        original.definition, original.dataset, features, original.study, original.members
    )
    return compare(original, bundle)
