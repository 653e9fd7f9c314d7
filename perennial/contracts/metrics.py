"""The metrics a model.yaml may name: their objective, direction, and XGBoost's name for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Objective = Literal["binary", "multiclass", "regression"]


@dataclass(frozen=True, slots=True)
class Metric:
    """``xgboost`` is the eval_metric for early stopping (for multiclass, mlogloss); None:
    trials can't be ranked by it. A multiclass roc_auc is one against the rest, macro mean. A pr_auc
    that trials are ranked by is XGBoost's, which interpolates: its digits from the fourth on may be
    others than a report's."""

    name: str
    objectives: frozenset[Objective]
    greater_is_better: bool
    xgboost: str | None


_CLASSIFIERS: frozenset[Objective] = frozenset({"binary", "multiclass"})
_BINARY: frozenset[Objective] = frozenset({"binary"})
_REGRESSION: frozenset[Objective] = frozenset({"regression"})

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("logloss", _CLASSIFIERS, greater_is_better=False, xgboost="logloss"),
        Metric("roc_auc", _CLASSIFIERS, greater_is_better=True, xgboost="auc"),
        Metric("pr_auc", _BINARY, greater_is_better=True, xgboost="aucpr"),
        Metric("brier", _BINARY, greater_is_better=False, xgboost=None),
        Metric("accuracy", _CLASSIFIERS, greater_is_better=True, xgboost=None),
        Metric("rmse", _REGRESSION, greater_is_better=False, xgboost="rmse"),
        Metric("mae", _REGRESSION, greater_is_better=False, xgboost="mae"),
        Metric("r2", _REGRESSION, greater_is_better=True, xgboost=None),
    )
}


def metrics_for(objective: Objective) -> dict[str, Metric]:
    """The metrics that make sense for an objective, in the order reports show them."""
    return {name: m for name, m in METRICS.items() if objective in m.objectives}
