"""What is counted of a window, whatever is in it."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from perennial.contracts.drift import Bins, ColumnCounts
from perennial.data.drift.counting import count_window, empty_window, merged, text_hash

NUMBER = Bins(kind="number", edges=(0.0, 1.0, 2.0), least=-1.0, greatest=5.0)
TEXT = Bins(kind="text", levels=("a", "b"), buckets=2, known=(text_hash("a"), text_hash("b")))


def counted(bins: Bins, values: Any) -> ColumnCounts:
    return count_window({"x": bins}, [pa.table({"x": values})]).columns["x"]


def test_an_edge_belongs_to_the_bin_above_it() -> None:
    found = counted(NUMBER, pa.array([-0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, None, np.nan]))
    assert found.counts == (1, 2, 2, 2, 2)
    assert (found.rows, found.missing, found.present) == (9, 2, 7)
    assert (found.least, found.greatest, found.impossible) == (-0.5, 3.0, 0)


def test_values_beyond_what_is_possible_are_counted() -> None:
    assert counted(NUMBER, pa.array([-1.0, 5.0, -1.1, 5.1, 99.0])).impossible == 3
    doors = Bins(kind="number", edges=(2.0, 4.0), allowed=("2", "4"))
    assert counted(doors, pa.array([2, 3, 4, 4, 9])).impossible == 2
    port = TEXT.model_copy(update={"allowed": ("a", "c")})
    assert counted(port, pa.array(["a", "b", "b", "c", None])).impossible == 2


def test_infinite_values_are_in_the_outer_bins_and_in_no_sum() -> None:
    found = counted(NUMBER, pa.array([-np.inf, np.inf, np.inf, 1.0]))
    assert found.counts == (1, 0, 1, 2, 0)
    assert (found.infinite, found.total, found.squares) == (3, 1.0, 1.0)


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, 0, 1], pa.int8()),
        pa.array([True, False, True]),
        pa.array([1.0, 0.0, 1.0], pa.float32()),
        pa.array([1, 0, 1], pa.uint64()),
        pa.array([Decimal(1), Decimal(0), Decimal(1)]),
        pa.array([1.0, 0.0, 1.0]).dictionary_encode(),
    ],
)
def test_a_number_is_one_in_any_of_its_types(values: Any) -> None:
    assert counted(NUMBER, values).counts == (0, 1, 2, 0, 0)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_a_text_is_one_in_any_of_its_types(kind: Any) -> None:
    found = counted(TEXT, pa.array(["b", "a", "a", None, "new"], kind))
    assert (found.counts[:2], found.missing, found.unseen) == ((2, 1), 1, 1)
    dictionary = pa.array(["b", "a", "a", None, "new"]).dictionary_encode()
    assert counted(TEXT, dictionary) == found


def test_other_texts_go_to_the_bucket_of_their_hash() -> None:
    assert text_hash("new") == 0x6BE34445  # in every version: references are compared by it
    found = counted(TEXT, pa.array(["new"] * 5 + ["newer"] * 3))
    assert sum(found.counts[2:4]) == 8
    assert found.counts[2 + text_hash("new") % 2] >= 5


def test_another_type_is_told_and_in_no_bin() -> None:
    found = counted(NUMBER, pa.array(["1", "2"]))
    assert (found.mistyped, found.types, found.rows) == (2, ("string",), 0)
    assert counted(TEXT, pa.array([1, 2])).types == ("int64",)
    assert counted(TEXT, pa.array([[1], [2]])).types == ("list<item: int64>",)


def test_a_column_of_nulls_is_missing_whatever_its_type() -> None:
    for bins in (NUMBER, TEXT, Bins(kind="time")):
        found = counted(bins, pa.nulls(4))
        assert (found.missing, found.present, found.least) == (4, 0, None)


def test_an_absent_column_and_one_that_is_there_twice_are_absent() -> None:
    batch = pa.table([pa.array([1.0]), pa.array([2.0])], names=["x", "x"])
    assert count_window({"x": NUMBER}, [batch]).columns["x"].absent == 1
    found = count_window({"x": NUMBER}, [pa.table({"y": [1, 2]})])
    assert (found.rows, found.columns["x"].absent, found.columns["x"].rows) == (2, 2, 0)


def test_times_are_present_or_missing() -> None:
    times = pa.array([datetime(2026, 1, 1, tzinfo=UTC), None], pa.timestamp("us", "UTC"))
    assert counted(Bins(kind="time"), times).counts == (1, 1)
    assert counted(Bins(kind="time"), pa.array([1, None], pa.date32())).counts == (1, 1)


def test_a_batch_without_rows_counts_nothing() -> None:
    bins = {"x": NUMBER, "t": TEXT}
    empty = pa.table({"x": pa.array([], pa.float64()), "t": pa.array([], pa.string())})
    assert count_window(bins, [empty]) == count_window(bins, []) == empty_window(bins)
    assert merged(empty_window(bins), empty_window(bins)) == empty_window(bins)
