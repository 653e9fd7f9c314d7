"""Values of any Arrow type to the five types a table holds; what does not parse is marked.

The rules for text are those of ``_PARSERS``. A column is cast as a whole first, which is quick and
gives the same values; only when that fails are its distinct texts looked at one by one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from perennial.contracts.features import ColumnType

TYPES: dict[ColumnType, Any] = {
    "float": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "category": pa.string(),
    "string": pa.string(),
    "datetime": pa.timestamp("us", "UTC"),
}
"""How a table stores a column of each type."""

EXPECTED: dict[ColumnType, str] = {
    "float": "is not a number",
    "integer": "is not a whole number",
    "boolean": "is not true or false",
    "category": "is not text",
    "string": "is not text",
    "datetime": "is not a time (ISO 8601 such as 2013-07-01 06:00:00; epochs are not guessed)",
}
"""What is said of a value that does not parse."""

MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none"})
"""Texts, in any case, that mean a missing value in a column that is not text."""

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d+(\.0*)?", re.ASCII)
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d([ T]\d\d(:\d\d(:\d\d([.,]\d+)?)?)? ?(Z|[+-]\d\d(:?\d\d)?)?)?", re.ASCII
)
_BOOLEANS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
_INTEGERS = range(-(2**63), 2**63)
_LONG = r"^\s*[+-]?[0-9]{16,}(\.0*)?\s*$"  # shorter ones are exact
_FIGURES = r"^\s*[+-]?[0-9.,]+([eE][+-]?[0-9]+)?\s*$"
_NUMBERS = ("float", "integer", "boolean")
_LAST_MOMENT = 253_402_300_800_000_000  # the year 10000 in µs: beyond Python's datetime
_COARSE = {"s": 10**6, "ms": 10**3}  # microseconds
_FIRST_MOMENT = -62_135_596_800_000_000  # the year 1
UUID_LENGTH = 36
"""Characters of a UUID's usual text."""
_VIEWS = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
_NEVER = (pa.types.is_nested, pa.types.is_duration, pa.types.is_time, pa.types.is_interval)
_UUID_DIGITS = [at for at in range(UUID_LENGTH) if at not in (8, 13, 18, 23)]  # hyphens there


@dataclass(frozen=True, slots=True)
class Parsed:
    """A column in its table type. ``faulty`` marks the rows whose value did not parse (null in
    ``values``); None when all did."""

    values: Any
    faulty: np.ndarray | None


def parse(values: Any, kind: ColumnType, decimal: Literal[".", ","] = ".") -> Parsed:
    """Bring an Arrow array to the type of a column. ``decimal`` is the decimal mark of numbers that
    are text: with a comma, ``1,5`` is one and a half, and ``1.5`` does not parse.

    Text is read as a CSV would be: surrounding blanks are dropped in a column that is not text, and
    the words of ``MISSING`` are missing there; in a text column only "" is. NaN is missing;
    infinity is faulty. Naive times are UTC, times with an offset become UTC, parts finer than a
    microsecond are cut. A whole float or decimal is an integer; 0 and 1 are booleans; numbers are
    never times, and times beyond the years 1 to 9999 are faulty. Of dictionaries and extension
    types see ``unwrapped``.
    """
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    values = unwrapped(values)
    source = values.type
    if pa.types.is_large_string(source) or pa.types.is_string_view(source):
        values, source = values.cast(pa.string()), pa.string()
    if pa.types.is_null(source):
        return Parsed(pa.nulls(len(values), TYPES[kind]), None)
    if pa.types.is_string(source):
        pointed = with_points(values) if decimal == "," and kind in _NUMBERS else values
        return _marked(values, _from_text(pointed, kind), kind)
    return _marked(values, _typed(values, kind), kind)


def inexact(values: Any) -> list[str]:
    """The distinct whole numbers in an Arrow array of any type that ``parse`` can't make a float
    of to the last digit, as sorted texts: several of them may become the same float."""
    values = unwrapped(values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values)
    source = values.type
    if not (is_text(source) or pa.types.is_integer(source) or pa.types.is_decimal(source)):
        return []
    texts = pc.unique(values).cast(pa.string())
    long = texts.filter(pc.match_substring_regex(texts, _LONG))
    found = (text.strip() for text in long.to_pylist())
    return sorted(text for text in found if not _held(Decimal(text)))


def _held(number: Decimal) -> bool:
    size = float(number)
    return math.isinf(size) or Decimal(size) == number  # infinity is no value at all


