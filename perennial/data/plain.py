"""Columns of plain Python values, as a JSON request brings them, to a column's type.

``parse_plain`` says what a value means: what it means alone, whatever stands beside it, for rows of
several requests are predicted together. ``quick_plain`` gives the same for the values that requests
are made of, in a few microseconds; what it leaves alone goes the other way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from perennial.contracts.features import ColumnType
from perennial.data.parsing import TYPES, Parsed, parse, parse_time

_NONE = type(None)
_NUMBERS = frozenset({float, int, _NONE})
_WHOLE = frozenset({int})
_FLAGS = frozenset({bool})
_TEXTS = frozenset({str})
_USUAL = {"integer": _WHOLE | {_NONE}, "category": _TEXTS | {_NONE}, "string": _TEXTS | {_NONE}}
_NESTED = (dict, list, tuple, set)
_SMALLEST, _LARGEST = -(2**63), 2**63 - 1
_LONGEST = 4096  # bits; any such number is beyond a float, and Python limits its digits in text
_FEW_TIMES = 64  # up to these many, reading each by itself is quicker than casting them as a whole


def quick_plain(values: Sequence[object], kind: ColumnType, nullable: bool) -> Any | None:
    """The values as a canonical column lays them down: a NumPy array of float64, int64, bool or
    datetime64[us], or an Arrow array of large_string with nulls.

    None when a value isn't of the type's own Python type, is missing though ``nullable`` is false,
    or needs a closer look. Infinity passes in a float column: look for it in all of them at once.
    """
    kinds = set(map(type, values))
    missing = _NONE in kinds
    if missing:
        if not nullable:
            return None
        kinds.discard(_NONE)
    try:
        if kind == "float":
            numbers = plain_numbers(values, kinds)
            unknown = numbers is not None and not nullable and np.isnan(numbers).any()
            return None if unknown else numbers
        if kind in ("category", "string"):
            if not kinds <= _TEXTS or "" in values:
                return None
            return pa.array(values, pa.large_string())
        if kind == "integer":
            if not kinds <= _WHOLE:
                return None
            return _whole(values, nullable, missing)
        if kind == "boolean":
            if not kinds <= _FLAGS:
                return None
            return np.array(values, dtype=np.float64 if nullable else np.bool_)
    except (OverflowError, UnicodeEncodeError):  # an integer too large, half a surrogate pair
        return None
    if not kinds <= _TEXTS or len(values) > _FEW_TIMES:
        return None
    return _times(values)


def plain_numbers(values: Sequence[object], kinds: set[type]) -> np.ndarray | None:
    """Numbers of these Python types as float64 (None is NaN); None for other types. ``values`` may
    be nested."""
    if not kinds <= _NUMBERS:
        return None
    try:
        return np.array(values, dtype=np.float64)
    except OverflowError:  # an integer beyond floats
        return None


def _whole(values: Sequence[object], nullable: bool, missing: bool) -> np.ndarray:
    if not nullable:
        return np.array(values, dtype=np.int64)
    known = [0 if value is None else value for value in values] if missing else values
    numbers = np.array(known, dtype=np.int64).astype(np.float64)
    if missing:
        numbers[[value is None for value in values]] = np.nan
    return numbers


def _times(texts: Sequence[Any]) -> np.ndarray | None:
    moments = []
    for text in texts:
        moment = None if text is None else parse_time(text.strip())
        if moment is None and text is not None:
            return None
        moments.append(None if moment is None else moment.replace(tzinfo=None))
    return np.array(moments, dtype="datetime64[us]")


def parse_plain(values: Sequence[object], kind: ColumnType) -> Parsed:
    """Plain values in a column's table type. Those of each Python type are parsed by themselves:
    numbers as numbers, true and false as such, text as a CSV's text; None, NaN, NaT and NA are
    missing; objects and lists are faulty, and so is text that is no Unicode."""
    usual = _USUAL.get(kind)
    if usual is not None and set(map(type, values)) <= usual and "" not in values:
        try:
            return Parsed(pa.array(values, TYPES[kind]), None)
        except (OverflowError, UnicodeEncodeError):
            pass
    groups: dict[object, list[int]] = {}
    for place, value in enumerate(values):
        groups.setdefault(_group(value), []).append(place)
    parts, places, faulty = [], [], np.zeros(len(values), dtype=np.bool_)
    for group, members in groups.items():
        parsed = _parse_group(group, [values[place] for place in members], kind)
        if parsed.faulty is not None:
            faulty[members] = parsed.faulty
        parts.append(parsed.values)
        places += members
    marks = faulty if faulty.any() else None
    if len(parts) == 1:
        return Parsed(parts[0], marks)
    if not parts:
        return Parsed(pa.array([], TYPES[kind]), None)
    return Parsed(pa.concat_arrays(parts).take(pa.array(np.argsort(places))), marks)


def _group(value: object) -> object:
    """What is parsed together: a type, "missing", "large" (integers beyond int64), "nothing"."""
    kind = type(value)
    if kind is str or kind is bool:
        return kind
    if kind is int:
        if _SMALLEST <= value <= _LARGEST:  # type: ignore[operator]
            return kind
        return "large" if value.bit_length() <= _LONGEST else "nothing"  # type: ignore[attr-defined]
    if value is None or value is pd.NA or value is pd.NaT:
        return "missing"
    return "nothing" if isinstance(value, _NESTED) else kind


def _parse_group(group: object, values: list[Any], kind: ColumnType) -> Parsed:
    if group == "missing":
        return Parsed(pa.nulls(len(values), TYPES[kind]), None)
    try:
        if group == "large":
            return parse(pa.array([str(value) for value in values], pa.string()), kind)
        if group != "nothing":
            return parse(pa.array(values, from_pandas=True), kind)
    except UnicodeEncodeError:
        if len(values) > 1:
            return _one_by_one(values, kind)
    except (pa.ArrowException, ArithmeticError, ValueError, TypeError):
        pass  # a Python type that Arrow doesn't know
    return Parsed(pa.nulls(len(values), TYPES[kind]), np.ones(len(values), dtype=np.bool_))


def _one_by_one(values: list[Any], kind: ColumnType) -> Parsed:
    each = [_parse_group(str, [value], kind) for value in values]
    faulty = np.array([parsed.faulty is not None for parsed in each])
    return Parsed(pa.concat_arrays([parsed.values for parsed in each]), faulty)
