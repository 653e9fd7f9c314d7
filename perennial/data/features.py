"""A model's features: its columns and the functions of its features.py, alike wherever they run.

Apache Hamilton makes a graph of the functions, which are run over a whole table in training and
over the rows of one request in serving. A function gets columns, never the label; what it needs to
know of other rows it gets from a ``@fitted`` function, which has seen the training rows only. That
a feature's value depends on its own row alone is tested by ``leaks.check_row_local``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from perennial.contracts.errors import FeatureError, InputError, IntegrityError, Problem
from perennial.contracts.features import FeatureGraph, GraphNode, NodeKind
from perennial.data.feature_code import fitted, read_code
from perennial.data.frames import (
    Framed,
    as_frame,
    column_arrays,
    column_series,
    plain_array,
)
from perennial.spec import ModelSpec
from perennial.spec.values import nearest

if TYPE_CHECKING:
    from perennial.data.feature_graph import Functions

__all__ = ["FeatureProgram", "fitted"]


class FeatureProgram:
    """The feature code of one version of a model; immutable and safe to share between threads.
    It travels to another process as its text, and is compiled there.

    ``features`` are the matrix's columns in order: the spec's ``features``, else its feature
    columns and then every public function of features.py in order of definition (without the
    fitted ones and those that return a DataFrame). ``inputs`` are the raw columns ``compute``
    reads, ``fit_inputs`` those ``fit`` reads, both in the order of model.yaml; ``fitted`` are the
    names of the state.
    """

    def __init__(
        self, source: str, spec: ModelSpec, graph: Functions, features: tuple[str, ...]
    ) -> None:
        self._loaded_from = source, spec
        self.features = features
        self._graph = graph
        self._functions = frozenset(name for name in features if name in graph.dependencies)
        reached = graph.upstream(features)
        self.fitted = tuple(name for name in graph.dependencies if name in reached & graph.fitted)
        order = dict.fromkeys((*spec.columns, spec.source.event_time))
        served = graph.upstream(features, stop=graph.fitted)
        self.inputs = tuple(name for name in order if name in served)
        for_fit = graph.upstream(self.fitted)
        self.fit_inputs = tuple(name for name in order if name in for_fit)
        self._fitting = graph.plan(self.fitted)
        self._computing = graph.plan(
            [name for name in features if name in self._functions], given=self.fitted
        )
        self._read = tuple(name for name in self.inputs if name in self._computing.reads)

    @classmethod
    def load(cls, source: str, spec: ModelSpec) -> Self:
        """Compile features.py ("" when there is none) against a model's columns.

        Raises InputError with every mistake: text that isn't Python, a function given twice or
        named as a column, a parameter that is the label or unknown, a feature that doesn't exist.
        """
        from perennial.data.feature_graph import build_graph

        graph = build_graph(read_code(source, spec), spec)
        features = spec.features
        if features is None:
            skip = graph.fitted | graph.tables
            made = (name for name in graph.dependencies if name not in skip)
            features = (*spec.feature_columns, *made)
        problems = _selection_problems(features, spec, graph)
        if problems:
            raise InputError(problems)
        return cls(source, spec, graph, features)

    def __reduce__(self) -> tuple[object, ...]:
        return FeatureProgram.load, self._loaded_from

    def fit(self, frame: pd.DataFrame) -> dict[str, Any]:
        """The fitted state by function name, computed from training rows in canonical dtypes.

        JSON-able, and equal to itself after a round trip through JSON. Raises InputError when a
        function raises or returns what JSON can't hold.
        """
        raw = _raw(frame, self.fit_inputs)
        values = self._fitting.run(self._given(frame, raw, self.fit_inputs))
        state: dict[str, Any] = {}
        problems = []
        for name in self.fitted:
            try:
                state[name] = _plain(values[name])
            except _UnusableError as refused:
                problems.append(Problem(self.place(name), refused.what, refused.fix))
        if problems:
            raise InputError(problems)
        return state

    def arrays(self, frame: Framed, state: Mapping[str, Any]) -> dict[str, Any]:
        """The features of a frame in canonical dtypes, in order, each a NumPy array of float64 or a
        pandas array of text (missing: NaN). To be read only: a feature that is a column is the
        frame's own memory. Takes no notice of other columns of the frame.

        Raises FeatureError when a function raises, or doesn't return one value a row in order;
        IntegrityError when the state lacks a fitted value.
        """
        known: dict[str, Any] = {}
        for name in self.fitted:
            if name not in state:
                absent = ", ".join(name for name in self.fitted if name not in state)
                what = f"no fitted value for {absent}"
                raise IntegrityError(Problem("fitted state", what, "fit the features anew"))
            known[name] = state[name]
        raw = _raw(frame, self.inputs)
        index = pd.RangeIndex(len(frame))
        known |= self._given(frame, raw, self._read)
        values = self._computing.run(known)
        arrays: dict[str, Any] = {}
        problems = []
        for name in self.features:
            try:
                arrays[name] = (
                    _result_array(values[name], index)
                    if name in self._functions
                    else _feature_array(raw[name])
                )
            except _UnusableError as refused:
                problems.append(Problem(self.place(name), refused.what, refused.fix))
        if problems:
            raise FeatureError(problems)
        return arrays

    def columns(self, frame: pd.DataFrame, state: Mapping[str, Any]) -> dict[str, pd.Series]:
        """``arrays`` as Series under the index 0…n-1. Raises as ``arrays`` does."""
        arrays = self.arrays(frame, state)
        return {name: pd.Series(array, copy=False) for name, array in arrays.items()}

    def compute(self, frame: pd.DataFrame, state: Mapping[str, Any]) -> pd.DataFrame:
        """``arrays`` as a frame under the index of ``frame``. Raises as ``arrays`` does."""
        return pd.DataFrame(self.arrays(frame, state), index=frame.index, copy=False)

    def _given(self, frame: Framed, raw: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
        """Columns as the functions take them: arrays, or Series under the index 0…n-1."""
        arrays = {n: plain_array(raw[n]) for n in names if n in self._graph.arrays}
        others = [n for n in names if n not in arrays]
        return arrays | _series(as_frame(frame), raw, others) if others else arrays

    def place(self, feature: str) -> str:
        """Where a feature is made, for messages: its function's line, or the column."""
        return self._graph.places.get(feature, f"column {feature!r}")

    def feeds(self, feature: str) -> set[str]:
        """All that a feature is made from: columns, functions, and itself."""
        return self._graph.upstream([feature])

    def graph(self) -> FeatureGraph:
        """What the features are made from, to be drawn."""
        functions, drawn = self._graph.dependencies, self._graph.upstream(self.features)
        columns = [
            GraphNode(name=name, kind="column", feature=name in self.features)
            for name in sorted(drawn - functions.keys())
        ]
        made = [
            GraphNode(
                name=name,
                kind=self._kind(name),
                feature=name in self.features,
                summary=self._graph.summaries[name],
                reads=reads,
            )
            for name, reads in functions.items()
            if name in drawn
        ]
        return FeatureGraph(nodes=(*columns, *made))

    def _kind(self, function: str) -> NodeKind:
        if function in self._graph.fitted:
            return "fitted"
        return "feature" if function in self.features else "step"


