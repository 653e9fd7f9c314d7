"""The histogram depends on the values alone, not on how they came."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.data.histogram import LIMIT, Histogram

FINITE = st.floats(allow_nan=False, allow_infinity=False)
MANY = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).normal(0, 10.0 ** (seed % 20 - 10), 1500).tolist()
)


def of(values: list[float]) -> Histogram:
    return Histogram.empty().add(np.array(values, np.float64))


def same(left: Histogram, right: Histogram) -> bool:
    return left.as_dict() == right.as_dict()


@settings(deadline=None, max_examples=50)
@given(st.lists(FINITE, max_size=50), MANY, st.integers(0, 1500))
def test_order_and_batches_make_no_difference(
    few: list[float], many: list[float], cut: int
) -> None:
    values = few + many
    parts = of(values[cut:]).merge(of(values[:cut]))
    assert same(parts, of(values))
    assert same(of(values[::-1]), of(values))
    assert len(parts.keys) <= LIMIT


@settings(deadline=None, max_examples=50)
@given(st.lists(FINITE, min_size=1, max_size=LIMIT))
def test_few_distinct_values_are_kept_exactly(values: list[float]) -> None:
    histogram = of(values)
    distinct, counts = np.unique(np.array(values) + 0.0, return_counts=True)
    edges = [histogram.edges(i) for i in range(len(histogram.keys))]
    assert histogram.shift == 0
    assert [low for low, _ in edges] == [high for _, high in edges] == distinct.tolist()
    assert histogram.counts.tolist() == counts.tolist()


@settings(deadline=None, max_examples=50)
@given(MANY)
def test_it_survives_json(values: list[float]) -> None:
    histogram = of(values)
    assert same(Histogram.read(json.loads(json.dumps(histogram.as_dict()))), histogram)


@settings(deadline=None, max_examples=50)
@given(MANY, st.floats(0, 1))
def test_a_quantile_lies_within_a_bucket_of_the_true_one(values: list[float], share: float) -> None:
    histogram = of(values)
    true = float(np.quantile(values, share, method="inverted_cdf"))
    estimate = histogram.quantile(share)
    assert estimate is not None
    width = max(high - low for low, high in map(histogram.edges, range(len(histogram.keys))))
    assert abs(estimate - true) <= width
