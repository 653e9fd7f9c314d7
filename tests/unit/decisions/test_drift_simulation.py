"""The false-alarm rate and the power that verdicts promise, held in simulation.

A window's rows are strangers to the bins, so what is counted of them is multinomial: windows are
drawn as counts, which is the same and a hundred times quicker. Some are drawn as rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import binom, norm

from perennial.contracts.drift import (
    Bins,
    ColumnCounts,
    ColumnDrift,
    ReferenceStatistics,
    WindowStatistics,
)
from perennial.data.drift.counting import count_window
from perennial.data.drift.reference import reference_statistics
from perennial.decisions.drift import judge_drift
from perennial.spec.inputs import Column
from perennial.spec.production import Drift

REFERENCE_ROWS = 7_500
SIZES = (200, 1_000, 5_000, 20_000, 100_000)
WINDOWS = 1_000
RATE = 0.05


def zipf(levels: int) -> np.ndarray:
    share = 1 / np.arange(1, levels + 1)
    return share / share.sum()


def hashed(share: np.ndarray, levels: int, buckets: int = 16) -> np.ndarray:
    """Bins of a text whose first levels have their own."""
    at = np.random.default_rng(8).integers(0, buckets, len(share) - levels)
    return np.concatenate([share[:levels], np.bincount(at, share[levels:], buckets), [0.0]])


def mixed() -> dict[str, tuple[Bins, np.ndarray]]:
    """Bins and true shares of the columns: a number with a fifth missing, a rare flag, few levels,
    and 4,000."""
    edges = tuple(float(i) for i in range(65))
    beyond = np.array([0.0004])
    gaps = np.concatenate([beyond, np.full(64, 0.7992 / 64), beyond, [0.2]])
    levels = tuple(f"level {i}" for i in range(30))
    return {
        "gaps": (Bins(kind="number", edges=edges), gaps),
        "flag": (Bins(kind="number", edges=(0.0, 1.0, 2.0)), np.array([0, 0.97, 0.03, 0, 0])),
        "few": (Bins(kind="text", levels=levels[:5], buckets=16), hashed(zipf(5), 5)),
        "many": (Bins(kind="text", levels=levels, buckets=16), hashed(zipf(4000), 30)),
    }


def drawn(
    columns: Mapping[str, tuple[Bins, np.ndarray]], rows: int, random: np.random.Generator
) -> WindowStatistics:
    counts = {
        name: ColumnCounts(
            counts=tuple(random.multinomial(rows, share / share.sum()).tolist()),
            least=0.0,
            greatest=70.0,
        )
        for name, (_, share) in columns.items()
    }
    return WindowStatistics(rows=rows, columns=counts)


def alarms(settings: Drift, sizes: tuple[int, ...], windows: int) -> int:
    """In how many windows without drift some column is found drifted."""
    columns, random = mixed(), np.random.default_rng(17)
    bins = {name: bins for name, (bins, _) in columns.items()}
    found = 0
    for number in range(windows):
        reference = ReferenceStatistics(bins=bins, window=drawn(columns, REFERENCE_ROWS, random))
        window = drawn(columns, sizes[number % len(sizes)], random)
        verdict = judge_drift(reference, window, importance={}, settings=settings, seed=number)
        assert not verdict.faults
        found += bool(verdict.drifted)
    return found


def interval(windows: int) -> tuple[int, int]:
    low, high = binom.ppf([0.005, 0.995], windows, RATE)
    return int(low), int(high)


def test_windows_without_drift_alarm_as_often_as_the_setting_says() -> None:
    low, high = interval(WINDOWS)
    found = alarms(Drift(false_alarm_rate=RATE, min_effect=0.0), SIZES, WINDOWS)
    assert low <= found <= high


def test_what_matters_only_lowers_the_rate() -> None:
    small = (200, 1_000)
    found = alarms(Drift(false_alarm_rate=RATE), small, 200)
    assert found <= interval(200)[1]
    assert alarms(Drift(false_alarm_rate=RATE), (100_000,), 40) == 0


def test_windows_of_real_rows_alarm_no_more_often() -> None:
    """Here the bins are chosen too: of 100 equal levels the 64 that were commonest by luck, of 500
    none."""
    random = np.random.default_rng(23)
    columns = {
        "gamma": Column(type="float"),
        "whole": Column(type="integer"),
        "hundred": Column(type="category"),
        "equal": Column(type="category"),
        "unequal": Column(type="category"),
        "id": Column(type="string"),
    }

    def rows(number: int) -> pa.Table:
        return pa.table(
            {
                "gamma": pa.array(random.gamma(0.5, 2, number), mask=random.random(number) < 0.1),
                "whole": random.poisson(3, number),
                "hundred": random.integers(0, 100, number).astype(str),
                "equal": random.integers(0, 500, number).astype(str),
                "unequal": random.choice(4000, number, p=zipf(4000)).astype(str),
                "id": random.integers(0, 2**40, number).astype(str),
            }
        )

    found, windows = 0, 100
    for number in range(windows):
        reference = reference_statistics(rows(3_000), columns, seed=number)
        window = count_window(reference.bins, rows((250, 2_000)[number % 2]).to_batches(700))
        verdict = judge_drift(
            reference,
            window,
            importance={},
            settings=Drift(false_alarm_rate=RATE, min_effect=0.0),
            seed=number,
        )
        assert not verdict.faults
        found += bool(verdict.drifted)
    assert found <= interval(windows)[1]


@pytest.mark.parametrize(("rows", "min_effect"), [(400, 0.0), (400, 0.1), (10_000, 0.1)])
def test_the_shift_that_is_reported_is_found_nine_times_in_ten(
    rows: int, min_effect: float
) -> None:
    edges = norm.ppf(np.arange(1, 64) / 64)
    bins = {"x": Bins(kind="number", edges=(-3.2, *edges.tolist(), 3.2))}
    settings = Drift(false_alarm_rate=0.01, min_effect=min_effect)
    random = np.random.default_rng(31)

    def verdict(shift: float, seed: int) -> ColumnDrift:
        windows = []
        for size, by in ((REFERENCE_ROWS, 0.0), (rows, shift)):
            below = norm.cdf(np.array(bins["x"].edges) - by)
            share = np.append(np.diff(below, prepend=0.0, append=1.0), 0.0)
            counted = drawn({"x": (bins["x"], share)}, size, random).columns["x"]
            ends = counted.model_copy(update={"least": -4.0, "greatest": 4.0 + by})
            windows.append(WindowStatistics(rows=size, columns={"x": ends}))
        reference = ReferenceStatistics(bins=bins, window=windows[0])
        judged = judge_drift(reference, windows[1], importance={}, settings=settings, seed=seed)
        return judged.columns[0]

    reported = [verdict(0.0, seed).found_as for seed in range(20)]
    assert {kind for _, kind in filter(None, reported)} == {"spreads"}
    shift = float(np.median([size for size, _ in filter(None, reported)]))
    found = sum(verdict(shift, seed).outcome == "drifted" for seed in range(200))
    assert 0.8 <= found / 200 <= 0.98


def test_the_share_of_new_rows_that_is_reported_is_found_nine_times_in_ten() -> None:
    bins, share = mixed()["few"]
    reference_counts = ReferenceStatistics(
        bins={"x": bins},
        window=drawn({"x": (bins, share)}, REFERENCE_ROWS, np.random.default_rng(2)),
    )
    random = np.random.default_rng(3)
    settings = Drift(false_alarm_rate=0.01)

    def verdict(new: float, seed: int) -> ColumnDrift:
        turned = share * (1 - new)
        turned[-2] += new  # the last bucket, which was empty
        window = drawn({"x": (bins, turned)}, 1_000, random)
        judged = judge_drift(reference_counts, window, importance={}, settings=settings, seed=seed)
        return judged.columns[0]

    told = verdict(0.0, 0).found_as
    assert told is not None
    assert told[1] == "share"
    assert 0.8 <= sum(verdict(told[0], s).outcome == "drifted" for s in range(200)) / 200 <= 0.98
