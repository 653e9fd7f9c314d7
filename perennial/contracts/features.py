"""What the matrix a booster reads is made of, and what it is made from."""

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
