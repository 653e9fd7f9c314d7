"""A value means the same whatever stands beside it in its column."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perennial.contracts.features import ColumnType
from perennial.data.parsing import TYPES, parse

KINDS = st.sampled_from(list(TYPES))
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(repr),
    st.from_regex(r"\A[+-]?\d{0,3}(\.\d{0,3})?([eE][+-]?\d{1,3})?\Z"),
    st.from_regex(r"\A0[xX][0-9a-fA-F]{1,18}\Z"),
)
TIMES = st.one_of(
    st.datetimes().map(str),
    st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat()),
    st.from_regex(
        r"\A[0-2]\d{3}-[01]\d-[0-3]\d([ T][0-2]\d(:[0-6]\d(:[0-6]\d(\.\d{1,9})?)?)?)?Z?\Z"
    ),
)
WORDS = st.sampled_from(["", "NA", "nan", "NULL", "true", "False", "1", "inf", " ", "-", "yes"])
TEXTS = st.one_of(
    st.none(), NUMBERS, TIMES, WORDS, st.text(max_size=8), NUMBERS.map(lambda t: f" {t} ")
)


def outcome(texts: list[str | None], kind: ColumnType) -> list[tuple[Any, bool]]:
    result = parse(pa.array(texts, pa.string()), kind)
    values = result.values
    if kind == "datetime":
        values = values.cast(pa.int64())
    faulty = [False] * len(texts) if result.faulty is None else result.faulty.tolist()
    return list(zip(values.to_pylist(), faulty, strict=True))


@settings(deadline=None, max_examples=300)
@given(st.lists(TEXTS, min_size=1, max_size=6), KINDS)
@example(["0001-01-01T00:00:00+05:00"], "datetime")
@example(["9223372036854775808", "0X8000000000000000"], "integer")
def test_a_text_parses_the_same_alone_and_among_others(
    texts: list[str | None], kind: ColumnType
) -> None:
    assert outcome(texts, kind) == [outcome([text], kind)[0] for text in texts]


@settings(deadline=None, max_examples=200)
@given(TEXTS, KINDS)
def test_a_value_is_either_faulty_or_reads_back_from_its_text(
    text: str | None, kind: ColumnType
) -> None:
    result = parse(pa.array([text], pa.string()), kind)
    if result.faulty is None:
        again = parse(parse(result.values, "string").values, kind)
        assert again.faulty is None
        assert again.values.equals(result.values)
    else:
        assert result.values.null_count == 1
