"""The features of a model as Markdown: a picture of what they are made from, then a row each."""

from __future__ import annotations

from collections.abc import Sized

from perennial.contracts.features import Feature, FeatureGraph, FeatureSchema
from perennial.reports.markdown import picture, plain, row

_MOST_ROWS = 100


def render_features(model: str, schema: FeatureSchema, graph: FeatureGraph, svg: str) -> str:
    """Markdown for a Prefect artifact; ``svg`` is the drawn ``graph``."""
    nodes = {node.name: node for node in graph.nodes}
    fitted = [node.name for node in graph.nodes if node.kind == "fitted"]
    text = [
        f"# {plain(model)}: {_count(schema.features, 'feature')} "
        f"from {_count(schema.inputs, 'column')}",
        "",
        picture("what the features are made from", svg),
        "",
    ]
    if fitted:
        names = ", ".join(plain(name) for name in fitted)
        text += [f"Fitted on the training rows alone and kept in the bundle: {names}.", ""]
    text += ["| feature | kind | made from | what it is |", "|---|---|---|---|"]
    for feature in schema.features[:_MOST_ROWS]:
        node = nodes[feature.name]
        reads = ", ".join(plain(name) for name in node.reads) or "the column itself"
        text.append(row(plain(feature.name), _kind(feature), reads, plain(node.summary)))
    hidden = len(schema.features) - _MOST_ROWS
    if hidden > 0:
        text += ["", f"… and {hidden:,} more."]
    return "\n".join(text) + "\n"


def _kind(feature: Feature) -> str:
    if feature.levels is None:
        return "number"
    return f"category, {_count(feature.levels, 'level')}"


def _count(things: Sized, name: str) -> str:
    return f"{len(things):,} {name}" + ("" if len(things) == 1 else "s")
