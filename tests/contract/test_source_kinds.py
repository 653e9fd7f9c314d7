"""What holds for every kind of source: the same rows give the same table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import deltalake
import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from perennial.contracts.errors import InputError
from perennial.spec import ModelSpec, parse_spec
from perennial.stores import sources, staging, tables
from tests.contract import postgres
from tests.contract.databases import postgres_server  # noqa: F401  (fixture)

ROWS = pd.DataFrame(
    {
        "at": pd.to_datetime(
            [
                "2024-01-01 10:00:00",
                "2024-01-02 11:30:00",
                "2024-01-03 00:00:00",
                "2024-01-05 23:59:59",
            ],
            utc=True,
        ).as_unit("us"),
        "car": ["a", "b", "a", "c"],
        "km": [1.5, None, 0.1 + 0.2, 20.0],
        "stops": pd.array([1, 2, None, 4], dtype="Int64"),
        "seen": pd.to_datetime(["2024-01-01", None, "2024-01-02", "2024-01-03"], utc=True),
        "note": ["plain", None, 'with "quotes", a comma', "länger"],
        "late": pd.array([True, False, None, True], dtype="boolean"),
        "unused": [1, 2, 3, 4],
    }
)
COLUMNS = """
columns:
  car: {type: category}
  km: {type: float}
  stops: {type: integer}
  seen: {type: datetime}
  note: {type: string}
  late: {type: boolean}
