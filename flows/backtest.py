"""Walk the past with four policies of retraining, and say which one to have."""

from __future__ import annotations

from datetime import datetime

from prefect import flow

from perennial.contracts.backtest import BacktestSummary
from tasks._storage import connect_storage, result_storage
from tasks.backtesting import plan_walk, report_walk, walk_policies
from tasks.definition import read_model
from tasks.notification import tag_run


@flow(
    name="backtest",
    flow_run_name="{model} backtested",
    persist_result=False,
    result_storage=result_storage(),
    result_serializer="json",
    on_running=[tag_run],
)
def backtest(
    model: str,
    start: datetime | None = None,
    end: datetime | None = None,
    every: str = "7d",
    metric: str | None = None,
) -> BacktestSummary:
    """Compare never retraining, a schedule, each drift, and the model's own policy by what they
    would have served and cost. Reads the model's table; registers nothing.

    Args:
        model: Name of a model below ``models/``.
        start: When the first version is trained (UTC); by default as early as there is enough.
        end: Where the walk ends (UTC); by default at the last event.
        every: The length of a step: a look, a decision and a value of the metric each.
        metric: What the policies are compared by; by default what trials are ranked by.
    """
    connect_storage()
    definition = read_model(model)
    plan = plan_walk(definition, start, end, every, metric)
    result = walk_policies(definition, plan)
    return report_walk(definition, result)
