"""A DatasetRef is an address that any Delta reader can open: its version, its window, its rows."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import EndpointConnectionError
from deltalake import DeltaTable, QueryBuilder, write_deltalake

from perennial.cli.prefect_server import free_port
from perennial.contracts.errors import InputError
from perennial.contracts.refs import DatasetRef
from perennial.spec import ModelSpec, parse_spec
from perennial.stores import history, sources, staging, tables
from perennial.stores.data_export import export_version
from perennial.stores.differences import diff
from tests.contract.s3 import BUCKET, Endpoint
from tests.workplace import MODEL_YAML, demand_rows

Reader = Callable[[str, int], pa.Table]


def opened(uri: str, version: int) -> DeltaTable:
    """deltalake's own way; an endpoint without TLS must be said to be so."""
    return DeltaTable(uri, version=version, storage_options={"aws_allow_http": "true"})


def plain(uri: str, version: int) -> pa.Table:
    """deltalake through Arrow."""
    return opened(uri, version).to_pyarrow_table()


def data_fusion(uri: str, version: int) -> pa.Table:
    """deltalake through DataFusion's SQL."""
    query = QueryBuilder().register("rows", opened(uri, version))
    found = pa.table(query.execute("SELECT * FROM rows"))
    return found.cast(pa.schema(opened(uri, version).schema().to_arrow()))


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


@dataclass(frozen=True)
class Made:
    """The middle version of a table of three, up to a moment inside it."""

    ref: DatasetRef
    spec: ModelSpec
    table: str


@pytest.fixture(scope="module", params=["disk", "s3"])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Made]:
    root = tmp_path_factory.mktemp("project")
    with ExitStack() as stack:
        store = str(root)
        if request.param == "s3":
            endpoint = stack.enter_context(_moto_elsewhere())
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            for name, value in endpoint.environment("readers").items():
                patch.setenv(name, value)
            store = f"s3://{BUCKET}/readers"
        yield _made(root, store)


@contextmanager
def _moto_elsewhere() -> Iterator[Endpoint]:
    """moto's server in a process of its own: deltalake's restore keeps Python's lock while it waits
    for the store, so a server in this process could never answer."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            endpoint = Endpoint(f"http://127.0.0.1:{port}")
            until = time.monotonic() + 240
            while time.monotonic() < until:
                assert server.poll() is None
                try:
                    endpoint.client().create_bucket(Bucket=BUCKET)
                    break
                except EndpointConnectionError:
                    time.sleep(0.2)
            yield endpoint
        finally:
            server.kill()


def _made(root: Path, store: str) -> Made:
    spec, table = parse_spec(MODEL_YAML), f"{store}/tables/demand"
    (root / "data").mkdir()
    found = None
    for days, seed in ((10, 1), (14, 2), (16, 3)):
        demand_rows("2024-01-01", days, seed).to_csv(root / "data" / "rows.csv", index=False)
        source = sources.inspect(spec, root, tables.watermark(spec, table), None, False)
        staged = staging.stage(spec, root, source, root / "staging")
        done = tables.publish(spec, staged, table, f"{store}/quarantine/demand")
        if done.version == 1:
            found = tables.dataset(spec, table, datetime(2024, 1, 12, tzinfo=UTC))
    assert found is not None
    assert opened(table, 2).version() == 2
    return Made(found, spec, table)


def same_rows(read: Reader, made: Made, place: Path) -> None:
    ref, spec = made.ref, made.spec
    rows = read(ref.uri, ref.version)
    inside = pc.and_(pc.greater_equal(rows["at"], ref.start), pc.less(rows["at"], ref.end))
    rows = rows.filter(inside)

    ours = pd.concat(tables.scan(ref, spec), ignore_index=True)
    assert rows.num_rows == ref.rows == len(ours)
    theirs = rows.to_pandas().sort_values(["at", "shop"], ignore_index=True)
    pd.testing.assert_frame_equal(theirs[list(ours)], ours, check_dtype=False)

    copy = str(place / "copy")
    write_deltalake(copy, rows)
    assert tables.dataset(spec, copy, None).content_digest == ref.content_digest


@pytest.mark.parametrize("read", [plain, data_fusion])
def test_its_version_and_window_give_the_same_rows_and_digest(
    read: Reader, made: Made, tmp_path: Path
) -> None:
    same_rows(read, made, tmp_path)


@pytest.mark.parametrize("read", [files_in_duckdb, by_the_protocol])
@pytest.mark.parametrize("made", ["disk"], indirect=True)
def test_readers_of_files_give_the_same_rows_and_digest(
    read: Reader, made: Made, tmp_path: Path
) -> None:
    same_rows(read, made, tmp_path)


def test_versions_are_told_compared_exported_and_put_back(made: Made, tmp_path: Path) -> None:
    found = diff(made.table, 1, 2, "at")
    assert (found.rows_after - found.rows_before, found.added, found.removed) == (80, 80, 0)
    assert 0 < found.changed <= found.rows_before
    first = export_version(made.table, 1, "demand", tmp_path / "a", force=False)
    done = history.restore(made.table, 1)
    assert (done.version, done.changed, done.rows) == (3, True, found.rows_before)
    assert not history.restore(made.table, 1).changed
    again = export_version(made.table, 3, "demand", tmp_path / "b", force=False)
    assert again.digest == first.digest
    assert [one.operation for one in history.log(made.table, 3)] == ["restored", "merged", "merged"]

    history.restore(made.table, 2)
    newest = opened(made.table, int(history.newest(made.table).version()))
    assert newest.vacuum(0, dry_run=False, enforce_retention_duration=False)
    with pytest.raises(InputError, match="files of it were removed"):
        history.restore(made.table, 0)
    assert not history.restore(made.table, 2).changed
