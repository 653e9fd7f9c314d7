from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from perennial.contracts.features import ColumnType
from perennial.data.parsing import TYPES
from perennial.data.profile import Profile
from perennial.data.shift import Shift, shift
from perennial.spec.inputs import Column


def column(values: Any, kind: ColumnType = "float") -> dict[str, Any]:
    profile = Profile({"x": Column(type=kind)})
    profile.add(pa.table({"x": pa.array(values, TYPES[kind], from_pandas=True)}))
    document: dict[str, Any] = json.loads(json.dumps(profile.as_dict(), sort_keys=True))
    result: dict[str, Any] = document["columns"]["x"]
    return result


def between(before: Any, after: Any, kind: ColumnType = "float") -> Shift:
    found = shift(column(before, kind), column(after, kind))
    assert found is not None
    return found


def normal(mean: float, rows: int, seed: int) -> Any:
    return np.random.default_rng(seed).normal(mean, 1, rows)


def test_equal_columns_have_no_shift() -> None:
    found = between(normal(0, 5000, 1), normal(0, 5000, 1))
    assert found.psi == 0
    assert not found.notable


def test_the_index_is_that_of_ten_bins_of_equal_share() -> None:
    before, after = normal(0, 200_000, 1), normal(0.5, 200_000, 2)
    edges = np.quantile(before, np.arange(0.1, 1, 0.1))
    p = np.bincount(np.searchsorted(edges, before), minlength=10) / len(before)
    q = np.bincount(np.searchsorted(edges, after), minlength=10) / len(after)
    assert between(before, after).psi == pytest.approx(((p - q) * np.log(p / q)).sum(), rel=0.05)


@pytest.mark.parametrize("rows", [30, 300, 30_000])
def test_samples_of_one_distribution_are_hardly_ever_notable(rows: int) -> None:
    found = [between(normal(0, 5000, 2 * i), normal(0, rows, 2 * i + 1)) for i in range(40)]
    assert sum(shift.notable for shift in found) == 0


@pytest.mark.parametrize("rows", [300, 30_000])
def test_a_mean_one_deviation_off_is_notable(rows: int) -> None:
    assert between(normal(0, 5000, 1), normal(1, rows, 2)).notable


def test_values_beyond_all_of_the_reference_count() -> None:
    found = between(normal(0, 5000, 1), np.concatenate([normal(0, 2500, 2), normal(50, 2500, 3)]))
    assert found.notable


def test_a_constant_that_changes_is_notable() -> None:
    assert between([5.0] * 1000, [6.0] * 1000).notable
    assert between([5.0] * 1000, [4.0] * 1000).notable
    assert not between([5.0] * 1000, [5.0] * 1000).notable


def test_values_that_go_missing_are_notable() -> None:
    after = normal(0, 5000, 2)
    after[: len(after) // 2] = np.nan
    assert between(normal(0, 5000, 1), after).notable


def test_levels_are_compared_by_share() -> None:
    before = ["a"] * 700 + ["b"] * 300
    assert not between(before, ["a"] * 69 + ["b"] * 31, "category").notable
    assert between(before, ["a"] * 20 + ["b"] * 80, "category").notable
    assert between(before, ["new"] * 100, "category").notable


def test_what_cannot_be_compared_is_none() -> None:
    assert shift(column([None], "float"), column([1.0])) is None
    assert shift(column([1.0]), column([None])) is None
    assert shift(column([1.0]), column(["a"], "category")) is None
    assert shift(column([1], "datetime"), column([1], "datetime")) is None