def _raw(frame: Framed, needed: Iterable[str]) -> Mapping[str, Any]:
    """The frame's arrays. Raises InputError for the needed columns that are absent."""
    arrays = column_arrays(frame)
    absent = [name for name in needed if name not in arrays]
    if absent:
        known = [str(name) for name in arrays]
        raise InputError(
            [Problem("features", f"no column {n!r}{nearest(n, known)}") for n in absent]
        )
    return arrays


def _series(
    frame: pd.DataFrame, arrays: Mapping[str, Any], names: Sequence[str]
) -> dict[str, pd.Series]:
    """Columns of a frame that has these arrays, under the index 0…n-1 and contiguous in memory:
    NumPy may round the last bit of a strided array's exp or sin otherwise, and a row's value must
    not depend on its table."""
    index = frame.index
    if not (isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1):
        frame = frame.reset_index(drop=True)
    places = {name: place for place, name in enumerate(arrays)}
    columns = column_series(frame, {name: places[name] for name in names})
    for name in columns:
        array = arrays[name]
        if isinstance(array, np.ndarray) and not array.flags.c_contiguous:
            columns[name] = pd.Series(np.ascontiguousarray(array), name=name, copy=False)
    return columns


class _UnusableError(Exception):
    """A function's result that can't be used: what it is and what to do."""

    def __init__(self, what: str, fix: str) -> None:
        self.what, self.fix = what, fix


