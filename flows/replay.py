"""Walk through history as if it were happening: train at each moment, score what came after."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise

from prefect import flow

from flows.continuous_training import continuous_training
from perennial.contracts.runs import ReplaySummary
from tasks._storage import connect_storage, result_storage
from tasks.definition import read_model
from tasks.notification import tag_run
from tasks.replaying import conclude, score_period, trained


@flow(
    name="replay",
    flow_run_name="{model} replayed",
    persist_result=False,
    result_storage=result_storage(),
    result_serializer="json",
    on_running=[tag_run],
)
def replay(model: str, moments: list[datetime], metric: str) -> ReplaySummary:
    """Run continuous training at each moment and compare with never retraining.

    For a project of its own, or a model without a version: a champion that there is would be
    compared with, and a version that was tried before is not tried again.

    Args:
        model: Name of a model below ``models/``.
        moments: Ascending, UTC; a training at each, and each stretch between two is scored.
        metric: What periods are scored by.
    """
    connect_storage()
    runs = [
        trained(continuous_training(model, as_of=moment, reason="replay")) for moment in moments
    ]
    definition = read_model(model)
    periods = [
        score_period(definition, runs[0], run, start, end, metric)
        for run, (start, end) in zip(runs, pairwise(moments), strict=False)
    ]
    return conclude(definition, periods)
