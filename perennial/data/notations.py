"""How the texts of a column write numbers and times that are none as they stand."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from perennial.contracts.features import ColumnType
from perennial.data.parsing import is_text, parse
from perennial.spec.values import shown

Decimal = Literal[".", ","]

_MOST = 0.9
"""The share of its rows that must be written in one way for it to be a column's notation."""

_MOST_PLAIN = 0.5

_LEAST_FRACTIONS = 0.05
"""Of numbers with three decimals a tenth end in 0 and may be written shorter; fewer texts that are
no thousands are slips in a column of thousands."""

_COMMA = r"^\s*[+-]?[0-9]+(,[0-9]+)?\s*$"
_POINT = r"^\s*[+-]?[0-9]*\.?[0-9]*([eE][+-]?[0-9]+)?\s*$"
_THOUSANDS = r"^\s*[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+\s*$"
_GROUPS = r",[0-9]{3},"
_WHOLE = r"^\s*[+-]?[0-9]+(,[0-9]+)*\s*$"
_BELOW_THOUSAND = r"^\s*[+-]?[0-9]{1,3}\s*$"
_CURRENCY = r"[$£¥€]|EUR|USD|GBP|CHF|JPY"
_DECORATED = (
    rf"^\s*({_CURRENCY})?\s*[+-]?({_CURRENCY})?\s*[0-9]+([., '’][0-9]{{3}})*([.,][0-9]+)?"
    rf"\s*(%|{_CURRENCY})?\s*$"
)
_BARE_GROUPS = r"^[+-]?[0-9]{1,3}([ .][0-9]{3})+$"
_DAY, _MONTH = "(0?[1-9]|[12][0-9]|3[01])", "(0?[1-9]|1[0-2])"
_LOCAL_TIMES = tuple(
    rf"^\s*{parts}([ T,].*)?$"
    for parts in (
        rf"{_DAY}[./-]{_MONTH}[./-]([0-9]{{2}}|[0-9]{{4}})",
        rf"{_MONTH}[./-]{_DAY}[./-]([0-9]{{2}}|[0-9]{{4}})",
        rf"[0-9]{{4}}[./]{_MONTH}[./]{_DAY}",
    )
)
_FEW_LEVELS = 20
_PLAIN: tuple[tuple[ColumnType, str], ...] = (("float", "numbers"), ("datetime", "times"))


def decimal_comma(columns: Iterable[Any]) -> str | None:
    """A number with a decimal comma, where that is the decimal mark of a CSV's columns of text:
    some have one in their numbers, and none has a point there or commas between thousands."""
    texts = [pc.unique(column).drop_null() for column in columns if is_text(column.type)]
    example = next(filter(None, map(comma_example, texts)), None)
    if example is None:
        return None
    pointed = (_all(figures, _POINT) and _some(figures, ".") for figures in map(_figures, texts))
    return None if any(pointed) or any(map(_in_thousands, map(_figures, texts))) else example


def comma_example(texts: Any) -> str | None:
    """A number with a decimal comma, where all texts that hold a figure are numbers and some have
    one. What may be thousands as well, such as ``1,234``, says nothing, nor does a slip or two
    among such."""
    figures = _figures(texts)
    if not len(figures) or not _all(figures, _COMMA):
        return None
    with_comma = figures.filter(pc.match_substring(figures, ","))
    fractions = with_comma.filter(pc.invert(pc.match_substring_regex(with_comma, _THOUSANDS)))
    if not len(fractions) or len(fractions) < _LEAST_FRACTIONS * len(with_comma):
        return None
    return str(fractions[0].as_py()).strip()


def described(texts: Any) -> str:
    """What keeps a column of texts from being numbers or times, where most of it is meant so; ""
    where it is not."""
    counts = texts.drop_null().value_counts()
    distinct, rows = counts.field("values").cast(pa.string()), counts.field("counts")
    if not len(distinct):
        return ""
    comma = comma_example(distinct)
    if comma is not None:
        plain = comma.replace(",", ".")
        return f"numbers with a decimal comma, such as {shown(comma)}, are text; write {plain}"
    for kind, what in _PLAIN:
        faulty = parse(distinct, kind).faulty
        if faulty is None:  # leading zeros, say: text by intent
            return ""
        others = pc.sum(rows.filter(pa.array(faulty))).as_py() / pc.sum(rows).as_py()
        if others <= 1 - _MOST_PLAIN:
            if len(distinct) <= _FEW_LEVELS and sum(faulty) > 1:  # levels, some of them figures
                return ""
            text = distinct.filter(pa.array(faulty))[0].as_py()
            return f"{1 - others:.1%} are {what}, but {shown(text)} is none, so all are text"
    for pattern, what, plain in (
        (_DECORATED, "numbers", "1234.5"),
        *((pattern, "times", "2025-01-31") for pattern in _LOCAL_TIMES),
    ):
        fits = pc.match_substring_regex(distinct, pattern)
        if (pc.sum(rows.filter(fits)).as_py() or 0) >= _MOST * pc.sum(rows).as_py():
            if _of_one_width(distinct.filter(fits)):
                continue
            # One that is no plain number itself shows best what is meant.
            odd = (text for text in distinct.filter(fits).to_pylist() if not re.match(_POINT, text))
            example = next(odd, distinct.filter(fits)[0].as_py())
            return f"{what} such as {shown(example.strip())} are text; write them as {plain}"
    return ""


def _of_one_width(texts: Any) -> bool:
    """Whether all are bare groups of figures of one length: telephone numbers and the like."""
    trimmed = pc.utf8_trim_whitespace(texts)
    widths = pc.count_distinct(pc.utf8_length(trimmed)).as_py()
    return widths == 1 and _all(trimmed, _BARE_GROUPS)


def _figures(texts: Any) -> Any:
    return texts.filter(pc.match_substring_regex(texts, "[0-9]"))


def _in_thousands(figures: Any) -> bool:
    """Whether commas stand between thousands and nowhere else: numbers below 1,000 have none, or
    some have two."""
    if not _all(figures, _WHOLE):
        return False
    commas = pc.match_substring(figures, ",")
    with_comma, without = figures.filter(commas), figures.filter(pc.invert(commas))
    thousands = pc.sum(pc.match_substring_regex(with_comma, _THOUSANDS)).as_py() or 0
    return (
        thousands > (1 - _LEAST_FRACTIONS) * len(with_comma)
        and _all(without, _BELOW_THOUSAND)
        and (
            len(without) > 0 or bool(pc.any(pc.match_substring_regex(with_comma, _GROUPS)).as_py())
        )
    )


def _all(texts: Any, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(texts, pattern), min_count=0).as_py())


def _some(texts: Any, part: str) -> bool:
    return bool(pc.any(pc.match_substring(texts, part), min_count=0).as_py())
