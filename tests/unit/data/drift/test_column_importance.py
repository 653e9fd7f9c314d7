"""Importance of features, passed on to the columns they are made from."""

from __future__ import annotations

import pytest

from perennial.contracts.features import FeatureGraph, GraphNode
from perennial.data.drift.importance import column_importance

GRAPH = FeatureGraph(
    nodes=(
        GraphNode(name="distance", kind="column", feature=True),
        GraphNode(name="duration", kind="column", feature=False),
        GraphNode(name="origin", kind="column", feature=False),
        GraphNode(name="speed", kind="feature", feature=True, reads=("pace", "distance")),
        GraphNode(name="pace", kind="step", feature=False, reads=("duration",)),
        GraphNode(name="usual", kind="fitted", feature=False, reads=("origin",)),
        GraphNode(name="relative", kind="feature", feature=True, reads=("usual", "duration")),
    )
)


def test_a_feature_s_importance_goes_to_its_columns_in_equal_parts() -> None:
    found = column_importance(GRAPH, {"distance": 0.1, "speed": 0.6, "relative": 0.3})
    assert found == {
        "distance": pytest.approx(0.4),
        "duration": pytest.approx(0.6),
        "origin": 0.0,
    }


def test_features_without_columns_or_unknown_give_nothing() -> None:
    assert sum(column_importance(GRAPH, {"usual": 0.5, "gone": 0.5}).values()) == 0
    assert column_importance(FeatureGraph(nodes=()), {}) == {}
