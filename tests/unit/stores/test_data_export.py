"""A version's rows as Parquet files whose bytes are the same each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perennial.contracts.errors import InputError
from perennial.stores import data_export
from perennial.stores.data_export import export_version

HEAD = "at,car,zone,km,stops,note,late\n"


def rows(hours: range) -> str:
    return HEAD + "".join(f"2024-01-01 {h:02}:00:00,c{h},north,{h},1,,true\n" for h in hours)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_same_rows_give_the_same_bytes_however_they_came(trips: Any, tmp_path: Path) -> None:
    whole = trips.root / "a"
    trips.csv(rows(range(20)))
    trips.ingest()
    first = export_version(trips.table, 0, "trips", whole, force=False)
    assert (first.rows, first.files) == (20, ("data-00000.parquet",))

    trips.csv(rows(range(20)).replace("c3,north,3", "c3,north,4"))
    trips.ingest()
    other = export_version(trips.table, 1, "trips", tmp_path / "b", force=False)
    assert other.digest != first.digest

    trips.csv(rows(range(20)))
    assert trips.ingest() == 2
    again = export_version(trips.table, 2, "trips", tmp_path / "c", force=False)
    assert again.digest == first.digest, "in other files of the table, the same rows"
    assert contents(tmp_path / "c")["data-00000.parquet"] == contents(whole)["data-00000.parquet"]


def test_rows_are_in_their_order_and_with_their_types(trips: Any, tmp_path: Path) -> None:
    trips.csv(rows(range(5, 9)))
    trips.ingest()
    trips.csv(rows(range(9)))
    trips.ingest()
    export_version(trips.table, 1, "trips", tmp_path / "out", force=False)
    found = pq.read_table(tmp_path / "out" / "data-00000.parquet")
    assert found["car"].to_pylist() == [f"c{hour}" for hour in range(9)]
    assert found.schema.field("at").type == pa.timestamp("us", "UTC")


def test_a_snapshot_is_written_in_the_order_of_its_source(leaves: Any, tmp_path: Path) -> None:
    leaves.csv("length,kind,width\n3,oak,1\n1,elm,2\n2,fir,3\n")
    leaves.ingest()
    export_version(leaves.table, 0, "leaves", tmp_path / "out", force=False)
    found = pq.read_table(tmp_path / "out" / "data-00000.parquet")
    assert found.to_pydict() == {
        "length": [3.0, 1.0, 2.0], "kind": ["oak", "elm", "fir"], "width": [1.0, 2.0, 3.0],
    }  # fmt: skip


def test_files_end_where_the_rows_numbers_say_so(
    trips: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_export, "_GROUP_ROWS", 3)
    monkeypatch.setattr(data_export, "_FILE_ROWS", 6)
    trips.csv(rows(range(14)))
    trips.ingest()
    done = export_version(trips.table, 0, "trips", tmp_path / "out", force=False)
    found = [pq.ParquetFile(tmp_path / "out" / name) for name in done.files]
    assert [file.metadata.num_rows for file in found] == [6, 6, 2]
    groups = [file.metadata.row_group(0).num_rows for file in found]
    assert groups == [3, 3, 2]


def test_a_folder_that_is_no_export_is_left_alone(trips: Any, tmp_path: Path) -> None:
    trips.csv(rows(range(3)))
    trips.ingest()
    place = tmp_path / "mine"
    place.mkdir()
    (place / "thesis.txt").write_text("all of it")
    for force in (False, True):
        with pytest.raises(InputError):
            export_version(trips.table, 0, "trips", place, force=force)
    assert contents(place) == {"thesis.txt": b"all of it"}
