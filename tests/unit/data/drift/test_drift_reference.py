"""The bins that a reference chooses, and what it counts in them."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from perennial.contracts.drift import ReferenceStatistics
from perennial.data.drift.reference import BLOCKS, BUCKETS, combined, reference_statistics
from perennial.spec.inputs import Column

FLOAT, TEXT = Column(type="float"), Column(type="category")


def table(rows: int = 4000, seed: int = 3) -> pa.Table:
    random = np.random.default_rng(seed)
    wait = random.lognormal(3, 1, rows)
    return pa.table(
        {
            "wait": pa.array(wait, mask=random.random(rows) < 0.1),
            "doors": random.integers(2, 6, rows),
            "late": random.random(rows) < 0.2,
            "port": pa.array(["north", "south", "west"]).take(
                pa.array(random.choice(3, rows, p=[0.7, 0.2, 0.1]))
            ),
            "sent": pa.array(np.arange(rows) * 10**6, pa.timestamp("us", "UTC")),
        }
    )


COLUMNS = {
    "wait": Column(type="float", min=0, max=1e6),
    "doors": Column(type="integer"),
    "late": Column(type="boolean"),
    "port": TEXT,
    "sent": Column(type="datetime"),
}


def test_a_number_gets_bins_of_equal_share_and_one_for_missing_values() -> None:
    reference = reference_statistics(table(40_000), COLUMNS)
    bins, counts = reference.bins["wait"], reference.window.columns["wait"]
    assert len(bins.edges) == 65
    assert counts.missing / counts.rows == pytest.approx(0.1, abs=0.01)
    inner = np.array(counts.counts[1:-2]) / counts.present
    assert inner == pytest.approx(np.full(64, 1 / 64), abs=0.006)


def test_each_of_few_values_gets_a_bin_of_its_own() -> None:
    reference = reference_statistics(table(), COLUMNS)
    assert reference.bins["doors"].edges == (2.0, 3.0, 4.0, 5.0, np.nextafter(5.0, 9))
    assert reference.bins["late"].edges == (0.0, 1.0, np.nextafter(1.0, 9))
    counts = reference.window.columns["doors"].counts
    assert counts[0] == counts[-2] == counts[-1] == 0
    assert reference.bins["port"].levels == ("north", "south", "west")


def test_a_quarter_of_the_rows_chooses_and_the_others_are_counted() -> None:
    reference = reference_statistics(table(4000), COLUMNS)
    assert reference.window.rows == 3000
    assert all(counts.rows == 3000 for counts in reference.window.columns.values())


def test_rare_levels_have_no_bin_of_their_own() -> None:
    names = [f"id-{i}" for i in range(4000)]
    reference = reference_statistics(pa.table({"id": names}), {"id": Column(type="string")})
    bins, counts = reference.bins["id"], reference.window.columns["id"]
    assert (bins.levels, bins.buckets, len(bins.known)) == ((), BUCKETS, 1000)
    assert counts.unseen == 3000
    assert min(counts.counts[:-1]) > 100


def test_what_model_yaml_allows_is_kept_with_the_bins() -> None:
    bins = reference_statistics(table(), COLUMNS).bins["wait"]
    assert (bins.least, bins.greatest) == (0, 1e6)


@pytest.mark.parametrize("values", [[], [None], [1.0], [float("nan")] * 9, [float("inf")] * 9])
def test_a_reference_of_hardly_anything_is_one(values: list[float | None]) -> None:
    column = pa.table({"x": pa.array(values, pa.float64())})
    reference = reference_statistics(column, {"x": FLOAT})
    assert reference.window.rows == len(values) - -(-len(values) // 4)


def test_it_is_the_same_again_and_survives_json() -> None:
    reference = reference_statistics(table(), COLUMNS, seed=5)
    assert reference == reference_statistics(table(), COLUMNS, seed=5)
    text = reference.model_dump_json()
    assert ReferenceStatistics.model_validate_json(text) == reference
    assert len(text) < 20_000


@pytest.mark.parametrize(("seconds", "blocks"), [(800, 5), (400, 10), (50, 0), (5000, 0)])
def test_stretches_of_the_training_time_with_rows_enough_are_blocks(
    seconds: int, blocks: int
) -> None:
    reference = reference_statistics(
        table(4000), COLUMNS, time="sent", window=timedelta(seconds=seconds)
    )
    sizes = [block.rows for block in reference.blocks]
    assert len(sizes) == blocks
    assert all(size >= 100 for size in sizes)
    assert reference_statistics(table(4000), COLUMNS).blocks == ()


def test_of_many_stretches_some_are_counted_evenly() -> None:
    reference = reference_statistics(
        table(40_000), COLUMNS, time="sent", window=timedelta(seconds=400)
    )
    assert len(reference.blocks) == 20 <= BLOCKS  # every fifth of 100
    assert sum(block.rows for block in reference.blocks) == pytest.approx(6000, rel=0.05)


def test_predictions_come_from_rows_of_their_own() -> None:
    inputs = reference_statistics(table(400), COLUMNS)
    scores = pa.table({"_prediction": np.linspace(0, 1, 100)})
    both = combined(inputs, reference_statistics(scores, {"_prediction": FLOAT}))
    assert list(both.bins) == [*COLUMNS, "_prediction"]
    assert both.window.rows == 300
    assert both.window.columns["_prediction"].rows == 75
