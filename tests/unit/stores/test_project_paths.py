"""Folders whose names Delta's library can't address, or DuckDB takes for a pattern."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from perennial.contracts.errors import InputError
from perennial.stores import engine, lake
from perennial.stores.predictions.tables import open_log
from perennial.stores.project import Project

UNFIT = ("my[project]", "a]", "all*", "what?", "x^2", "a|b", "a\\b", "c#", "100%20", "tab\there")
FINE = ("my project", "100%", "ünï", "{a}", "a=b", "o'clock", '"', "~", "(1)", "$HOME", "a&b")


@pytest.mark.parametrize("name", UNFIT)
def test_where_no_table_can_be_kept_nothing_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    with pytest.raises(InputError, match="no tables can be kept") as caught:
        Project(folder)
    assert str(folder) in str(caught.value)
    monkeypatch.setenv("PERENNIAL_STORAGE", str(folder))
    with pytest.raises(InputError, match="no tables can be kept"):
        _ = Project(tmp_path).storage
    for opened in (lake.open_table, open_log):  # somebody's own table, or an output
        with pytest.raises(InputError, match="no tables can be kept"):
            opened(str(folder / "table"))


@pytest.mark.parametrize("name", FINE)
def test_any_other_folder_holds_tables(tmp_path: Path, name: str) -> None:
    project = Project(tmp_path / name)
    uri = project.uri("tables", "m")
    lake.write(uri, None, pa.RecordBatchReader.from_batches(*_rows(1)))
    write_deltalake(uri, pa.table({"a": [2]}), mode="append")
    with engine.connect(tmp_path) as connection:
        rows = lake.relation(connection, DeltaTable(uri), uri)
        assert engine.one(connection, f"SELECT sum(a) FROM {rows}") == (3,)
    assert Path(uri).is_relative_to(tmp_path / name)
    assert (Path(uri) / "_delta_log").is_dir()


def _rows(value: int) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    batch = pa.RecordBatch.from_pydict({"a": [value]})
    return batch.schema, [batch]
