"""How much a model makes of each raw column."""

from __future__ import annotations

from collections.abc import Mapping

from perennial.contracts.features import FeatureGraph, GraphNode


def column_importance(graph: FeatureGraph, importance: Mapping[str, float]) -> dict[str, float]:
    """The importance of features, by name, passed on to the raw columns they are made from: to each
    column of a feature in equal parts. What a fitted function read in training is no part of it;
    columns that no feature reads are 0."""
    nodes = {node.name: node for node in graph.nodes}
    shares = {node.name: 0.0 for node in graph.nodes if node.kind == "column"}
    for feature, share in importance.items():
        columns = _columns(nodes, feature)
        for column in columns:
            shares[column] += share / len(columns)
    return shares


def _columns(nodes: Mapping[str, GraphNode], feature: str) -> list[str]:
    """The raw columns whose values of a row decide the feature's, sorted."""
    seen: set[str] = set()
    waiting = [feature]
    while waiting:
        name = waiting.pop()
        if name in seen or name not in nodes or nodes[name].kind == "fitted":
            continue
        seen.add(name)
        waiting += nodes[name].reads
    return sorted(name for name in seen if nodes[name].kind == "column")
