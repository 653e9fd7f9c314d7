"""The picture of the features' graph: layers, crossings, overlaps, and what is drawn how."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ET
from itertools import combinations, pairwise

import pytest

from perennial.contracts.features import FeatureGraph, GraphNode
from perennial.reports.feature_dot import render_dot
from perennial.reports.feature_graph import render_svg
from perennial.reports.layering import Layered, lay_out

SVG = "{http://www.w3.org/2000/svg}"


def _column(name: str, feature: bool = False) -> GraphNode:
    return GraphNode(name=name, kind="column", feature=feature)


def _feature(name: str, *reads: str, summary: str = "") -> GraphNode:
    return GraphNode(name=name, kind="feature", feature=True, summary=summary, reads=reads)


RIDES = FeatureGraph(
    nodes=(
        _column("at"), _column("city", feature=True), _column("km", feature=True),
        GraphNode(name="usual_km", kind="fitted", feature=False, reads=("km",)),
        GraphNode(name="hour", kind="step", feature=False, summary="Hour of the day.",
                  reads=("at",)),
        _feature("km_over", "km", "usual_km"),
        _feature("night", "hour"),
    )
)  # fmt: skip


def _boxes(svg: str) -> dict[str, dict[str, float]]:
    """Place and size of each drawn node by its tooltip's first word."""
    found = {}
    for group in ET.fromstring(svg).iter(f"{SVG}g"):
        title, rect = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        assert title is not None
        assert title.text is not None
        assert rect is not None
        numbers = {key: float(rect.get(key, "nan")) for key in ("x", "y", "width", "height")}
        found[title.text.partition(":")[0]] = numbers
    return found


def _crossings(found: Layered) -> int:
    pieces = {piece for edge in found.edges for piece in pairwise(edge)}
    return sum(
        (found.y[a] - found.y[c]) * (found.y[b] - found.y[d]) < 0
        for (a, b), (c, d) in combinations(sorted(pieces, key=str), 2)
        if any(a in layer and c in layer for layer in found.layers)
    )


def _random_graph(seed: int, columns: int, functions: int) -> dict[str, tuple[str, ...]]:
    chance = random.Random(seed)
    reads: dict[str, tuple[str, ...]] = {f"c{i}": () for i in range(columns)}
    for i in range(functions):
        reads[f"f{i}"] = tuple(chance.sample(list(reads), k=chance.randint(1, 3)))
    return reads


def test_every_source_stands_left_of_what_reads_it() -> None:
    boxes = _boxes(render_svg(RIDES))
    for node in RIDES.nodes:
        for source in node.reads:
            assert boxes[source]["x"] + boxes[source]["width"] < boxes[node.name]["x"]


def test_features_that_nothing_reads_stand_in_one_column_at_the_right() -> None:
    boxes = _boxes(render_svg(RIDES))
    assert boxes["km_over"]["x"] == boxes["night"]["x"]
    assert boxes["night"]["x"] == max(box["x"] for box in boxes.values())


@pytest.mark.parametrize("seed", range(5))
def test_no_two_boxes_of_a_large_graph_overlap_and_all_are_inside(seed: int) -> None:
    reads = _random_graph(seed, columns=20, functions=40)
    nodes = [
        _feature(name, *sources) if sources else _column(name, feature=True)
        for name, sources in reads.items()
    ]
    svg = render_svg(FeatureGraph(nodes=tuple(nodes)))
    boxes = _boxes(svg)
    assert boxes.keys() == reads.keys()
    for one, two in combinations(boxes.values(), 2):
        beside = one["x"] + one["width"] <= two["x"] or two["x"] + two["width"] <= one["x"]
        above = one["y"] + one["height"] <= two["y"] or two["y"] + two["height"] <= one["y"]
        assert beside or above
    _, _, width, height = map(float, ET.fromstring(svg).get("viewBox", "").split())
    assert all(b["x"] >= 0 and b["x"] + b["width"] <= width for b in boxes.values())
    assert all(b["y"] >= 0 and b["y"] + b["height"] <= height for b in boxes.values())