def with_points(texts: Any) -> Any:
    """Texts in which numbers have a decimal comma as they are written with a point: ``1,5`` is
    ``1.5``, and ``1.234`` is ``1,234``, which does not parse. Other texts are as much of a number,
    or a time, as they were."""
    points = pc.match_substring(texts, ".")
    swapped = pc.replace_substring(texts, ",", ".")
    if pc.any(points).as_py():  # seldom: patterns are slow
        figures = pc.and_(points, pc.match_substring_regex(texts, _FIGURES))
        return pc.if_else(figures, pc.replace_substring(texts, ".", ","), swapped)
    return swapped


def unwrapped(values: Any) -> Any:
    """An Arrow array, or one in chunks, without the dictionary or the extension type around its
    values: a UUID is its usual text, lower case with hyphens, others are what they are stored as.
    """
    while True:
        kind = values.type
        if pa.types.is_dictionary(kind) and kind.value_type in _VIEWS:
            values = _of_views(values, _VIEWS[kind.value_type])
        elif pa.types.is_dictionary(kind):
            values = values.cast(kind.value_type)
        elif isinstance(kind, pa.BaseExtensionType):
            if isinstance(values, pa.ChunkedArray):
                values = values.combine_chunks()
            stored = values.storage
            values = _uuid_texts(stored) if isinstance(kind, pa.UuidType) else stored
        else:
            return values


def _of_views(values: Any, plain: Any) -> Any:
    """From a dictionary of views, from which Arrow takes nothing."""
    chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    taken = [chunk.dictionary.cast(plain).take(chunk.indices) for chunk in chunks]
    return pa.chunked_array(taken, plain).combine_chunks()


def _uuid_texts(stored: Any) -> Any:
    """From 16 bytes each: all at once, as one by one is slow."""
    count, first = len(stored), 16 * stored.offset
    texts = np.full((count, UUID_LENGTH), ord("-"), np.uint8)
    if count:
        digits = memoryview(stored.buffers()[1])[first : first + 16 * count].hex()
        texts[:, _UUID_DIGITS] = np.frombuffer(digits.encode(), np.uint8).reshape(count, -1)
    missing = stored.is_null().to_numpy(zero_copy_only=False)
    return pa.array(texts.view(f"S{UUID_LENGTH}").ravel(), pa.string(), mask=missing)


def _marked(values: Any, converted: Any, kind: ColumnType) -> Parsed:
    """Nulls that were none before are faults, save the words and the NaN that mean missing."""
    if converted.null_count == values.null_count:
        return Parsed(converted, None)
    lost = pc.and_(converted.is_null(), values.is_valid())
    if pa.types.is_floating(values.type):
        lost = pc.and_not(lost, pc.fill_null(pc.is_nan(values), False))
    elif pa.types.is_string(values.type):
        if kind in ("category", "string"):
            return Parsed(converted, None)
        words = pc.utf8_lower(pc.utf8_trim_whitespace(values))
        lost = pc.and_not(lost, pc.is_in(words, pa.array(sorted(MISSING))))
    faulty = lost.to_numpy(zero_copy_only=False)
    return Parsed(converted, faulty if faulty.any() else None)


def _from_text(texts: Any, kind: ColumnType) -> Any:
    if kind in ("category", "string"):
        empty = pc.equal(texts, "")
        return pc.if_else(empty, None, texts) if pc.any(empty).as_py() else texts
    cast = _cast_text(texts, kind)
    if cast is None:
        cast = _cast_text(pc.utf8_trim_whitespace(texts), kind)
    if cast is not None:
        return cast
    distinct = texts.dictionary_encode()
    parser = _PARSERS[kind]
    parsed = [
        None if text is None else parser(text.strip()) for text in distinct.dictionary.to_pylist()
    ]
    return pa.array(parsed, TYPES[kind]).take(distinct.indices)


def _cast_text(texts: Any, kind: ColumnType) -> Any | None:
    """The whole column at once; None when some text needs a closer look."""
    try:
        if kind == "datetime":
            return _within_calendar(_cast_times(texts))
        cast = texts.cast(TYPES[kind])
    except pa.ArrowInvalid:
        return None
    if kind == "float":
        return _finite(cast)
    hexadecimal = kind == "integer" and pc.any(pc.match_substring(texts, "x", ignore_case=True))
    return None if hexadecimal and hexadecimal.as_py() else cast


def _cast_times(texts: Any) -> Any:
    try:
        return texts.cast(pa.timestamp("us")).cast(TYPES["datetime"])
    except pa.ArrowInvalid:  # then all must have an offset
        return texts.cast(TYPES["datetime"])


def _float(text: str) -> float | None:
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else None


