"""What a column of a file seems to be: its type, whether it can be a feature, and bounds for it."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from perennial.contracts.features import ColumnType
from perennial.data.notations import Decimal, described
from perennial.data.parsing import MISSING, is_text, parse, unwrapped, with_points
from perennial.spec.values import shown

MAX_LEVELS = 250
"""A text column with more distinct values, or with fewer than five rows for each, is a string."""

_ROWS_A_LEVEL = 5
_EXACT = 2**53
_IDENTIFIER = re.compile(r"(?:^|[_\W])(?:id|key|uuid|guid)$|[a-z](?:Id|ID)$|^ID$", re.IGNORECASE)
_CAMEL_IDENTIFIER = re.compile(r"[a-z](?:Id|ID)$")
_FIGURES_ONLY = r"^\s*[+-]?[0-9]+\s*$"
_LEADING_ZERO = r"^\s*[+-]?0[0-9]"


@dataclass(frozen=True, slots=True)
class Guess:
    """One column. ``values`` are parsed to the type (None when the column is left out, which
    ``note`` explains); ``distinct`` and ``missing`` count in the sample. ``faulty`` marks the rows
    that don't parse to the type; None when all do."""

    name: str
    type: ColumnType
    values: Any
    distinct: int
    missing: int
    feature: bool
    note: str = ""
    faulty: np.ndarray | None = None

    @property
    def rows(self) -> int:
        """Rows that have a value of the type."""
        return len(self.values) - int(self.values.null_count)

    def range_seen(self) -> tuple[float, float]:
        """Least and greatest of a numeric column's values."""
        ends = pc.min_max(self.values)
        return ends["min"].as_py(), ends["max"].as_py()

    def shares(self) -> dict[Any, float]:
        """The share of each value among the rows that have one, in the order of the values."""
        counts = self.values.drop_null().value_counts().to_pylist()
        return {c["values"]: c["counts"] / self.rows for c in sorted(counts, key=_by_value)}


def guess(name: str, values: Any, decimal: Decimal = ".", placeholders: float = 0.0) -> Guess:
    """What a column seems to be; ``values`` is an Arrow array, text for a CSV with this decimal
    mark.

    The narrowest type that every value parses as: boolean (true and false only), integer, float,
    datetime, else a category or a string. Whole numbers with leading zeros, or too great for a
    float, are text. Not a feature: a column with one value, a string, a datetime, and whole numbers
    that differ in every row or are called an id.

    In at most this share of the rows texts without a figure (``n.a.``, ``-``) may stand among
    numbers or times without making text of them: they are ``faulty``. Among whole numbers with few
    different values they are levels of a category.
    """
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    values = unwrapped(values)
    if is_text(values.type):
        values = values.cast(pa.string())  # of views Arrow knows less
    written = with_points(values) if decimal == "," and is_text(values.type) else values
    kind = _type(written)
    if kind is None:
        return left_out(name, f"holds {values.type}")
    if kind == "string" and is_text(values.type):
        kind = _but_for_placeholders(written, placeholders)
    parsed = parse(values, kind, decimal)
    found, faulty = parsed.values, parsed.faulty
    if found.null_count == len(found):
        return left_out(name, "every value is missing")
    distinct = pc.count_distinct(found).as_py()
    if kind == "string" and distinct <= _most_levels(found):
        kind = "category"
    feature, note = _use(name, kind, values, found, distinct)
    missing = found.null_count - (0 if faulty is None else int(faulty.sum()))
    return Guess(name, kind, found, distinct, missing, feature, note, faulty)


def bounds(low: float, high: float) -> tuple[float, float]:
    """Bounds far from what was seen, to catch broken values and not rare ones: 0 where nothing is
    negative, and a power of ten at least ten times the greatest size."""
    size = max(abs(low), abs(high))
    power = math.ceil(math.log10(size) + 1) if size else 0
    limit = 10.0**power if power <= sys.float_info.max_10_exp else sys.float_info.max
    return (0.0 if low >= 0 else -limit), limit


def tells_label(column: Guess, label: np.ndarray, classes: bool) -> bool:
    """Whether a feature alone leaves less than a twentieth of the doubt about the label: of the
    errors of always naming the commonest class, or of a number's variance.

    ``label`` holds a number or a class's code a row, NaN where missing. A number is cut into 64
    parts of about as many rows. Parts of fewer than 20 rows on average say nothing: False.
    """
    known = ~np.isnan(label)
    if column.type == "category":
        part = pc.fill_null(column.values.dictionary_encode().indices, -1).to_numpy()
    else:
        numbers = column.values.cast(pa.float64()).to_numpy(zero_copy_only=False)
        cuts = np.unique(np.nanquantile(numbers, np.linspace(0, 1, 65)[1:-1]))
        part = np.where(np.isnan(numbers), -1, np.searchsorted(cuts, numbers))
    part = np.unique(part[known], return_inverse=True)[1]
    target = label[known]
    parts = int(part.max()) + 1
    if len(target) < 20 * parts:
        return False
    if not classes:
        means = np.bincount(part, target) / np.bincount(part)
        return bool(np.var(target - means[part]) < 0.05 * np.var(target))
    codes = target.astype(np.int64)
    width = int(codes.max()) + 1
    counts = np.bincount(part * width + codes, minlength=parts * width).reshape(parts, width)
    errors = len(target) - counts.max(axis=1).sum()
    return bool(errors < 0.05 * (len(target) - np.bincount(codes).max()))


