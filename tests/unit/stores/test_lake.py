from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from perennial.contracts.errors import InputError, UnavailableError
from perennial.stores import lake


def rows(*values: int) -> Any:
    table = pa.table({"x": pa.array(values, pa.int64())})
    return pa.RecordBatchReader.from_batches(table.schema, table.to_batches())


def content(uri: str) -> list[int]:
    table = lake.open_table(uri)
    assert table is not None
    return sorted(table.to_pyarrow_table()["x"].to_pylist())


HOW: dict[str, dict[str, Any]] = {
    "appended": {},
    "in place of some rows": {"predicate": "x = 9"},
    "in place of all rows": {"replace": True},
}


@pytest.mark.parametrize("first", HOW)
@pytest.mark.parametrize("second", HOW)
def test_of_two_writers_that_read_one_version_only_one_commits(
    tmp_path: Path, first: str, second: str
) -> None:
    uri = str(tmp_path / "t")
    lake.write(uri, None, rows(1))
    one, other = lake.open_table(uri), lake.open_table(uri)
    lake.write(uri, one, rows(9), **HOW[first])
    before = content(uri)
    with pytest.raises(lake.ConflictError):
        lake.write(uri, other, rows(9), **HOW[second])
    assert content(uri) == before


def test_of_two_writers_that_find_no_table_only_one_makes_it(tmp_path: Path) -> None:
    uri = str(tmp_path / "t")
    lake.write(uri, None, rows(1))
    with pytest.raises(lake.ConflictError):
        lake.write(uri, None, rows(2))
    assert content(uri) == [1]


def test_a_table_whose_folder_cannot_be_made_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    uri = str(tmp_path / "file" / "t")
    with pytest.raises(InputError) as refused:
        lake.write(uri, None, rows(1))
    assert refused.value.message.startswith(f"{uri}: the folder can't be made: ")


def test_a_writer_that_reads_anew_after_a_conflict_commits(tmp_path: Path) -> None:
    uri = str(tmp_path / "t")
    lake.write(uri, None, rows(1))
    stale = [lake.open_table(uri)]
    lake.write(uri, lake.open_table(uri), rows(2))

    def attempt() -> None:
        lake.write(uri, stale.pop() if stale else lake.open_table(uri), rows(3))

    lake.until_committed(uri, attempt)
    assert content(uri) == [1, 2, 3]


def test_a_writer_that_is_always_too_late_gives_up_as_unavailable(tmp_path: Path) -> None:
    uri = str(tmp_path / "t")
    lake.write(uri, None, rows(1))
    stale = lake.open_table(uri)
    lake.write(uri, lake.open_table(uri), rows(2))
    with pytest.raises(UnavailableError) as caught:
        lake.until_committed(uri, lambda: lake.write(uri, stale, rows(3)))
    assert str(caught.value) == f"{uri}: other writers were quicker 8 times"
    assert content(uri) == [1, 2]


def test_the_last_write_is_told_as_long_as_the_history_reaches_back_to_it(tmp_path: Path) -> None:
    uri = str(tmp_path / "t")
    lake.write(uri, None, rows(1))
    lake.write(uri, lake.open_table(uri), rows(2), lineage={"perennial.rows": "1"})
    table = DeltaTable(uri)
    table.alter.set_table_properties({"delta.logRetentionDuration": "interval 7 days"})
    told = lake.last_write(lake.open_table(uri))
    assert told is not None
    assert (told["version"], told["perennial.rows"]) == (1, "1")

    table.create_checkpoint()
    for version in range(2):
        (tmp_path / "t" / "_delta_log" / f"{version:020}.json").unlink()

    assert lake.last_write(lake.open_table(uri)) is None
    assert content(uri) == [1, 2]


def test_a_table_that_write_did_not_make_has_no_last_write(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", pa.table({"x": [1]}))
    assert lake.last_write(lake.open_table(str(tmp_path / "t"))) is None


def test_a_column_that_is_stored_in_other_capitals_is_refused_before_it_is_written(
    tmp_path: Path,
) -> None:
    uri = str(tmp_path / "table")
    lake.write(uri, None, rows(1))
    with pytest.raises(InputError) as caught:
        lake.check_fits(lake.open_table(uri), uri, pa.schema([("X", pa.int64())]), ())
    assert caught.value.message.startswith(
        f"{uri}, column 'X': is stored as 'x', and tables don't tell capitals apart (change "
    )
