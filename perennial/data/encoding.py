"""From features to the float32 matrix a booster reads: one encoder for training and serving.

A category is its position in the feature's sorted levels, which come from the training rows. A
level not seen there becomes NaN and is counted, on every path: XGBoost itself would take an
unknown code in a NumPy array without a word. Numbers beyond float32's exact integers (2**24) are
rounded to the nearest float32; an identifier that long is no number, declare it a category.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from perennial.contracts.errors import InputError, Problem
from perennial.contracts.features import Feature, FeatureSchema, InputColumn
from perennial.data.labels import encode_label, label_classes
from perennial.data.programs import Program
from perennial.data.row_numbers import too_great
from perennial.spec import ModelSpec

__all__ = [
    "Encoder",
    "SchemaBuilder",
    "Seen",
    "encode",
    "encode_label",
    "label_classes",
    "seen_in",
]

MAX_LEVELS = 10_000
"""Most levels of a categorical feature. With more, splits on it memorise single levels, and the
bundle, requests and reports carry them all."""

_FEW_ROWS = 64  # up to these many, looking up each value is quicker than hashing the levels

Columns = pd.DataFrame | Mapping[str, pd.Series]


@dataclass
class Seen:
    """What some training rows hold: the levels of each category, the features that have numbers,
    and how many rows there were."""

    levels: dict[str, set[str]]
    numeric: set[str]
    rows: int


class SchemaBuilder:
    """Gathers a FeatureSchema from the training rows' features, batch by batch.

    Memory grows with the number of distinct levels only. The order and size of the batches make
    no difference.
    """

    def __init__(self, program: Program, spec: ModelSpec) -> None:
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
        self.merge(seen_in(features, self._program.features))

    def merge(self, seen: Seen) -> None:
        """Take in rows that were looked at elsewhere. Raises as ``add``."""
        self.rows += seen.rows
        self._numeric |= seen.numeric
        problems = []
        for name in self._program.features:
            if name in seen.levels:
                levels = self._levels.setdefault(name, set())
                levels |= seen.levels[name]
                if len(levels) > MAX_LEVELS:
                    what = f"{name!r} has more than {MAX_LEVELS:,} levels"
                    fix = "group its levels, give their frequency by a @fitted function, or leave"
                    fix += " it out (feature: false)"
                    problems.append(Problem(self._program.place(name), what, fix))
            if name in self._levels and name in self._numeric:
                what = f"{name!r} is text for some rows and a number for others"
                problems.append(Problem(self._program.place(name), what, "return one of them"))
        if problems:
            raise InputError(problems)

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


def seen_in(features: Columns, names: Sequence[str]) -> Seen:
    """What computed features of training rows hold."""
    levels: dict[str, set[str]] = {}
    numeric = set()
    for name in names:
        column = features[name]
        if not column.notna().any():
            continue
        if isinstance(column.dtype, pd.StringDtype):
            levels[name] = set(column.dropna().unique().tolist())
        else:
            numeric.add(name)
    return Seen(levels, numeric, len(features[names[0]]))


def _among_features(_name: str) -> str:
    """The place of every feature, for who sends rows to a service: they have no features.py."""
    return "features"


class Encoder:
    """Encodes features of one schema. Immutable: any number of threads may use it.

    ``place`` says where a feature is made (``Program.place``), for messages about infinite ones.
    """

    def __init__(
        self, schema: FeatureSchema, place: Callable[[str], str] = _among_features
    ) -> None:
        self._place = place
        self._names = tuple(feature.name for feature in schema.features)
        self._levels = {
            feature.name: _Levels(feature.levels)
            for feature in schema.features
            if feature.levels is not None
        }

    def encode(self, features: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, int]]:
        """The float32 matrix (rows, features) in C order, and how many values of each category were
        not among its levels (only those > 0). ``features`` are arrays as
        ``FeatureProgram.arrays`` gives them, or Series.

        Missing values are NaN and not counted. Raises InputError for a feature that is absent, text
        where the schema has a number or the other way round, or infinite (in float32: ± 3.4e38),
        with its first such row, counted from 1.
        """
        problems: list[Problem] = []
        unseen: dict[str, int] = {}
        rows = len(next(iter(features.values()))) if features else 0
        matrix = np.empty((rows, len(self._names)), dtype=np.float32)
        with np.errstate(over="ignore"):
            for i, name in enumerate(self._names):
                column = features.get(name)
                if column is None:
                    problems.append(Problem("features", f"no feature {name!r}"))
                    continue
                levels = self._levels.get(name)
                is_text = isinstance(column.dtype, pd.StringDtype)
                if is_text == (levels is not None):
                    if levels is None:
                        matrix[:, i] = column
                    else:
                        strange = levels.positions(column, matrix[:, i])
                        if strange:
                            unseen[name] = strange
                elif pd.isna(column).all():
                    matrix[:, i] = np.nan
                else:
                    kinds = ("text", "a number") if is_text else ("a number", "text")
                    what = f"{name!r} is {kinds[0]}, in training it was {kinds[1]}"
                    problems.append(Problem("features", what))
        if problems:
            raise InputError(problems)
        if not np.isfinite(matrix).all():
            matrix[np.isnan(matrix)] = np.nan  # one bit pattern, whatever sign a NaN was given
            infinite = np.isinf(matrix)
            if infinite.any():
                raise InputError(self._infinities(infinite, features))
        return matrix, unseen

    def _infinities(self, infinite: np.ndarray, features: Mapping[str, Any]) -> list[Problem]:
        problems = []
        for i in np.flatnonzero(infinite.any(axis=0)).tolist():
            name, row = self._names[i], int(np.argmax(infinite[:, i]))
            value = f"{name!r} is {np.asarray(features[name])[row]:g}"
            what = too_great(value, row, int(infinite[:, i].sum()), len(infinite))
            fix = "give NaN for a value that can't be computed"
            problems.append(Problem(self._place(name), what, fix))
        return problems


def encode(
    features: Columns, schema: FeatureSchema, place: Callable[[str], str] = _among_features
) -> tuple[np.ndarray, dict[str, int]]:
    """``Encoder.encode`` for once."""
    return Encoder(schema, place).encode({str(name): column for name, column in features.items()})


class _Levels:
    """The position of each level of a category."""

    def __init__(self, levels: tuple[str, ...]) -> None:
        self._position = {level: float(i) for i, level in enumerate(levels)}
        self._lookup = pc.SetLookupOptions(pa.array(levels, pa.large_string()))
        self._few_rows = _FEW_ROWS + len(levels) // 8

    def positions(self, column: Any, out: np.ndarray) -> int:
        """Write each value's position; NaN for missing and unseen. The number of unseen ones."""
        values = pa.array(column, from_pandas=True)
        if len(values) <= self._few_rows:
            texts = values.to_pylist()
            out[:] = [self._position.get(text, np.nan) for text in texts]
            return sum(text is not None and text not in self._position for text in texts)
        if values.type != pa.large_string():
            values = values.cast(pa.large_string())
        found = pc.call_function("index_in", [values], self._lookup)
        out[:] = found.to_numpy(zero_copy_only=False)
        return int(found.null_count - values.null_count)


def _input_column(name: str, spec: ModelSpec) -> InputColumn:
    if name not in spec.columns:  # the event time, left out of the columns
        return InputColumn(name=name, type="datetime", nullable=False)
    column = spec.columns[name]
    nullable = column.nullable and name != spec.source.event_time
    return InputColumn(name=name, type=column.type, nullable=nullable)
