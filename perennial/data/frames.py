"""The canonical frame: the one form in which rows reach feature code, checks and prediction.

It depends on model.yaml alone, so a batch of one row looks like a whole table: float → float64,
integer → int64 (float64 where missing values are allowed), boolean → bool (likewise), category and
string → ``str``, datetime → datetime64[us, UTC]; NaN or NaT where a value is missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pandas.api.internals import create_dataframe_from_blocks  # type: ignore[import-not-found]

from perennial.contracts.errors import InputError, Problem
from perennial.data.parsing import TYPES
from perennial.data.rows import Given, Rows, Typed
from perennial.spec.inputs import Column
from perennial.spec.schema import ModelSpec

__all__ = [
    "Canonical", "Framed", "Layout", "Rows", "Typed", "arrow_columns", "arrow_schema", "as_frame",
    "canonical_frame", "column_arrays", "column_series", "plain_array", "schema_digest",
    "table_columns", "table_rows", "to_arrow",
]  # fmt: skip

_FLOAT, _INTEGER, _BOOLEAN = _NUMPY = (np.dtype(np.float64), np.dtype(np.int64), np.dtype(np.bool_))
_TEXT = pd.StringDtype("pyarrow", na_value=np.nan)
_UTC = pd.DatetimeTZDtype("us", "UTC")
_NOWHERE = np.array([], dtype=np.int64)
_LARGEST = float(np.nextafter(2.0**63, 0))


def table_columns(spec: ModelSpec) -> dict[str, Column]:
    """Every column of a model's table, in its order: event time, entity, the others, the label.

    The event time is a datetime and never missing. A label that model.yaml doesn't declare is a
    float in a regression and a category otherwise (a class is then the text its source shows:
    ``1``, ``true``, ``late``); it may be missing as long as it isn't known.
    """
    time, label = spec.source.event_time, spec.label.column
    columns = dict(spec.columns)
    if time is not None:
        declared = columns.get(time, Column(type="datetime"))
        columns[time] = declared.model_copy(update={"nullable": False})
    if label not in columns:
        columns[label] = Column(type="float" if spec.objective == "regression" else "category")
    first = [c for c in (time, *spec.source.entity) if c is not None and c != label]
    order = dict.fromkeys((*first, *(c for c in columns if c != label), label))
    return {name: columns[name] for name in order}


def arrow_schema(columns: Mapping[str, Typed]) -> Any:
    """The Arrow schema in which a table stores these columns (float64, int64, bool, string,
    timestamp[us, UTC]; all may be null)."""
    return pa.schema([(name, TYPES[column.type]) for name, column in columns.items()])


def schema_digest(columns: Mapping[str, Typed]) -> str:
    """16 hexadecimal digits that change when the canonical frame of these columns would."""
    parts = [(name, column.type, column.nullable) for name, column in columns.items()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def canonical_frame(rows: Rows, columns: Mapping[str, Typed]) -> pd.DataFrame:
    """Rows as a canonical frame with exactly these columns, in their order: ``Layout.frame``."""
    return Layout(columns).frame(rows)


class Layout:
    """How the canonical frame of some columns lies in memory: a block for each of NumPy's types.
    Made once, used for every request.

    ``carried`` are the columns that whoever writes the rows down needs exactly: ``arrow_columns``
    of what is read has them in their table type, a large identifier to the last digit also beside
    a missing one. Those that are not among ``columns`` follow them in the frame. They may be
    absent, and nothing computes on them (``ArrowDtype``).
    """

    def __init__(
        self, columns: Mapping[str, Typed], carried: Mapping[str, Typed] | None = None
    ) -> None:
        self.columns = dict(columns)
        self.carried = {n: c for n, c in (carried or {}).items() if n not in self.columns}
        self._exact = {
            name: column
            for name, column in self.columns.items()
            if name in (carried or {}) and column.type == "integer" and column.nullable
        }
        self._order = (*self.columns, *self.carried)
        self._names = pd.Index(self._order)
        self._floats = [n for n, c in self.columns.items() if c.type == "float" and c.nullable]
        self._shared: dict[np.dtype[Any], list[str]] = {dtype: [] for dtype in _NUMPY}
        self._places: dict[np.dtype[Any], np.ndarray] = {}
        self._alone: list[tuple[str, np.ndarray]] = []
        for place, name in enumerate(self._names):
            dtype = _numpy_dtype(self.columns[name]) if name in self.columns else None
            if dtype is None:
                self._alone.append((name, np.array([place])))
            else:
                self._shared[dtype].append(name)
                self._places[dtype] = np.append(self._places.get(dtype, _NOWHERE), place)

    def frame(self, rows: Rows) -> pd.DataFrame:
        """The canonical frame of rows, which may have more columns, in any Arrow, pandas or plain
        Python type whose values parse. A DataFrame keeps its index.

        Raises InputError with every column that is absent or given twice, has a value that doesn't
        parse (infinity is one; the first such row is named, counted from 1), or misses a value
        where ``nullable`` is false.
        """
        return self.read(rows).frame

    def read(self, rows: Rows) -> Canonical:
        """The columns of ``frame``. Raises as that does."""
        given = Given(rows, self._order)
        arrays: dict[str, Any] = {}
        problems: dict[str, Problem] = {}
        numbers = given.plain_floats(self._floats)
        if numbers is not None:
            arrays.update(zip(self._floats, numbers, strict=True))
        for name, column in self.columns.items():
            if name in arrays:
                continue
            arrays[name], problem = given.canonical(name, column)
            if problem is not None:
                problems[name] = problem
        for name, column in self.carried.items():
            if name in given:
                arrays[name], problem = given.parsed(name, column)
                if problem is not None:
                    problems[name] = problem
            else:
                arrays[name] = pa.nulls(len(given.index), TYPES[column.type])
        floats = [name for name in self._shared[_FLOAT] if name not in problems]
        numbers = np.array([arrays[name] for name in floats], dtype=np.float64)
        infinite = np.isinf(numbers)
        if infinite.any():
            for at in np.flatnonzero(infinite.any(axis=1)):
                _, problem = given.parsed(floats[at], self.columns[floats[at]])
                if problem is not None:
                    problems[floats[at]] = problem
        if problems:
            raise InputError([problems[name] for name in self._order if name in problems])
        arrays.update(zip(floats, numbers, strict=True))
        parsed = {name: arrays[name] for name, _ in self._alone}
        for name, array in parsed.items():
            arrays[name] = _extension(array, name in self.carried)
        stored = {name: array for name, array in parsed.items() if isinstance(array, pa.Array)}
        for name, column in self._exact.items():
            stored[name], _ = given.parsed(name, column)
        arrays = {name: arrays[name] for name in self._order}
        return Canonical(self, arrays, numbers, stored, given.index)

    def _framed(self, rows: Canonical) -> pd.DataFrame:
        arrays = rows.arrays
        blocks = [
            (rows.numbers if dtype is _FLOAT else np.array([arrays[n] for n in names]), places)
            for dtype, names in self._shared.items()
            if (places := self._places.get(dtype)) is not None
        ]
        blocks += [(arrays[name], place) for name, place in self._alone]
        frame: pd.DataFrame = create_dataframe_from_blocks(blocks, rows.index, self._names)
        return frame


class Canonical:
    """Rows in canonical form, by column: what ``Layout.frame`` gives before it is a frame.

    ``arrays`` are NumPy arrays or pandas' extension arrays, in order, to be read only; ``numbers``
    holds those of float64 (columns, rows), ``stored`` the Arrow arrays of columns that are better
    written down from these: text, and what is carried. A frame takes as long to make as a few
    features, so it is made when somebody asks for it: feature code on arrays, and who writes rows
    down, need none.
    """

    def __init__(
        self,
        layout: Layout,
        arrays: dict[str, Any],
        numbers: np.ndarray,
        stored: Mapping[str, Any],
        index: pd.Index,
    ) -> None:
        self.arrays: Mapping[str, Any] = arrays
        self.numbers = numbers
        self.stored = stored
        self.index = index
        self._layout = layout

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def frame(self) -> pd.DataFrame:
        return self._layout._framed(self)


Framed: TypeAlias = "pd.DataFrame | Canonical"
"""Rows in canonical form, in either of its shapes."""


def as_frame(rows: Framed) -> pd.DataFrame:
    return rows.frame if isinstance(rows, Canonical) else rows


def same_form(one: Typed, other: Typed) -> bool:
    """Whether two declarations of a column give the same canonical column."""
    numbers = one.type in ("integer", "boolean")
    return one.type == other.type and (not numbers or one.nullable == other.nullable)


def same_values(one: Typed, other: Typed) -> bool:
    """Whether a value means the same under two declarations of a column: a category is text as a
    string is, an integer a number as a float is. Else what one has as ``"01"`` or ``"True"``, the
    other may have as 1 or true."""
    kinds = {"string": "category", "integer": "float"}
    return kinds.get(one.type, one.type) == kinds.get(other.type, other.type)


def column_arrays(frame: Framed) -> Mapping[str, Any]:
    """A frame's columns by name as they lie in memory: NumPy arrays or pandas' extension arrays, to
    be read only. (``frame[name]`` makes a Series, which takes as long as predicting a row.)"""
    if isinstance(frame, Canonical):
        return frame.arrays
    return dict(zip(frame.columns.tolist(), frame._iter_column_arrays(), strict=True))  # type: ignore[operator]


def plain_array(array: Any) -> np.ndarray:
    """A column's array (of ``column_arrays``) as a NumPy array, contiguous in memory and read-only:
    numbers as they are, times as datetime64[us] in UTC, text as objects with NaN where a value is
    missing."""
    plain: np.ndarray
    if isinstance(array, pd.arrays.DatetimeArray):
        plain = array.asi8.view("M8[us]")  # type: ignore[attr-defined]
    elif isinstance(array, np.ndarray):
        plain = np.ascontiguousarray(array).view()
    else:
        plain = array.to_numpy(object)
    plain.flags.writeable = False
    return plain


def column_series(frame: pd.DataFrame, places: Mapping[str, int]) -> dict[str, pd.Series]:
    """Columns at these places as Series: ``{name: frame[name] for name in places}`` in half the
    time, which is felt where a row is predicted. (Copy-on-write holds: changing one doesn't change
    the frame.)"""
    columns = {}
    for name, place in places.items():
        manager = frame._mgr.iget(place)
        columns[name] = series = pd.Series._from_mgr(manager, manager.axes)  # type: ignore[attr-defined]
        series._name = name
    return columns


def to_arrow(frame: Framed, columns: Mapping[str, Typed]) -> Any:
    """The columns of a canonical frame as an Arrow record batch in table types (``arrow_schema``),
    in the order of ``columns``; NaN and NaT become null."""
    return pa.RecordBatch.from_arrays(arrow_columns(frame, columns), names=list(columns))


def arrow_columns(frame: Framed, columns: Mapping[str, Typed]) -> list[Any]:
    """``to_arrow`` by column, for who has a batch to put them in: naming them takes a third of the
    time."""
    arrays = column_arrays(frame)
    if isinstance(frame, Canonical):
        arrays = {**arrays, **frame.stored}
    found = {name: arrays[name] for name in columns}
    floats = [n for n, a in found.items() if isinstance(a, np.ndarray) and a.dtype == _FLOAT]
    if floats:  # all at once: each by itself takes as long
        numbers = pa.array(np.concatenate([found[name] for name in floats]), from_pandas=True)
        found |= {n: numbers.slice(i * len(frame), len(frame)) for i, n in enumerate(floats)}
    return [_to_table_type(found[name], column) for name, column in columns.items()]


def table_rows(rows: Rows, columns: Mapping[str, Typed]) -> Any:
    """Rows as an Arrow record batch in table types, without a frame in between: integers stay exact
    beside missing ones. All may be missing. Raises InputError as ``Layout.frame`` does."""
    given = Given(rows, columns)
    arrays, problems = [], []
    for name, column in columns.items():
        values, problem = given.parsed(name, column)
        arrays.append(values)
        if problem is not None:
            problems.append(problem)
    if problems:
        raise InputError(problems)
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _numpy_dtype(column: Typed) -> np.dtype[Any] | None:
    """The dtype of a canonical column; None for pandas' own (text and times)."""
    if column.type in ("category", "string", "datetime"):
        return None
    if column.type == "float" or column.nullable:
        return _FLOAT
    return _INTEGER if column.type == "integer" else _BOOLEAN


def _extension(array: Any, carried: bool) -> Any:
    """An extension array for a column that no NumPy block holds."""
    if carried:
        return pd.arrays.ArrowExtensionArray(array)
    if isinstance(array, np.ndarray):  # of times; the public way is twenty times as long
        return pd.arrays.DatetimeArray._simple_new(array, dtype=_UTC)  # type: ignore[attr-defined]
    return pd.arrays.ArrowStringArray(array, dtype=_TEXT)  # type: ignore[call-arg]


def _to_table_type(array: Any, column: Typed) -> Any:
    """An array of a canonical frame, or its floats in Arrow, in the table type."""
    kind = TYPES[column.type]
    if isinstance(array, pd.arrays.DatetimeArray):
        micros: np.ndarray = array.asi8  # type: ignore[attr-defined]
        missing = np.isnat(micros.view("M8[us]"))
        return pa.array(micros, mask=missing if missing.any() else None).view(kind)
    values = pa.array(array)
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if values.type == kind:
        return values
    try:
        return values.cast(kind)
    except pa.ArrowInvalid:  # an integer near 2**63, which as a float has become 2**63
        return pc.min_element_wise(values, _LARGEST, skip_nulls=False).cast(kind)
