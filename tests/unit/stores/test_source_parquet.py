from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perennial.contracts.errors import InputError
from perennial.spec import ModelSpec
from perennial.stores import sources

START = datetime(2024, 1, 1, tzinfo=UTC)
Make = Callable[..., ModelSpec]


@pytest.fixture
def spec(spec_of: Make) -> ModelSpec:
    return spec_of(("kind: csv, uri: trips.csv", "kind: parquet, uri: trips"))


def write(root: Path, name: str, days: list[int | None], time: Any = None, **extra: Any) -> Path:
    moments = [None if day is None else START + timedelta(days=day) for day in days]
    at = pa.array(moments, pa.timestamp("us", "UTC"))
    rows = len(days)
    columns = {
        "at": at.cast(time or at.type),
        "car": [f"{day}" for day in days], "zone": ["north"] * rows, "km": [1.0] * rows,
        "stops": pa.array([1] * rows, pa.int16()), "note": [None] * rows, "late": [True] * rows,
    }  # fmt: skip
    path = root / "trips" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({**columns, **extra}), path, row_group_size=2)
    return path


def places(spec: ModelSpec, root: Path, watermark: datetime | None = None) -> list[str]:
    source = sources.inspect(spec, root, watermark, None)
    found = list(sources.read(spec, root, source))
    return [f"{b.where(i)}: {b.table['car'][i]}" for b in found for i in range(b.num_rows)]


@pytest.mark.parametrize(
    "time",
    [pa.timestamp("us", "UTC"), pa.timestamp("ms", "America/Lima"), pa.timestamp("ns", "UTC")],
)
def test_row_groups_before_the_window_are_not_read_and_rows_keep_their_numbers(
    spec: ModelSpec, tmp_path: Path, time: Any
) -> None:
    write(tmp_path, "a.parquet", [0, 1, 2, 3, 4, 5], time)
    assert places(spec, tmp_path, START + timedelta(days=5)) == [
        "a.parquet row 3: 2", "a.parquet row 4: 3", "a.parquet row 5: 4", "a.parquet row 6: 5",
    ]  # fmt: skip


def test_naive_times_are_compared_as_utc(spec: ModelSpec, tmp_path: Path) -> None:
    path = write(tmp_path, "a.parquet", [0, 1, 2, 3])
    table = pq.read_table(path)
    naive = table["at"].cast(pa.timestamp("us"))
    pq.write_table(table.set_column(0, "at", naive), path, row_group_size=2)
    assert len(places(spec, tmp_path, START + timedelta(days=5))) == 2


def test_times_kept_as_text_are_all_read(spec: ModelSpec, tmp_path: Path) -> None:
    write(tmp_path, "a.parquet", [0, 1, 2, 3], pa.string())
    assert len(places(spec, tmp_path, START + timedelta(days=5))) == 4


def test_a_row_without_a_time_is_read_to_be_told(spec: ModelSpec, tmp_path: Path) -> None:
    write(tmp_path, "a.parquet", [0, 1, None, 3, 8, 9])
    assert [p.split(": ")[1] for p in places(spec, tmp_path, START + timedelta(days=9))] == [
        "None", "3", "8", "9",
    ]  # fmt: skip


def test_files_may_differ_in_types(spec: ModelSpec, tmp_path: Path) -> None:
    write(tmp_path, "a.parquet", [0])
    write(tmp_path, "b.parquet", [1], km=pa.array([7], pa.int32()))
    assert places(spec, tmp_path) == ["a.parquet row 1: 0", "b.parquet row 1: 1"]


def test_a_file_that_is_not_parquet_is_told(spec: ModelSpec, tmp_path: Path) -> None:
    (tmp_path / "trips").mkdir()
    (tmp_path / "trips" / "a.parquet").write_text("at,car\n")
    with pytest.raises(InputError, match=r"a\.parquet: not readable as Parquet: "):
        places(spec, tmp_path)


def test_a_column_of_lists_is_told(spec: ModelSpec, tmp_path: Path) -> None:
    path = write(tmp_path, "a.parquet", [0], note=pa.array([["x"]]))
    with pytest.raises(InputError) as caught:
        places(spec, tmp_path)
    assert str(caught.value).startswith(f"{path}, column 'note': holds list<")


def test_many_small_files_come_in_one_batch(spec: ModelSpec, tmp_path: Path) -> None:
    for day in range(40):
        write(tmp_path, f"{day:02}.parquet", [day])
    (batch,) = sources.read(spec, tmp_path, sources.inspect(spec, tmp_path, None, None))
    assert batch.num_rows == 40
    assert batch.where(39) == "39.parquet row 1"


def test_folders_that_are_called_after_a_column_are_that_column(
    spec: ModelSpec, tmp_path: Path
) -> None:
    for number, folders in enumerate(
        ["zone=north/car=007", "zone=s%C3%BCd%2Fost/car=a b=c", "zone=__HIVE_DEFAULT_PARTITION__"]
    ):
        path = write(tmp_path, f"{folders}/{number}.parquet", [number])
        table = pq.read_table(path, partitioning=None)
        pq.write_table(table.drop(["zone", "car"] if "car" in folders else ["zone"]), path)
        os.utime(path, (number, number))
    source = sources.inspect(spec, tmp_path, None, None)
    batches = list(sources.read(spec, tmp_path, source))
    found = [(row["zone"], row["car"]) for b in batches for row in b.table.to_pylist()]
    assert found == [("north", "007"), ("süd/ost", "a b=c"), (None, "2")]
    for names in sources.columns(spec, tmp_path, source).values():
        assert set(names) >= {"zone", "car", "km"}


def test_a_column_that_a_file_has_itself_is_the_files(spec: ModelSpec, tmp_path: Path) -> None:
    write(tmp_path, "car=x/a.parquet", [7])
    assert places(spec, tmp_path) == ["a.parquet row 1: 7"]
