"""From features to the float32 matrix a booster reads: one encoder for training and serving.

A category is its position in the feature's sorted levels, which come from the training rows. A
level not seen there becomes NaN and is counted, on every path: XGBoost itself would take an
unknown code in a NumPy array without a word. Numbers beyond float32's exact integers (2**24) are
rounded to the nearest float32; an identifier that long is no number, declare it a category.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from perennial.contracts.errors import InputError, Problem
from perennial.contracts.features import Feature, FeatureSchema, InputColumn
from perennial.data.features import FeatureProgram
from perennial.data.labels import encode_label, label_classes
from perennial.spec import ModelSpec

__all__ = ["SchemaBuilder", "encode", "encode_label", "feature_types", "label_classes"]

MAX_LEVELS = 10_000
"""Most levels of a categorical feature. With more, splits on it memorise single levels, and the
bundle, requests and reports carry them all."""

_FEW_ROWS = 16  # below, a binary search for each value is quicker than a hash table of the levels

Columns = pd.DataFrame | Mapping[str, pd.Series]


class SchemaBuilder:
    """Gathers a FeatureSchema from the training rows' features, batch by batch.

    Memory grows with the number of distinct levels only. The order and size of the batches make
    no difference.
    """

    def __init__(self, program: FeatureProgram, spec: ModelSpec) -> None:
        self._program = program
        self._inputs = tuple(_input_column(name, spec) for name in program.inputs)
        self._levels: dict[str, set[str]] = {
            name: set()
            for name in program.features
            if name in spec.columns and spec.columns[name].type == "category"
        }
        self._numeric: set[str] = set()
        self.rows = 0

    def add(self, features: Columns) -> None:
        """Take in computed features (``FeatureProgram.compute`` or ``columns``) of training rows.

        Raises InputError when a feature is text in one batch and a number in another, or has more
        than MAX_LEVELS levels.
        """
        problems = []
        for name in self._program.features:
            column = features[name]
            is_text = isinstance(column.dtype, pd.StringDtype)
            if not column.notna().any():
                continue
            if is_text:
                levels = self._levels.setdefault(name, set())
                levels.update(column.dropna().unique().tolist())
                if len(levels) > MAX_LEVELS:
                    what = f"{name!r} has more than {MAX_LEVELS:,} levels"
                    fix = "group its levels, give their frequency by a @fitted function, or leave"
                    fix += " it out (feature: false)"
                    problems.append(Problem(self._program.place(name), what, fix))
            else:
                self._numeric.add(name)
            if name in self._levels and name in self._numeric:
                what = f"{name!r} is text for some rows and a number for others"
                problems.append(Problem(self._program.place(name), what, "return one of them"))
        if problems:
            raise InputError(problems)
        self.rows += len(features[self._program.features[0]])

    def schema(self, classes: tuple[str, ...] | None) -> FeatureSchema:
        """The schema of all rows taken in; ``classes`` as ``label_classes`` gives them.

        Raises InputError when a feature had no value in any row.
        """
        empty = [
            name
            for name in self._program.features
            if name not in self._numeric and not self._levels.get(name)
        ]
        if empty:
            what = f"no value in any of the {self.rows:,} training rows"
            fix = "leave it out (feature: false, or name the others under features)"
            raise InputError([Problem(self._program.place(name), what, fix) for name in empty])
        features = tuple(
            Feature(name=name, levels=tuple(sorted(self._levels[name])))
            if name in self._levels
            else Feature(name=name)
            for name in self._program.features
        )
        return FeatureSchema(inputs=self._inputs, features=features, classes=classes)


def feature_types(schema: FeatureSchema) -> list[str]:
    """XGBoost's ``feature_types``: 'c' for a category, 'q' for a number."""
    return ["q" if feature.levels is None else "c" for feature in schema.features]


def encode(features: Columns, schema: FeatureSchema) -> tuple[np.ndarray, dict[str, int]]:
    """The float32 matrix (rows, features) in C order, and how many values of each category were
    not among its levels (only those > 0).

    Missing values are NaN and not counted. Raises InputError for a feature that is absent, text
    where the schema has a number or the other way round, or infinite (in float32: ± 3.4e38).
    """
    problems: list[Problem] = []
    unseen: dict[str, int] = {}
    matrix = np.empty((_rows(features), len(schema.features)), dtype=np.float32)
    for i, feature in enumerate(schema.features):
        if feature.name not in features:
            problems.append(Problem("features", f"no feature {feature.name!r}"))
            continue
        column = features[feature.name]
        is_text = isinstance(column.dtype, pd.StringDtype)
        if is_text == (feature.levels is not None):
            if feature.levels is None:
                with np.errstate(over="ignore"):
                    matrix[:, i] = column.to_numpy()
            else:
                strange = _positions(column, feature.levels, matrix[:, i])
                if strange:
                    unseen[feature.name] = strange
        elif column.isna().all():
            matrix[:, i] = np.nan
        else:
            kinds = ("text", "a number") if is_text else ("a number", "text")
            what = f"{feature.name!r} is {kinds[0]}, in training it was {kinds[1]}"
            problems.append(Problem("features", what))
    if problems:
        raise InputError(problems)
    matrix[np.isnan(matrix)] = np.nan  # one bit pattern, whatever sign the processor gave a NaN
    infinite = np.isinf(matrix)
    if infinite.any():
        raise InputError(_infinities(infinite, features, schema))
    return matrix, unseen


def _rows(features: Columns) -> int:
    if isinstance(features, pd.DataFrame):
        return len(features)
    return len(next(iter(features.values()))) if features else 0


def _positions(column: pd.Series, levels: tuple[str, ...], out: np.ndarray) -> int:
    """Write each value's position in the sorted levels; NaN for missing and unseen. The number of
    unseen ones."""
    if len(column) <= _FEW_ROWS:
        unseen = 0
        for row, value in enumerate(column.tolist()):
            out[row] = np.nan
            if isinstance(value, str):
                at = bisect_left(levels, value)
                if at < len(levels) and levels[at] == value:
                    out[row] = at
                else:
                    unseen += 1
        return unseen
    values = pa.array(column, from_pandas=True)
    found = pc.index_in(values, value_set=pa.array(levels, type=values.type))
    unseen = int(found.null_count - values.null_count)
    out[:] = found.to_numpy(zero_copy_only=False)
    return unseen


def _infinities(infinite: np.ndarray, features: Columns, schema: FeatureSchema) -> list[Problem]:
    problems = []
    for i in np.flatnonzero(infinite.any(axis=0)):
        name = schema.features[i].name
        column = features[name]
        row = int(np.argmax(infinite[:, i]))
        what = (
            f"{name!r} is {column.iloc[row]:g} in row {column.index[row]} "
            f"({int(infinite[:, i].sum()):,} of {len(column):,} rows), which float32 can't hold"
        )
        problems.append(Problem("features", what, "give NaN for a value that can't be computed"))
    return problems


def _input_column(name: str, spec: ModelSpec) -> InputColumn:
    if name not in spec.columns:  # the event time, left out of the columns
        return InputColumn(name=name, type="datetime", nullable=False)
    column = spec.columns[name]
    nullable = column.nullable and name != spec.source.event_time
    return InputColumn(name=name, type=column.type, nullable=nullable)
