"""A model's features as Graphviz DOT text, for those who have Graphviz."""

from __future__ import annotations

import json

from perennial.contracts.features import FeatureGraph

_LOOKS = {
    "column": 'shape=box, style=filled, fillcolor="#eeeeee"',
    "fitted": 'shape=box, style="rounded,filled,dashed", fillcolor="#fff3d6"',
    "step": 'shape=box, style="rounded"',
    "feature": 'shape=box, style="rounded,filled", fillcolor="#dcebf7"',
}


def render_dot(graph: FeatureGraph) -> str:
    """Columns grey, fitted values dashed, features blue; a function's docstring is its tooltip."""
    lines = ["digraph features {", "  rankdir=LR;", '  node [fontname="Helvetica", fontsize=11];']
    for node in graph.nodes:
        extra = ", penwidth=2" if node.kind == "column" and node.feature else ""
        if node.kind != "column":
            extra = f", tooltip={_quote(node.summary or node.name)}"
        lines.append(f"  {_quote(node.name)} [{_LOOKS[node.kind]}{extra}];")
    for node in graph.nodes:
        lines += (f"  {_quote(source)} -> {_quote(node.name)};" for source in node.reads)
    return "\n".join([*lines, "}", ""])


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
