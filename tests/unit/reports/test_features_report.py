"""The page of features: the picture in it, and a row a feature."""

from __future__ import annotations

import base64

from perennial.contracts.features import (
    Feature,
    FeatureGraph,
    FeatureSchema,
    GraphNode,
    InputColumn,
)
from perennial.reports.features import render_features

GRAPH = FeatureGraph(
    nodes=(
        GraphNode(name="city", kind="column", feature=True),
        GraphNode(name="usual", kind="fitted", feature=False, reads=("city",)),
        GraphNode(
            name="over_usual", kind="feature", feature=True, summary="More | less", reads=("usual",)
        ),
    )
)


def _schema(*features: Feature) -> FeatureSchema:
    column = InputColumn(name="city", type="category", nullable=True)
    return FeatureSchema(inputs=(column,), features=features, classes=None)


SCHEMA = _schema(Feature(name="city", levels=("Bonn", "Ulm")), Feature(name="over_usual"))


def test_the_picture_is_in_the_page_itself() -> None:
    text = render_features("rides", SCHEMA, GRAPH, "<svg>é</svg>")
    encoded = text.partition("data:image/svg+xml;base64,")[2].partition(")")[0]
    assert base64.b64decode(encoded).decode() == "<svg>é</svg>"
    assert text.startswith("# rides: 2 features from 1 column\n")


def test_each_feature_says_its_kind_what_it_is_made_from_and_what_it_is() -> None:
    rows = render_features("rides", SCHEMA, GRAPH, "<svg/>").splitlines()
    assert "| city | category, 2 levels | the column itself |  |" in rows
    assert r"| over\_usual | number | usual | More \| less |" in rows


def test_fitted_values_are_named() -> None:
    fitted = "Fitted on the training rows alone and kept in the bundle: usual."
    assert fitted in render_features("rides", SCHEMA, GRAPH, "<svg/>")


def test_a_model_of_very_many_features_shows_a_hundred_and_says_how_many_more() -> None:
    nodes = tuple(GraphNode(name=f"x{i}", kind="column", feature=True) for i in range(130))
    schema = _schema(*(Feature(name=node.name) for node in nodes))
    text = render_features("rides", schema, FeatureGraph(nodes=nodes), "<svg/>")
    assert text.count("the column itself") == 100
    assert text.endswith("… and 30 more.\n")
