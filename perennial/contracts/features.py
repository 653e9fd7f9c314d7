"""What the matrix a booster reads is made of, what it is made from, and how."""

from __future__ import annotations

from typing import Literal

from perennial.contracts.refs import Value

ColumnType = Literal["float", "integer", "boolean", "category", "string", "datetime"]


class InputColumn(Value):
    """A raw column that prediction needs, as a request must carry it."""

    name: str
    type: ColumnType
    nullable: bool


class Feature(Value):
    """One column of the matrix. ``levels`` (sorted) are the categories seen in training; the matrix
    holds a level's position. None for a numeric feature."""

    name: str
    levels: tuple[str, ...] | None = None


class FeatureSchema(Value):
    """The matrix in column order, the raw inputs, and the classes of a classifier (sorted, in the
    order of predicted probabilities; None for regression)."""

    inputs: tuple[InputColumn, ...]
    features: tuple[Feature, ...]
    classes: tuple[str, ...] | None


NodeKind = Literal["column", "fitted", "step", "feature"]


class GraphNode(Value):
    """A raw column, or a function of features.py. A ``step`` is a function that only others read.

    ``kind`` is "column" also for a column that is a feature as it is: ``feature`` is then true.
    ``summary`` is the first line of the function's docstring ("" when there is none), ``reads`` are
    the columns and functions it names, in its own order; empty for a column.
    """

    name: str
    kind: NodeKind
    feature: bool
    summary: str = ""
    reads: tuple[str, ...] = ()


class FeatureGraph(Value):
    """What the features are made from: only what they need is in it.

    Columns come first, by name; functions follow in order of definition. It has no circle.
    """

    nodes: tuple[GraphNode, ...]
