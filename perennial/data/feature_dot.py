"""A model's features as a picture: Graphviz DOT text, without needing Graphviz."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perennial.data.feature_graph import FeatureGraph

_COLUMN = 'shape=box, style=filled, fillcolor="#eeeeee"'
_FITTED = 'shape=box, style="rounded,filled,dashed", fillcolor="#fff3d6"'
_STEP = 'shape=box, style="rounded"'
_FEATURE = 'shape=box, style="rounded,filled", fillcolor="#dcebf7"'


def dot(graph: FeatureGraph, features: tuple[str, ...]) -> str:
    """Columns grey, fitted values dashed, features blue; only what the features need is drawn."""
    drawn = graph.upstream(features)
    functions = [name for name in graph.dependencies if name in drawn]
    columns = sorted(drawn - set(functions))
    lines = ["digraph features {", "  rankdir=LR;", '  node [fontname="Helvetica", fontsize=11];']
    for name in columns:
        extra = ", penwidth=2" if name in features else ""
        lines.append(f"  {_quote(name)} [{_COLUMN}{extra}];")
    for name in functions:
        look = _FITTED if name in graph.fitted else _FEATURE if name in features else _STEP
        tooltip = _quote(graph.summaries[name] or name)
        lines.append(f"  {_quote(name)} [{look}, tooltip={tooltip}];")
    for name in functions:
        for source in graph.dependencies[name]:
            lines.append(f"  {_quote(source)} -> {_quote(name)};")
    return "\n".join([*lines, "}", ""])


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
