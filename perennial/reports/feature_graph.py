"""A model's features as an SVG picture: columns at the left, features at the right."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise

from perennial.contracts.features import FeatureGraph, GraphNode
from perennial.reports.layering import Layered, lay_out

_CHAR = 7.25  # width of a character in pixels, at 12 px in the usual monospaced fonts
_BOX, _GAP, _BETWEEN, _MARGIN = 26.0, 9.0, 76.0, 20.0
_LEAST_WIDTH = 660.0
_LONGEST_NAME = 32

_STYLE = """\
text { font: 12px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #1c2733; }
.note { font: 12px system-ui, "Helvetica Neue", Arial, sans-serif; fill: #5b6773; }
.box { stroke-width: 1.2; }
.column { fill: #f1f3f5; stroke: #b4bcc6; }
.fitted { fill: #fff4da; stroke: #cf9a33; stroke-dasharray: 4 2; }
.step { fill: #ffffff; stroke: #8b96a3; }
.feature { fill: #e0edf8; stroke: #3f7fb5; }
.edge { fill: none; stroke: #a9b3bf; stroke-width: 1.2; }
.learnt { stroke: #cf9a33; stroke-dasharray: 4 2; }
.head { fill: #8b96a3; }"""

_LEGEND = {
    "column": "column",
    "fitted": "fitted on training rows",
    "step": "step",
    "feature": "feature",
}


def render_svg(graph: FeatureGraph) -> str:
    """SVG text, the same to the byte for the same graph; every box has its docstring as a tooltip.

    Columns that are features as they are, and that no function reads, stand in rows of their own
    below the drawing: they have nothing to be joined with.
    """
    read = {source for node in graph.nodes for source in node.reads}
    alone = [node for node in graph.nodes if not node.reads and node.name not in read]
    joined = {node.name: node for node in graph.nodes if node.reads or node.name in read}
    layout = lay_out({n.name: n.reads for n in joined.values()}, size=_BOX, gap=_GAP)
    spans = _spans(layout, joined)
    width = max(_LEAST_WIDTH, (spans[-1][1] if spans else 0.0) + _MARGIN)

    body = list(_legend(graph, _MARGIN))
    top = _MARGIN + _BOX + 16
    body += _edges(layout, spans, joined, top)
    for layer, (left, right) in zip(layout.layers, spans, strict=True):
        for point in layer:
            if isinstance(point, str):
                body += _box(joined[point], left, top + layout.y[point] - _BOX / 2, right - left)
    bottom = top + max((y + _BOX / 2 for y in layout.y.values()), default=0.0)
    if alone:
        if joined:
            bottom += 34
            note = "features that are columns as they are"
            body.append(f'<text class="note" x="{_MARGIN:g}" y="{bottom - 10:g}">{note}</text>')
        rows, bottom = _rows(alone, bottom, width)
        body += rows
    size = f"{width:g} {bottom + _MARGIN:g}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" '
        f'width="{width:g}" height="{bottom + _MARGIN:g}">\n<style>{_STYLE}</style>\n'
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path class="head" d="M0 0.8 L8 4 L0 7.2 Z"/></marker>'
        '</defs>\n<rect width="100%" height="100%" rx="8" fill="#ffffff"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _spans(layout: Layered, nodes: Mapping[str, GraphNode]) -> list[tuple[float, float]]:
    """The left and right edge of each layer's boxes."""
    spans: list[tuple[float, float]] = []
    left = _MARGIN
    for layer in layout.layers:
        right = left + max((_width(nodes[p]) for p in layer if isinstance(p, str)), default=40.0)
        spans.append((left, right))
        left = right + _BETWEEN
    return spans


def _edges(
    layout: Layered,
    spans: Sequence[tuple[float, float]],
    nodes: Mapping[str, GraphNode],
    top: float,
) -> Iterator[str]:
    layer_of = {point: i for i, layer in enumerate(layout.layers) for point in layer}
    for chain in layout.edges:
        places: list[tuple[float, float]] = []
        for point in chain:
            left, right = spans[layer_of[point]]
            y = round(top + layout.y[point], 1)
            if point != chain[0]:
                places.append((left, y))
            if point != chain[-1]:
                places.append((right, y))
        path = f"M{places[0][0]:g} {places[0][1]:g}"
        for (x1, y1), (x2, y2) in pairwise(places):
            bend = (x1 + x2) / 2
            path += f" C{bend:g} {y1:g} {bend:g} {y2:g} {x2:g} {y2:g}" if y1 != y2 else f" H{x2:g}"
        learnt = " learnt" if nodes[str(chain[0])].kind == "fitted" else ""
        yield f'<path class="edge{learnt}" d="{path}" marker-end="url(#head)"/>'


def _box(node: GraphNode, left: float, top: float, width: float) -> Iterator[str]:
    look = "feature" if node.feature else node.kind
    corner = 2 if node.kind == "column" else 8
    yield (
        f"<g><title>{_text(node.name)}{f': {_text(node.summary)}' if node.summary else ''}</title>"
        f'<rect class="box {look}" x="{left:g}" y="{top:g}" width="{width:g}" height="{_BOX:g}" '
        f'rx="{corner}"/><text x="{left + 10:g}" y="{top + 17:g}">{_text(_short(node.name))}'
        "</text></g>"
    )


def _rows(nodes: Sequence[GraphNode], top: float, width: float) -> tuple[list[str], float]:
    """Boxes side by side in as many rows as they need, and where the last row ends."""
    drawn: list[str] = []
    left = _MARGIN
    for node in nodes:
        wide = _width(node)
        if left > _MARGIN and left + wide > width - _MARGIN:
            left, top = _MARGIN, top + _BOX + _GAP
        drawn += _box(node, left, top, wide)
        left += wide + _GAP
    return drawn, top + _BOX


def _legend(graph: FeatureGraph, top: float) -> Iterator[str]:
    looks = {"feature" if node.feature else node.kind for node in graph.nodes}
    left = _MARGIN
    for look, meaning in _LEGEND.items():
        if look in looks:
            yield (
                f'<rect class="box {look}" x="{left:g}" y="{top + 4:g}" width="18" height="14" '
                f'rx="{2 if look == "column" else 5}"/>'
                f'<text class="note" x="{left + 25:g}" y="{top + 15:g}">{meaning}</text>'
            )
            left += 25 + 6.0 * len(meaning) + 22


def _width(node: GraphNode) -> float:
    cells = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in _short(node.name))
    return round(cells * _CHAR + 20, 1)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _text(text: str) -> str:
    """Text as XML takes it; what can't be shown (and may be no XML at all) as U+FFFD."""
    return escape("".join(c if c.isprintable() else "\ufffd" for c in text))