def is_identifier(name: str) -> bool:
    """Whether a column is called an id or a key."""
    return bool(_IDENTIFIER.search(name)) or bool(_CAMEL_IDENTIFIER.search(name))


def left_out(name: str, note: str) -> Guess:
    """A column that no model.yaml names, and why."""
    return Guess(name, "string", None, 0, 0, feature=False, note=note)


def _type(values: Any) -> ColumnType | None:
    kind = values.type
    if pa.types.is_null(kind):
        return "string"
    if is_text(kind):
        return _type_of_text(pc.unique(values.cast(pa.string())))
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind):
        return "integer" if _exact(values) else "string"
    if pa.types.is_decimal(kind):
        return _type_of_decimals(values)
    if pa.types.is_floating(kind):
        return "float"
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "datetime"
    return None


def _type_of_decimals(values: Any) -> ColumnType:
    """Databases keep long numbers of things as decimals, some of them with a scale."""
    if _exact(values):
        return "integer" if values.type.scale <= 0 else "float"
    whole = pc.all(pc.equal(pc.trunc(values), values)).as_py()
    return "string" if whole else "float"


def _type_of_text(distinct: Any) -> ColumnType:
    if distinct.null_count == len(distinct):
        return "string"
    if len(distinct) <= 12 and parse(distinct, "boolean").faulty is None:
        words = {text.strip().lower() for text in distinct.drop_null().to_pylist()}
        if "true" in words or "false" in words:
            return "boolean"
    if pc.any(pc.match_substring_regex(distinct, _LEADING_ZERO)).as_py():
        return "string"
    whole = parse(distinct, "integer")
    if whole.faulty is None:
        return "integer" if _exact(whole.values) else "string"
    others = distinct.filter(pa.array(whole.faulty))
    if pc.all(pc.match_substring_regex(others, _FIGURES_ONLY)).as_py():  # of more than 64 bits
        return "string"
    for kind in ("float", "datetime"):
        if parse(distinct, kind).faulty is None:
            return kind
    return "string"


def _but_for_placeholders(texts: Any, most: float) -> ColumnType:
    """The type of texts that are no numbers or times as a whole: that of those with a figure in
    them, where the others are at most this share."""
    figures = pc.match_substring_regex(texts, "[0-9]")
    others = pc.sum(pc.invert(figures)).as_py() or 0
    if not 0 < others <= most * (len(texts) - texts.null_count) + _missing_words(texts):
        return "string"
    kind = _type_of_text(pc.unique(pc.if_else(figures, texts, pa.scalar(None, pa.string()))))
    if kind == "integer" and pc.count_distinct(texts).as_py() <= _most_levels(texts):
        return "string"
    return kind if kind in ("integer", "float", "datetime") else "string"


def _missing_words(texts: Any) -> int:
    """How many say that a value is missing."""
    words = pc.utf8_lower(pc.utf8_trim_whitespace(texts))
    return int(pc.sum(pc.is_in(words, pa.array(sorted(MISSING)))).as_py() or 0)


def _most_levels(values: Any) -> int:
    known: int = len(values) - values.null_count
    return min(MAX_LEVELS, known // _ROWS_A_LEVEL)


def _exact(whole: Any) -> bool:
    """A float holds each of the whole numbers exactly."""
    ends = pc.min_max(whole)
    low, high = ends["min"].as_py(), ends["max"].as_py()
    return low is None or (low > -_EXACT and high < _EXACT)


def _use(name: str, kind: ColumnType, values: Any, parsed: Any, distinct: int) -> tuple[bool, str]:
    rows = len(parsed) - parsed.null_count
    if distinct == 1:
        return False, f"one value only: {shown(parsed.drop_null()[0].as_py())}"
    if kind == "integer" and distinct == rows and rows == len(parsed):
        return False, "another number in every row: an identifier"
    if kind == "integer" and distinct > MAX_LEVELS and is_identifier(name):
        return False, "an identifier, by its name"
    meant = described(values) if kind in ("category", "string") and is_text(values.type) else ""
    if kind == "string":
        every = "another text in every row" if distinct == rows else f"{distinct:,} different texts"
        return False, meant or every
    return kind != "datetime", meant


def _by_value(count: dict[str, Any]) -> Any:
    return count["values"]
