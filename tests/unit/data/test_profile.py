from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from perennial.data.frames import arrow_schema
from perennial.data.histogram import LIMIT, Histogram
from perennial.data.profile import LEVELS, Profile
from perennial.spec.inputs import Column

COLUMNS = {
    "x": Column(type="float"),
    "n": Column(type="integer"),
    "b": Column(type="boolean"),
    "c": Column(type="category"),
    "t": Column(type="datetime"),
}


def table(**columns: list[Any]) -> Any:
    rows = max(len(values) for values in columns.values())
    filled = {name: columns.get(name, [None] * rows) for name in COLUMNS}
    return pa.table(filled, schema=arrow_schema(COLUMNS))


def profile(*tables: Any) -> dict[str, Any]:
    result = Profile(COLUMNS)
    for rows in tables:
        result.add(rows)
    return result.as_dict()


def test_numbers_have_their_moments_and_quantiles() -> None:
    values = np.random.default_rng(3).lognormal(2, 1, 20_000)
    column = profile(table(x=values.tolist()))["columns"]["x"]
    described = pd.Series(values)
    assert (column["min"], column["max"]) == (described.min(), described.max())
    assert column["mean"] == pytest.approx(described.mean(), rel=1e-12)
    assert column["std"] == pytest.approx(described.std(), rel=1e-12)
    for share, value in column["quantiles"].items():
        assert value == pytest.approx(described.quantile(float(share)), rel=0.01)


def test_quantiles_of_few_distinct_values_are_values_that_occur() -> None:
    column = profile(table(n=[1] * 90 + [7] * 10))["columns"]["n"]
    assert set(column["quantiles"].values()) == {1.0, 7.0}
    assert column["quantiles"]["0.5"] == 1.0
    assert column["quantiles"]["0.95"] == 7.0


def test_missing_values_are_counted_and_in_nothing_else() -> None:
    columns = profile(table(x=[1.0, None, 3.0], c=["a", None, None], b=[True, None, False]))
    assert {name: c["missing"] for name, c in columns["columns"].items()} == {
        "x": 1, "n": 3, "b": 1, "c": 2, "t": 3,
    }  # fmt: skip
    assert columns["columns"]["x"]["mean"] == 2.0
    assert columns["columns"]["n"] == {"type": "integer", "missing": 3, "count": 0}
    assert columns["columns"]["t"] == {"type": "datetime", "missing": 3, "count": 0}


def test_levels_are_counted_commonest_first_then_by_name() -> None:
    column = profile(table(c=["b", "a", "c", "c", None]))["columns"]["c"]
    assert list(column["levels"].items()) == [("c", 2), ("a", 1), ("b", 1)]
    assert (column["count"], column["distinct"], column["other"]) == (4, 3, 0)


def test_beyond_the_limit_the_commonest_levels_are_kept_and_the_rest_estimated() -> None:
    rare = [f"id{i}" for i in range(40_000)]
    parts = [table(c=rare[i : i + 10_000] + ["common"] * 500) for i in range(0, 40_000, 10_000)]
    column = profile(*parts)["columns"]["c"]
    assert len(column["levels"]) == LEVELS
    assert column["levels"]["common"] == 2000
    assert column["count"] == 42_000
    assert column["other"] == 42_000 - sum(column["levels"].values())
    assert column["distinct"] == pytest.approx(40_001, rel=0.2)


def test_times_have_their_first_and_last() -> None:
    times = pd.to_datetime(["2024-01-02", "2024-01-01"], utc=True).tolist()
    column = profile(table(t=times))["columns"]["t"]
    assert column["min"] == "2024-01-01T00:00:00+00:00"
    assert column["max"] == "2024-01-02T00:00:00+00:00"


def test_a_profile_without_rows_is_json_too() -> None:
    document = profile()
    assert json.loads(json.dumps(document)) == document
    assert document["rows"] == 0


def test_merged_profiles_are_the_profile_of_all_rows() -> None:
    random = np.random.default_rng(5)
    rows = table(
        x=random.normal(0, 1, 900).tolist(),
        n=random.integers(0, 5, 900).tolist(),
        c=random.choice(["a", "b", "c"], 900).tolist(),
    )
    left, right, whole = Profile(COLUMNS), Profile(COLUMNS), Profile(COLUMNS)
    left.add(rows.slice(0, 100))
    right.add(rows.slice(100, 300))
    right.add(rows.slice(400))
    whole.add(rows)
    left.merge(right)
    merged, once = left.as_dict(), whole.as_dict()
    for name in ("mean", "std"):
        assert merged["columns"]["x"].pop(name) == pytest.approx(once["columns"]["x"].pop(name))
        assert merged["columns"]["n"].pop(name) == pytest.approx(once["columns"]["n"].pop(name))
    assert merged == once


def test_a_histogram_stays_bounded_and_keeps_its_total() -> None:
    histogram = Histogram.empty()
    random = np.random.default_rng(1)
    for scale in (1e-300, 1e-3, 1.0, 1e9, 1e300):
        histogram = histogram.add(random.normal(0, scale, 2000))
        assert len(histogram.keys) <= LIMIT
    assert histogram.total == 10_000
    assert histogram.quantile(0.0) is not None


def test_a_histogram_without_values_has_no_quantile() -> None:
    assert Histogram.empty().quantile(0.5) is None