"""


def as_csv(rows: pd.DataFrame, folder: Path) -> str:
    rows.to_csv(folder / "rows.csv", index=False)
    return "{kind: csv, uri: rows.csv,"


def as_parquet(rows: pd.DataFrame, folder: Path) -> str:
    pq.write_table(pa.Table.from_pandas(rows), folder / "rows.parquet", row_group_size=2)
    return "{kind: parquet, uri: rows.parquet,"


def as_delta(rows: pd.DataFrame, folder: Path) -> str:
    table = pa.Table.from_pandas(rows)
    deltalake.write_deltalake(folder / "rows", table.slice(0, 2))
    deltalake.write_deltalake(folder / "rows", table.slice(2), mode="append")
    return "{kind: delta, uri: rows,"


def as_sql(rows: pd.DataFrame, folder: Path) -> str:
    engine = sa.create_engine(f"sqlite:///{folder / 'rows.db'}")
    rows.to_sql("rows", engine, index=False)
    engine.dispose()
    return "{kind: sql, uri: 'sqlite:///rows.db', query: rows,"


KINDS = pytest.mark.parametrize("write", [as_csv, as_parquet, as_delta, as_sql])
Write = Callable[[pd.DataFrame, Path], str]


def model(source: str) -> ModelSpec:
    return parse_spec(
        f"name: m\nobjective: binary\nsource: {source} event_time: at, entity: [car], "
        f"lateness: 1d}}\nlabel: {{column: late}}\n{COLUMNS}"
    )


def stage(spec: ModelSpec, folder: Path, **moments: datetime | None) -> staging.StagedRef:
    watermark, as_of = moments.get("watermark"), moments.get("as_of")
    source = sources.inspect(spec, folder, watermark, as_of)
    return staging.stage(spec, folder, source, folder / "staging")


def published(spec: ModelSpec, folder: Path, staged: staging.StagedRef) -> pd.DataFrame:
    table, quarantine = str(folder / "table"), str(folder / "quarantine")
    tables.publish(spec, staged, table, quarantine)
    ref = tables.dataset(spec, table, None)
    return pd.concat(tables.scan(ref, spec), ignore_index=True)


@KINDS
def test_the_same_rows_make_the_same_table(write: Write, tmp_path: Path) -> None:
    spec = model(write(ROWS, tmp_path))
    staged = stage(spec, tmp_path)
    assert (staged.rows, staged.bad_rows) == (4, 0)
    expected = pd.DataFrame(
        {
            "at": ROWS["at"],
            "car": ROWS["car"],
            "km": ROWS["km"],
            "stops": ROWS["stops"].astype("float64"),
            "seen": ROWS["seen"].astype("datetime64[us, UTC]"),
            "note": ROWS["note"].astype("str"),
            "late": ROWS["late"].astype("float64"),
        }
    )
    pd.testing.assert_frame_equal(published(spec, tmp_path, staged), expected)


@KINDS
def test_the_digest_is_the_same_when_the_source_is_read_again(write: Write, tmp_path: Path) -> None:
    spec = model(write(ROWS, tmp_path))
    assert stage(spec, tmp_path) == stage(spec, tmp_path)


@KINDS
def test_the_window_starts_at_the_watermark_less_lateness_and_includes_as_of(
    write: Write, tmp_path: Path
) -> None:
    spec = model(write(ROWS, tmp_path))
    watermark = datetime(2024, 1, 3, 11, 30, tzinfo=UTC)
    as_of = datetime(2024, 1, 3, tzinfo=UTC)
    staged = stage(spec, tmp_path, watermark=watermark, as_of=as_of)
    assert published(spec, tmp_path, staged)["car"].tolist() == ["b", "a"]


@KINDS
def test_the_fingerprint_changes_with_the_content_only(write: Write, tmp_path: Path) -> None:
    spec = model(write(ROWS.head(3), tmp_path))
    before = sources.inspect(spec, tmp_path, None, None)
    assert sources.inspect(spec, tmp_path, None, None) == before
    for path in sorted(tmp_path.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    write(ROWS, tmp_path)
    assert sources.inspect(spec, tmp_path, None, None).fingerprint != before.fingerprint


@KINDS
def test_a_declared_column_that_is_not_there_is_told_with_the_nearest_name(
    write: Write, tmp_path: Path
) -> None:
    spec = model(write(ROWS.rename(columns={"stops": "stop", "late": "delayed"}), tmp_path))
    with pytest.raises(InputError) as caught:
        stage(spec, tmp_path)
    told = [problem.what for problem in caught.value.problems]
    assert told == [
        "column 'stops' is not there; did you mean 'stop'?",
        "the label column 'late' is not there; did you mean 'delayed'?",
    ]


@KINDS
def test_what_is_not_declared_is_reported_and_not_read(write: Write, tmp_path: Path) -> None:
    spec = model(write(ROWS, tmp_path))
    source = sources.inspect(spec, tmp_path, None, None)
    (batch,) = list(sources.read(spec, tmp_path, source))
    assert "unused" not in batch.table.column_names
    assert set(batch.undeclared) == {"unused"}


@KINDS
def test_a_moment_of_the_future_is_refused(write: Write, tmp_path: Path) -> None:
    spec = model(write(ROWS, tmp_path))
    with pytest.raises(InputError) as caught:
        sources.inspect(spec, tmp_path, None, datetime(2300, 1, 1))
    assert str(caught.value) == (
        "as of: 2300-01-01T00:00:00+00:00 lies in the future (leave it out to train with all that "
        "is known)"
    )


@KINDS
def test_a_source_that_is_not_there_is_an_input_error(write: Write, tmp_path: Path) -> None:
    spec = model(write(ROWS, tmp_path))
    with pytest.raises(InputError, match=r"no such file|no Delta table"):
        sources.inspect(spec, tmp_path / "elsewhere", None, None)


KEYS = [UUID(int=int(digit * 32, 16)) for digit in "3a1"]
KEYED = 'rows ("at" TIMESTAMP, key UUID, late BOOLEAN)'
KEYED_ROWS = ", ".join(f"('2024-01-0{i + 1}', '{key}', true)" for i, key in enumerate(KEYS))


@pytest.fixture(params=["duckdb", "arrow", *(["postgresql"] if postgres.binaries() else [])])
def keyed(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A source with a column of UUIDs."""
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
        with postgres.database(server, "keyed") as url:
            engine = sa.create_engine(url)
            with engine.begin() as connection:
                connection.exec_driver_sql(f"CREATE TABLE {KEYED}")
                connection.exec_driver_sql(f"INSERT INTO rows VALUES {KEYED_ROWS}")
            engine.dispose()
            monkeypatch.setenv("KEYED_URL", url)
            yield "{kind: sql, uri: 'env:KEYED_URL', query: rows,"
        return
    if request.param == "duckdb":
        with duckdb.connect() as connection:
            connection.execute(f"CREATE TABLE {KEYED}; INSERT INTO rows VALUES {KEYED_ROWS}")
            connection.execute(f"COPY rows TO '{tmp_path / 'rows.parquet'}'")
    else:
        at = pa.array([datetime(2024, 1, i + 1) for i in range(3)])
        keys = pa.array(KEYS, pa.uuid())
        table = pa.table({"at": at, "key": keys, "late": [True] * 3})
        pq.write_table(table, tmp_path / "rows.parquet")
    yield "{kind: parquet, uri: rows.parquet,"


def test_a_uuid_is_the_text_that_tells_rows_apart(keyed: str, tmp_path: Path) -> None:
    spec = parse_spec(
        f"name: m\nobjective: binary\nsource: {keyed} event_time: at, entity: [key]}}\n"
        "label: {column: late}\ncolumns: {key: {type: string}, late: {type: boolean}}"
    )
    staged = stage(spec, tmp_path)
    assert (staged.rows, staged.bad_rows) == (3, 0)
    assert published(spec, tmp_path, staged)["key"].tolist() == [str(key) for key in KEYS]
