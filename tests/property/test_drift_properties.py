"""Windows add up in any order, and verdicts are monotone, for whatever the columns hold."""

from __future__ import annotations

from itertools import pairwise
from math import isclose
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.contracts.drift import Bins, ColumnOutcome, ReferenceStatistics, WindowStatistics
from perennial.data.drift.counting import count_window, merged
from perennial.data.drift.reference import reference_statistics
from perennial.decisions.binned import joined, quantiles
from perennial.decisions.divergence import Chance, divergence, parts
from perennial.decisions.drift import judge_drift
from perennial.spec.inputs import Column
from perennial.spec.production import Drift

NUMBERS = st.one_of(
    st.none(),
    st.sampled_from([0.0, 1.0, 2.0]),
    st.floats(-100, 100),
    st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e308, -1e308]),
)
TEXTS = st.one_of(st.none(), st.sampled_from(["a", "b", "c"]), st.text(max_size=4))
TABLES = st.lists(st.tuples(NUMBERS, TEXTS), max_size=60)
COLUMNS = {"n": Column(type="float", min=-50, max=50), "t": Column(type="category")}
COUNTS = st.lists(st.integers(0, 500), min_size=2, max_size=30)
few = settings(deadline=None, max_examples=60)


def table(rows: list[tuple[float | None, str | None]]) -> pa.Table:
    numbers, texts = [row[0] for row in rows], [row[1] for row in rows]
    return pa.table({"n": pa.array(numbers, pa.float64()), "t": pa.array(texts, pa.string())})


def exact(window: WindowStatistics) -> dict[str, Any]:
    """All but the sums of floats, which differ in their rounding."""
    return window.model_dump(exclude={"columns": {"__all__": {"total", "squares"}}})


@few
@given(reference=TABLES, rows=TABLES, cuts=st.lists(st.integers(0, 60), max_size=4), data=st.data())
def test_counting_in_parts_in_any_order_is_counting_the_whole(
    reference: Any, rows: Any, cuts: list[int], data: st.DataObject
) -> None:
    bins = reference_statistics(table(reference), COLUMNS).bins
    whole = table(rows)
    ends = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    pieces = [whole.slice(a, b - a) for a, b in pairwise(ends)]
    windows = [count_window(bins, [piece]) for piece in data.draw(st.permutations(pieces))]
    left = right = count_window(bins, [])
    for window in windows:
        left = merged(left, window)
    for window in reversed(windows):
        right = merged(window, right)
    assert exact(left) == exact(right) == exact(count_window(bins, [whole]))
    assert left.rows == len(rows)
    assert all(counts.rows == len(rows) for counts in left.columns.values())


@few
@given(reference=TABLES, rows=TABLES)
def test_a_verdict_is_reached_on_anything_and_survives_json(reference: Any, rows: Any) -> None:
    known = reference_statistics(table(reference), COLUMNS)
    again = ReferenceStatistics.model_validate_json(known.model_dump_json())
    assert again.bins == known.bins
    assert exact(again.window) == exact(known.window)
    window = count_window(known.bins, [table(rows)])
    verdict = judge_drift(known, window, importance={"n": 1.0}, settings=Drift(), seed=1)
    assert type(verdict).model_validate_json(verdict.model_dump_json()) == verdict
    assert {column.column for column in verdict.columns} == {"n", "t"}
    assert verdict.reason


@few
@given(before=COUNTS, after=COUNTS)
def test_the_divergence_is_symmetric_and_between_0_and_1(
    before: list[int], after: list[int]
) -> None:
    size = min(len(before), len(after))
    p, q = np.array(before[:size]) + 1, np.array(after[:size]) + 1
    apart = float(divergence(p, q))
    assert 0 <= apart <= 1
    assert apart == pytest.approx(float(divergence(q, p)))
    assert float(divergence(p, 3 * p)) == pytest.approx(0, abs=1e-12)
    assert (parts(p, q) >= 0).all()


@few
@given(
    mean=st.floats(1e-6, 0.2),
    ratio=st.floats(0.05, 1.4),
    a=st.floats(1e-6, 0.5),
    b=st.floats(1e-6, 0.5),
)
def test_limits_grow_as_alarms_get_rarer_and_power_with_the_limit(
    mean: float, ratio: float, a: float, b: float
) -> None:
    luck = Chance(mean, mean * ratio)
    low, high = sorted((a, b))
    assert luck.limit(low) >= luck.limit(high)
    assert luck.p_value(luck.limit(low)) == pytest.approx(low, rel=1e-4)
    easy, hard = luck.found(luck.at(low)), luck.found(luck.at(high))
    assert easy is None or hard is None or easy <= hard
    assert easy is not None or hard is None


@few
@given(kind=st.sampled_from(["number", "text"]), size=st.integers(0, 64), most=st.integers(8, 90))
def test_joined_bins_keep_every_value_and_the_missing_apart(
    kind: str, size: int, most: int
) -> None:
    bins = (
        Bins(kind="number", edges=tuple(float(i) for i in range(size)))
        if kind == "number"
        else Bins(kind="text", levels=tuple(f"l{i}" for i in range(size)), buckets=16)
    )
    places = joined(bins, most)
    assert len(places) == bins.size
    assert sorted(set(places.tolist())) == list(range(int(places[-1]) + 1))
    assert (places[:-1] < places[-1]).all()
    assert places[-1] <= max(most + 2, 1)


@few
@given(rows=TABLES, at=st.lists(st.floats(0, 1, exclude_min=True), min_size=2, max_size=9))
def test_quantiles_rise_and_those_beyond_the_edges_are_between_what_is_told(
    rows: Any, at: list[float]
) -> None:
    known, shares = reference_statistics(table(rows), COLUMNS), np.sort(at)
    counts = count_window(known.bins, [table(rows)]).columns["n"]
    found = quantiles(known.bins["n"], counts, shares)
    if found is not None:
        for each in found:
            assert all(a <= b or isclose(a, b) for a, b in pairwise(each.tolist()))
        least, greatest = found
        values = np.sort(table(rows)["n"].drop_null().to_numpy())
        values = values[~np.isnan(values)]
        true = values[np.searchsorted(np.arange(1, len(values) + 1) / len(values), shares)]
        beyond = least < greatest
        assert ((least <= true) & (true <= greatest))[beyond].all()
        assert np.isfinite(least[~beyond]).all()


@settings(deadline=None, max_examples=20)
@given(steps=st.integers(1, 30), rows=st.sampled_from([300, 3000]))
def test_a_greater_shift_has_a_greater_effect(steps: int, rows: int) -> None:
    random = np.random.default_rng(4)
    known = reference_statistics(pa.table({"n": random.normal(0, 1, 8000)}), {"n": FREE})
    base = random.normal(0, 1, rows)
    near, far = (_effect(known, base + shift) for shift in (steps / 10, steps / 10 + 1))
    assert near < far


FREE = Column(type="float")


def _effect(known: ReferenceStatistics, values: np.ndarray) -> float:
    window = count_window(known.bins, [pa.table({"n": values})])
    verdict = judge_drift(known, window, importance={}, settings=Drift(), seed=1)
    assert verdict.columns[0].outcome is not ColumnOutcome.FAULT
    assert verdict.columns[0].effect is not None
    return verdict.columns[0].effect