def _selection_problems(
    features: tuple[str, ...], spec: ModelSpec, graph: Functions
) -> list[Problem]:
    """What is wrong with the features model.yaml names, beyond what the spec itself refuses."""
    if not features:
        what = "no feature: no column is one, and features.py has no function"
        return [Problem("model.yaml, columns", what)]
    offered = [*spec.feature_columns, *(n for n in graph.dependencies if n not in graph.fitted)]
    problems = []
    for name in features:
        if name in graph.fitted:
            what = f"{name!r} is fitted state; name a function that uses it"
        elif name in graph.tables:
            what = f"{name!r} returns a DataFrame; name a function that returns a Series"
        elif name not in graph.dependencies and name not in spec.columns:
            what = f"no column or function {name!r}{nearest(name, offered)}"
        else:
            continue
        problems.append(Problem("model.yaml, features", what))
    return problems


def _result_array(values: object, index: pd.RangeIndex) -> Any:
    """A function's result as an array of float64 or text. Raises _UnusableError for all else."""
    if isinstance(values, np.ndarray):
        if values.shape != index.shape:
            what = f"returns an array of shape {values.shape} for {len(index):,} rows"
            raise _UnusableError(what, "return one value for each row, in the same order")
        return _feature_array(values)
    if not isinstance(values, pd.Series):
        fix = "a feature is a pandas Series or a NumPy array"
        raise _UnusableError(f"returns a {type(values).__name__}", fix)
    if not values.index.equals(index):
        what = f"returns {len(values):,} values for {len(index):,} rows, or under another index"
        raise _UnusableError(what, "return one value for each row, in the same order")
    plain = isinstance(values.dtype, np.dtype)
    return _feature_array(values.to_numpy() if plain else values.array)


def _feature_array(values: Any) -> Any:
    """Any array as one of float64 or text. Raises _UnusableError when it is neither."""
    dtype = values.dtype
    if isinstance(values, np.ndarray) and dtype.kind in "fiub":
        return values.astype(np.float64, copy=False)
    if isinstance(values, np.ndarray) and dtype.kind == "U":
        return pd.array(values, dtype="str")
    if isinstance(dtype, pd.StringDtype):
        return values.astype("str") if dtype.na_value is pd.NA else values
    if isinstance(dtype, pd.CategoricalDtype):
        return values.astype("str")
    if pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype):
        return pd.Series(values).to_numpy(np.float64, na_value=np.nan)
    if pd.api.types.is_object_dtype(dtype):
        kind = pd.api.types.infer_dtype(values, skipna=True)
        objects = pd.Series(values)
        if kind == "string":
            return objects.astype("str").array
        if kind in ("empty", "floating", "integer", "mixed-integer-float", "boolean"):
            return objects.where(objects.notna(), np.nan).astype(np.float64).to_numpy()
        raise _UnusableError(f"returns {kind} objects", "return numbers or text")
    if pd.api.types.is_datetime64_any_dtype(dtype) or pd.api.types.is_timedelta64_dtype(dtype):
        fix = "return a number, such as .dt.hour or .dt.total_seconds()"
        raise _UnusableError(f"returns values of type {dtype}", fix)
    raise _UnusableError(f"returns values of type {dtype}", "return numbers or text")


_MAKE_PLAIN = {
    pd.Series: "end with .to_dict()",
    pd.DataFrame: "end with .to_dict()",
    pd.Index: "end with .tolist()",
    np.ndarray: "end with .tolist()",
    pd.Timestamp: "end with .isoformat()",
    pd.Timedelta: "end with .total_seconds()",
    set: "end with sorted(…)",
}


def _plain(value: object, path: str = "") -> Any:
    """The value as JSON gives it back. Raises _UnusableError at what JSON can't hold."""
    at = f" at {path}" if path else ""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            fix = "leave missing values out (.dropna()) or give a number for them"
            raise _UnusableError(f"its fitted value is {value}{at}", fix)
        return float(value)
    if isinstance(value, list | tuple):
        return [_plain(item, f"{path}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                what = f"its fitted value has the key {key!r}{at}; JSON has text keys only"
                raise _UnusableError(what, "make keys text: .rename(index=str).to_dict()")
        return {str(k): _plain(item, f"{path}[{json.dumps(str(k))}]") for k, item in value.items()}
    kinds = (fix for kind, fix in _MAKE_PLAIN.items() if isinstance(value, kind))
    fix = next(kinds, "return a number, text, list, or dict with text keys")
    raise _UnusableError(
        f"its fitted value is a {type(value).__name__}{at}, which JSON can't hold", fix
    )
