"""The features of a model as Markdown: what the booster reads, and the graph it comes from."""

from __future__ import annotations

from perennial.contracts.features import FeatureSchema


def render_features(schema: FeatureSchema, dot: str) -> str:
    """Markdown with a table of features and the graph as Graphviz text."""
    lines = [
        f"# {len(schema.features)} features from {len(schema.inputs)} columns",
        "",
        "| feature | kind |",
        "|---|---|",
        *(
            f"| {f.name} | {'number' if f.levels is None else f'category, {len(f.levels)} levels'} |"
            for f in schema.features
        ),
        "",
        "```dot",
        dot.strip(),
        "```",
    ]
    return "\n".join(lines)