def test_crossings_that_another_order_avoids_are_avoided() -> None:
    crossed = {f"c{i}": () for i in range(6)} | {f"f{i}": (f"c{5 - i}",) for i in range(6)}
    assert _crossings(lay_out(crossed, size=20, gap=5)) == 0


def test_a_feature_of_one_column_stands_at_its_height() -> None:
    found = lay_out({"a": (), "b": (), "fb": ("b",), "fa": ("a",)}, size=20, gap=5)
    assert found.y["a"] == found.y["fa"]
    assert found.y["b"] == found.y["fb"]


def test_edges_over_several_layers_share_their_way() -> None:
    reads = {"a": (), "b": ("a",), "c": ("b",), "d": ("c", "a"), "e": ("c", "a")}
    found = lay_out(reads, size=20, gap=5)
    assert ("a", ("a", 1), ("a", 2), "d") in found.edges
    assert ("a", ("a", 1), ("a", 2), "e") in found.edges
    assert sum(not isinstance(point, str) for layer in found.layers for point in layer) == 2


def test_a_graph_without_nodes_has_no_layers() -> None:
    assert lay_out({}, size=20, gap=5) == Layered((), {}, ())


def test_the_picture_is_the_same_to_the_byte() -> None:
    assert render_svg(RIDES) == render_svg(RIDES.model_copy(deep=True))


def test_a_nodes_kind_decides_its_look_and_a_column_that_is_a_feature_looks_like_one() -> None:
    classes = {}
    for group in ET.fromstring(render_svg(RIDES)).iter(f"{SVG}g"):
        title, rect = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        assert title is not None
        assert title.text is not None
        assert rect is not None
        classes[title.text.partition(":")[0]] = rect.get("class")
    assert classes == {
        "at": "box column", "city": "box feature", "km": "box feature",
        "usual_km": "box fitted", "hour": "box step",
        "km_over": "box feature", "night": "box feature",
    }  # fmt: skip


def test_columns_that_nothing_reads_stand_below_the_drawing() -> None:
    boxes = _boxes(render_svg(RIDES))
    assert boxes["city"]["y"] > max(b["y"] for name, b in boxes.items() if name != "city")
    assert "features that are columns as they are" in render_svg(RIDES)


def test_a_model_of_columns_alone_is_drawn_in_rows() -> None:
    graph = FeatureGraph(nodes=tuple(_column(f"column_{i:02}", feature=True) for i in range(30)))
    boxes = _boxes(render_svg(graph))
    assert len(boxes) == 30
    assert len({box["y"] for box in boxes.values()}) > 1


def test_names_and_docstrings_are_text_not_markup() -> None:
    nasty = 'a<b>&"c"\x0b'
    graph = FeatureGraph(nodes=(_column(nasty), _feature("f", nasty, summary="x < y & z")))
    texts = [element.text for element in ET.fromstring(render_svg(graph)).iter(f"{SVG}text")]
    assert 'a<b>&"c"\ufffd' in texts
    titles = [element.text for element in ET.fromstring(render_svg(graph)).iter(f"{SVG}title")]
    assert "f: x < y & z" in titles


def test_a_long_name_is_cut_and_its_tooltip_is_whole() -> None:
    name = "very_" * 20
    root = ET.fromstring(render_svg(FeatureGraph(nodes=(_column(name, feature=True),))))
    assert [text.text for group in root.iter(f"{SVG}g") for text in group.iter(f"{SVG}text")] == [
        "very_very_very_very_very_very_v…"
    ]
    assert name in [title.text for title in root.iter(f"{SVG}title")]


def test_dot_text_says_the_same_graph_with_quotes_escaped() -> None:
    text = render_dot(RIDES)
    assert text.startswith("digraph features {")
    assert '"usual_km" [shape=box, style="rounded,filled,dashed"' in text
    assert 'tooltip="Hour of the day."' in text
    assert '  "km" -> "usual_km";' in text
    assert '  "usual_km" -> "km_over";' in text
    quoted = render_dot(FeatureGraph(nodes=(_column('say "x"'), _feature("f", 'say "x"'))))
    assert r'"say \"x\"" -> "f"' in quoted
