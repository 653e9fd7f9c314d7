"""A plain value means what it means alone and what training would read, whatever stands beside."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perennial.contracts.errors import InputError
from perennial.contracts.features import ColumnType, InputColumn
from perennial.data.frames import Layout, canonical_frame, table_rows, to_arrow
from perennial.data.parsing import TYPES, parse
from perennial.data.plain import parse_plain

KINDS = st.sampled_from(list(TYPES))
WORDS = st.sampled_from(
    ["", "NA", "nan", "true", "False", "1", "0", "-1.5", "inf", " 2 ", "x", "2024-05-01",
     "2024-05-01T06:00:00Z", "2024-05-01 06:00:00.1234567+02:00", "\ud800"]
)  # fmt: skip
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.integers(-5, 5).map(float),
    st.text(st.characters(codec="utf-8"), max_size=5),
    WORDS,
)
VALUES = SCALARS | st.integers(-(2**80), 2**80) | st.just([1]) | st.just({"a": 1})
LISTS = st.lists(VALUES, min_size=1, max_size=8)


def outcome(values: list[Any], kind: ColumnType) -> list[tuple[Any, bool]]:
    result = parse_plain(values, kind)
    assert result.values.type == TYPES[kind]
    found = result.values.cast(pa.int64()) if kind == "datetime" else result.values
    faulty = [False] * len(values) if result.faulty is None else result.faulty.tolist()
    return list(zip(map(repr, found.to_pylist()), faulty, strict=True))


@settings(deadline=None, max_examples=300)
@given(LISTS, KINDS)
@example([True, 1.5, "x", None, 2**64, [1], "\ud800", 3], "category")
def test_a_value_means_the_same_alone_and_among_others(values: list[Any], kind: ColumnType) -> None:
    assert outcome(values, kind) == [outcome([value], kind)[0] for value in values]


@settings(deadline=None, max_examples=300)
@given(SCALARS.filter(lambda value: value != "\ud800"), KINDS)
def test_a_value_means_what_it_does_in_a_column_that_training_reads(
    value: object, kind: ColumnType
) -> None:
    read = parse(pa.array([value], from_pandas=True), kind)
    found = read.values.cast(pa.int64()) if kind == "datetime" else read.values
    assert outcome([value], kind) == [(repr(found[0].as_py()), read.faulty is not None)]


@settings(deadline=None, max_examples=400)
@given(LISTS, KINDS, st.booleans())
@example([1, 2**63 - 1, None], "integer", True)
@example([1.5, float("inf"), None], "float", True)
@example([-0.0, 10**400], "float", False)
def test_the_quick_way_gives_what_looking_at_each_value_does(
    values: list[Any], kind: ColumnType, nullable: bool
) -> None:
    column = InputColumn(name="c", type=kind, nullable=nullable)
    slow = parse_plain(values, kind)
    refused = slow.faulty is not None or (slow.values.null_count and not nullable)
    if refused:
        with pytest.raises(InputError) as told:
            canonical_frame({"c": values}, {"c": column})
        if slow.faulty is not None:
            assert f"column 'c', row {slow.faulty.tolist().index(True) + 1}: " in str(told.value)
        return
    frame = canonical_frame({"c": values}, {"c": column})
    expected = canonical_frame(pa.table({"c": slow.values}), {"c": column})
    pd.testing.assert_frame_equal(frame, expected, check_exact=True)


@settings(deadline=None, max_examples=200)
@given(LISTS, KINDS)
def test_a_frame_and_what_it_carries_go_to_arrow_as_the_table_has_them(
    values: list[Any], kind: ColumnType
) -> None:
    column = InputColumn(name="c", type=kind, nullable=True)
    parsed = parse_plain(values, kind)
    if parsed.faulty is not None:
        return
    exact = table_rows({"c": values}, {"c": column})
    assert exact["c"].equals(parsed.values)
    one = InputColumn(name="one", type="float", nullable=True)
    given = {"one": [1.0] * len(values), "c": values}
    carried = Layout({"one": one}, {"c": column}).frame(given)
    assert to_arrow(carried, {"c": column})["c"].equals(parsed.values)
    if kind != "integer" or all(v is None or abs(v) <= 2**53 for v in parsed.values.to_pylist()):
        again = to_arrow(canonical_frame(given, {"one": one, "c": column}), {"c": column})
        assert again["c"].equals(parsed.values)
