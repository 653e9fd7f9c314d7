"""A DatasetRef is an address that any Delta reader can open: its version, its window, its rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, QueryBuilder, write_deltalake

from perennial.contracts.refs import DatasetRef
from perennial.spec import ModelSpec, parse_spec
from perennial.stores import sources, staging, tables
from tests.workplace import MODEL_YAML, demand_rows

Reader = Callable[[str, int], pa.Table]


def plain(uri: str, version: int) -> pa.Table:
    """deltalake through Arrow."""
    return DeltaTable(uri, version=version).to_pyarrow_table()


def data_fusion(uri: str, version: int) -> pa.Table:
    """deltalake through DataFusion's SQL."""
    query = QueryBuilder().register("rows", DeltaTable(uri, version=version))
    found = pa.table(query.execute("SELECT * FROM rows"))
    return found.cast(pa.schema(DeltaTable(uri, version=version).schema().to_arrow()))


def files_in_duckdb(uri: str, version: int) -> pa.Table:
    """DuckDB over the version's files."""
    files = DeltaTable(uri, version=version).file_uris()
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.read_parquet(files, union_by_name=True).to_arrow_table()


def by_the_protocol(uri: str, version: int) -> pa.Table:
    """The log replayed as the Delta protocol says, with no library for it."""
    active: dict[str, None] = {}
    for number in range(version + 1):
        text = (Path(uri) / "_delta_log" / f"{number:020}.json").read_text()
        for action in map(json.loads, text.splitlines()):
            if "remove" in action:
                active.pop(unquote(action["remove"]["path"]), None)
            if "add" in action:
                active[unquote(action["add"]["path"])] = None
    return pa.concat_tables(
        [pq.read_table(Path(uri) / path) for path in active], promote_options="permissive"
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[DatasetRef, ModelSpec]:
    """The middle version of a table of three, up to a moment inside it."""
    root = tmp_path_factory.mktemp("project")
    spec, table = parse_spec(MODEL_YAML), str(root / "tables" / "demand")
    (root / "data").mkdir()
    found = None
    for days, seed in ((10, 1), (14, 2), (16, 3)):
        demand_rows("2024-01-01", days, seed).to_csv(root / "data" / "rows.csv", index=False)
        source = sources.inspect(spec, root, tables.watermark(spec, table), None, False)
        staged = staging.stage(spec, root, source, root / "staging")
        version = tables.publish(spec, staged, table, str(root / "quarantine"))
        if version == 1:
            found = tables.dataset(spec, table, datetime(2024, 1, 12, tzinfo=UTC))
    assert found is not None
    assert DeltaTable(table).version() == 2
    return found, spec


@pytest.mark.parametrize("read", [plain, data_fusion, files_in_duckdb, by_the_protocol])
def test_its_version_and_window_give_the_same_rows_and_digest(
    read: Reader, dataset: tuple[DatasetRef, ModelSpec], tmp_path: Path
) -> None:
    ref, spec = dataset
    rows = read(ref.uri, ref.version)
    inside = pc.and_(pc.greater_equal(rows["at"], ref.start), pc.less(rows["at"], ref.end))
    rows = rows.filter(inside)

    ours = pd.concat(tables.scan(ref, spec), ignore_index=True)
    assert rows.num_rows == ref.rows == len(ours)
    theirs = rows.to_pandas().sort_values(["at", "shop"], ignore_index=True)
    pd.testing.assert_frame_equal(theirs[list(ours)], ours, check_dtype=False)

    copy = str(tmp_path / "copy")
    write_deltalake(copy, rows)
    assert tables.dataset(spec, copy, None).content_digest == ref.content_digest
