"""A dataset in windows is the dataset: the same rows in the same order, whatever orders them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perennial.contracts.errors import IntegrityError
from perennial.stores import tables, windows
from perennial.stores.windows import Window

ROWS = 900


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "LEAST_ROWS", 10)
    monkeypatch.setattr(windows, "MOST_ROWS", 200)


def ingested(place: Any, rows: pd.DataFrame) -> Any:
    place.csv(rows.to_csv(index=False))
    place.ingest()
    return tables.dataset(place.spec, place.table, None)


def trip_rows() -> pd.DataFrame:
    random = np.random.default_rng(3)
    # Many rows of one moment, few of others: windows never cut a moment in two.
    minutes = np.sort(random.choice([0, 1, 2, 50, 51, 700], ROWS))
    rows = pd.DataFrame({"at": pd.Timestamp("2024-01-01", tz="UTC") + minutes * pd.Timedelta("1m")})
    rows["car"] = [f"c{i}" for i in random.permutation(ROWS)]
    rows["zone"], rows["km"], rows["stops"] = "north", random.random(ROWS), 1
    rows["note"], rows["late"] = "", random.random(ROWS) < 0.5
    return rows


def leaf_rows() -> pd.DataFrame:
    random = np.random.default_rng(3)
    rows = pd.DataFrame({"length": random.random(ROWS), "width": random.random(ROWS)})
    rows["kind"] = random.choice(["oak", "ash", "it's", ""], ROWS)
    return rows


def check(found: list[Window], ref: Any, spec: Any, columns: list[str], least: int) -> None:
    whole = pd.concat(tables.scan(ref, spec, columns), ignore_index=True)
    frames = [pickle.loads(pickle.dumps(window)).of(columns).frame() for window in found]
    assert len(frames) >= least
    assert [len(frame) for frame in frames] == [len(window) for window in found]
    pd.testing.assert_frame_equal(pd.concat(frames, ignore_index=True), whole)


def test_windows_of_event_time_are_the_dataset_in_its_order(trips: Any) -> None:
    ref = ingested(trips, trip_rows())
    check(windows.windows(ref, trips.spec, 30), ref, trips.spec, ["km", "car"], 5)


def test_a_snapshot_is_divided_by_the_order_of_its_source(leaves: Any) -> None:
    ref = ingested(leaves, leaf_rows())
    found = windows.windows(ref, leaves.spec, 30)
    assert {len(window) for window in found} == {ROWS // 30}
    check(found, ref, leaves.spec, ["kind", "length"], 30)
    assert len(windows.windows(ref, leaves.spec, 1)) == 5  # 200 rows are the most


@pytest.mark.parametrize("entity", ["[kind, length]", "[length]"])
def test_rows_without_a_time_are_divided_by_their_entity_missing_ones_last(
    leaves: Any, entity: str
) -> None:
    place = leaves.changed("uri: leaves.csv", f"uri: leaves.csv, entity: {entity}")
    rows = leaf_rows()
    if entity == "[length]":
        rows.loc[:0, "length"] = np.nan
    ref = ingested(place, rows)
    check(windows.windows(ref, place.spec, 30), ref, place.spec, ["kind", "length"], 3)


def test_an_earlier_moment_has_windows_of_its_own_rows(trips: Any) -> None:
    ingested(trips, trip_rows())
    ref = tables.dataset(trips.spec, trips.table, pd.Timestamp("2024-01-01T00:50:00Z"))
    assert ref.rows < ROWS
    check(windows.windows(ref, trips.spec, 30), ref, trips.spec, ["km"], 4)


def test_rows_that_are_not_those_counted_are_refused(leaves: Any, tmp_path: Path) -> None:
    ref = ingested(leaves, leaf_rows())
    wrong = Window(ref, leaves.spec, ROWS + 1).of(["length"])
    with pytest.raises(IntegrityError, match="900 rows where there were 901"):
        wrong.frame()