def _integer(text: str) -> int | None:
    if not _WHOLE.fullmatch(text):
        return None
    value = int(text.split(".", maxsplit=1)[0])
    return value if value in _INTEGERS else None


def _boolean(text: str) -> bool | None:
    return _BOOLEANS.get(text.lower())


def parse_time(text: str) -> datetime | None:
    """A time in UTC from text without blanks around it; None when it is none. It is what ``parse``
    makes of the text, one by one."""
    if not _TIME.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text.replace(",", ".").replace(" Z", "Z"))
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


_PARSERS: dict[ColumnType, Callable[[str], Any]] = {
    "float": _float,
    "integer": _integer,
    "boolean": _boolean,
    "datetime": parse_time,
}


def _typed(values: Any, kind: ColumnType) -> Any:
    """From an Arrow type that is not text; what can't be converted becomes null."""
    source = values.type
    nothing = pa.nulls(len(values), TYPES[kind])
    if any(is_other(source) for is_other in _NEVER):
        return nothing
    if kind in ("category", "string"):
        return _as_text(values)
    if kind == "datetime":
        return _moments(values) if pa.types.is_temporal(source) else nothing
    if pa.types.is_temporal(source) or is_binary(source):
        return nothing
    if kind == "float":
        return _finite(values.cast(pa.float64(), safe=False))
    if pa.types.is_boolean(source):
        return values.cast(TYPES[kind])
    if kind == "integer" and (pa.types.is_integer(source) or pa.types.is_decimal(source)):
        return _whole(values)
    numbers = values.cast(pa.float64(), safe=False)
    if kind == "boolean":
        known = pc.or_(pc.equal(numbers, 0.0), pc.equal(numbers, 1.0))
        return pc.if_else(known, pc.equal(numbers, 1.0), pa.scalar(None, pa.bool_()))
    whole = pc.and_(pc.equal(pc.floor(numbers), numbers), pc.less(pc.abs(numbers), 2.0**63))
    return pc.if_else(whole, values, pa.scalar(None, source)).cast(pa.int64())


def _whole(numbers: Any) -> Any:
    """Integers and decimals to the last digit, which a float would lose."""
    try:
        return numbers.cast(pa.int64())
    except pa.ArrowInvalid:  # one has a fraction, or is too large
        return pa.array([_int64(number) for number in numbers.to_pylist()], pa.int64())


def _int64(number: int | Decimal | None) -> int | None:
    whole = 0 if number is None else int(number)
    return whole if whole == number and whole in _INTEGERS else None


def _finite(values: Any) -> Any:
    finite = pc.is_finite(values)
    if pc.all(finite, min_count=0).as_py():
        return values
    return pc.if_else(finite, values, pa.scalar(None, pa.float64()))


def _moments(values: Any) -> Any:
    if values.type == TYPES["datetime"]:
        return _within_calendar(values)
    if pa.types.is_date(values.type):
        values = values.cast(pa.timestamp("s" if pa.types.is_date32(values.type) else "ms"))
    zone = values.type.tz if pa.types.is_timestamp(values.type) else None
    if pa.types.is_timestamp(values.type) and values.type.unit in _COARSE:
        # The cast below would wrap round without a word.
        near = pc.less(pc.abs(values.view(pa.int64())), 2**63 // _COARSE[values.type.unit])
        values = pc.if_else(near, values, pa.scalar(None, values.type))
    moments = values.cast(pa.timestamp("us", zone), safe=False)
    return _within_calendar(moments.cast(TYPES["datetime"]))


def _within_calendar(moments: Any) -> Any:
    micros = moments.view(pa.int64())
    first, last = (bound.as_py() for bound in pc.min_max(micros).values())
    if first is None or (first >= _FIRST_MOMENT and last < _LAST_MOMENT):
        return moments
    known = pc.and_(pc.greater_equal(micros, _FIRST_MOMENT), pc.less(micros, _LAST_MOMENT))
    return pc.if_else(known, moments, pa.scalar(None, TYPES["datetime"]))


def _as_text(values: Any) -> Any:
    if is_binary(values.type):
        try:
            return values.cast(pa.string())
        except pa.ArrowInvalid:
            return pa.array([_decoded(value) for value in values.to_pylist()], pa.string())
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    if pa.types.is_temporal(values.type):
        known = _moments(values).is_valid()
        values = pc.if_else(known, values, pa.scalar(None, values.type))
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid:  # times of a zone that nobody knows
        return pa.nulls(len(values), pa.string())


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def is_text(kind: Any) -> bool:
    """Whether an Arrow type holds text, in whatever layout."""
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def is_binary(kind: Any) -> bool:
    """Whether an Arrow type holds bytes, in whatever layout."""
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )
