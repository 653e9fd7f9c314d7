"""Columns of rows in any form (Arrow, pandas, plain Python values), each brought to its type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from perennial.contracts.errors import Problem
from perennial.contracts.features import ColumnType
from perennial.data.parsing import EXPECTED, Parsed, parse
from perennial.data.plain import parse_plain, plain_numbers, quick_plain
from perennial.data.row_numbers import at_row
from perennial.spec.values import nearest, shown

Rows: TypeAlias = "pd.DataFrame | pa.Table | pa.RecordBatch | Mapping[str, Sequence[object]]"
"""Rows in any form; a Mapping holds plain Python values by column, None where one is missing."""

_FLOAT = np.dtype(np.float64)
_PLAIN = (list, tuple)
_TWICE = object()


class Typed(Protocol):
    """What decides a column's canonical form: a Column of model.yaml, or an InputColumn."""

    @property
    def type(self) -> ColumnType: ...
    @property
    def nullable(self) -> bool: ...


class Given:
    """The columns of some rows. ``index`` is a frame's own, else 0…n-1."""

    def __init__(self, rows: Rows, wanted: Iterable[str]) -> None:
        self.index: pd.Index
        self._rows = rows
        self._columns: Mapping[str, Any]
        if isinstance(rows, pd.DataFrame):
            columns: dict[str, Any] = {name: rows[name] for name in wanted if name in rows}
            several = [name for name, found in columns.items() if isinstance(found, pd.DataFrame)]
            self._columns = columns | dict.fromkeys(several, _TWICE)
            self.index = rows.index
        elif isinstance(rows, Mapping):
            self._columns = rows
            self.index = pd.RangeIndex(len(next(iter(rows.values()))) if rows else 0)
        else:
            names = rows.schema.names
            columns = dict(zip(names, rows.columns, strict=True))
            if len(columns) < len(names):
                columns |= {name: _TWICE for name in names if names.count(name) > 1}
            self._columns = columns
            self.index = pd.RangeIndex(rows.num_rows)
        self._size = len(self.index)

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def plain_floats(self, names: Sequence[str]) -> np.ndarray | None:
        """Float columns of plain numbers all at once, (columns, rows), NaN where one is missing.
        None when there is anything else in one of them. Infinity may remain."""
        columns: list[Any] = [self._columns.get(name) for name in names]
        kinds: set[type] = set()
        for values in columns:
            if type(values) not in _PLAIN or len(values) != self._size:
                return None
            kinds.update(map(type, values))
        return plain_numbers(columns, kinds) if columns else None

    def canonical(self, name: str, column: Typed) -> tuple[Any, Problem | None]:
        """A column's values for a canonical frame, or what is wrong with it: a NumPy array of
        float64, int64, bool or datetime64[us], or an Arrow array of large_string.

        Infinity may remain in an array of float64; then ``parsed`` tells where it is.
        """
        values = self._columns.get(name)
        if values is None or values is _TWICE or len(values) != self._size:
            return None, self._misfit(name, values)
        array = _quick(values, column)
        return (array, None) if array is not None else _canonical(name, values, column)

    def parsed(self, name: str, column: Typed) -> tuple[Any, Problem | None]:
        """A column's values in its table type, or what is wrong with it; missing ones may be."""
        values = self._columns.get(name)
        if values is None or values is _TWICE or len(values) != self._size:
            return None, self._misfit(name, values)
        return _parsed(name, values, column)

    def _misfit(self, name: str, values: Any) -> Problem:
        if values is None:
            rows = self._rows
            known = rows if isinstance(rows, pd.DataFrame | Mapping) else rows.schema.names
            what = f"no such column{nearest(name, (str(each) for each in known))}"
        elif values is _TWICE:
            what = "there are several columns of this name"
        else:
            what = f"has {len(values):,} values, the first column {self._size:,}"
        return Problem(f"column {name!r}", what)


def _quick(values: Any, column: Typed) -> Any | None:
    """The canonical column of values in a form that needs no parsing, else None. Infinity may
    remain in it."""
    kind, nullable = column.type, column.nullable
    if isinstance(values, _PLAIN):
        return quick_plain(values, kind, nullable)
    arrow = isinstance(values, pa.ChunkedArray | pa.Array)
    if kind == "float" and (
        pa.types.is_float64(values.type)
        if arrow
        else isinstance(values, pd.Series | np.ndarray) and values.dtype == _FLOAT
    ):
        numbers = values.to_numpy(zero_copy_only=False) if arrow else np.asarray(values)
        return None if not nullable and np.isnan(numbers).any() else numbers
    if kind == "integer" and arrow and values.type == pa.int64() and not values.null_count:
        numbers = values.to_numpy(zero_copy_only=False)
        return numbers.astype(np.float64) if nullable else numbers
    return None


def _canonical(name: str, values: Any, column: Typed) -> tuple[Any, Problem | None]:
    """The canonical column of any values by parsing them, or what is wrong with it."""
    parsed, problem = _parsed(name, values, column)
    if problem is None and parsed.null_count and not column.nullable:
        what = f"{parsed.null_count} of {len(parsed)} values are missing"
        problem = Problem(f"column {name!r}", what, "model.yaml says nullable: false")
    if problem is not None:
        return None, problem
    if column.type in ("category", "string"):
        return parsed.cast(pa.large_string()), None
    if column.type != "datetime" and (column.type == "float" or column.nullable):
        parsed = parsed.cast(pa.float64(), safe=False)
    return parsed.to_numpy(zero_copy_only=False), None


def _parsed(name: str, values: Any, column: Typed) -> tuple[Any, Problem | None]:
    """Any values in the table type of their column, or what is wrong with the first that isn't
    of it."""
    values, parsed = _parse(values, column.type)
    if parsed.faulty is None:
        return parsed.values, None
    first, count = int(np.argmax(parsed.faulty)), int(parsed.faulty.sum())
    value = _as_python(values[first])
    what = f"{shown(value)} {EXPECTED[column.type]}"
    if count > 1:
        what += f"; so are {count} values"
    return None, Problem(at_row(f"column {name!r}", first), what)


def _as_python(value: Any) -> object:
    if not isinstance(value, pa.Scalar):
        return value
    try:
        return value.as_py()
    except (OverflowError, ValueError, KeyError):  # a time beyond Python's, or of an unknown zone
        return _as_python(value.value)  # a dictionary's is a scalar


def _parse(values: Any, kind: ColumnType) -> tuple[Any, Parsed]:
    """The values as a sequence, and parsed. Objects are looked at one by one: each means what it
    would alone."""
    if isinstance(values, pa.ChunkedArray | pa.Array):
        return values, parse(values, kind)
    if isinstance(values, pd.Series | np.ndarray) and values.dtype != np.object_:
        try:
            array = pa.array(values, from_pandas=True)
            return array, parse(array, kind)
        except (pa.ArrowException, NotImplementedError):
            pass  # a dtype that Arrow doesn't know
    values = values.tolist() if isinstance(values, pd.Series | np.ndarray) else values
    return values, parse_plain(values, kind)
