"""Sources in a bucket whose store stops to answer: said as that, and not of the files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import deltalake
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perennial.contracts.errors import InputError, IntegrityError, UnavailableError
from perennial.spec import ModelSpec, parse_spec
from perennial.stores import sources
from tests.contract.s3 import BUCKET, Faulty, started

PLACES = {"csv": "rows", "parquet": "files/*.parquet", "delta": "table"}
OBJECTS = {"csv": "rows/a.csv", "parquet": "files/a.parquet"}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    """An endpoint with the same 50,000 rows three times."""
    rows = pd.DataFrame({"x": range(50_000), "y": [1.5] * 50_000})
    folder = tmp_path_factory.mktemp("rows")
    rows.to_csv(folder / "a.csv", index=False)
    pq.write_table(pa.Table.from_pandas(rows), folder / "a.parquet")
    with started() as endpoints, Faulty.before(endpoints["moto"]) as faulty:
        client = endpoints["moto"].client()
        for kind, key in OBJECTS.items():
            client.upload_file(str(folder / f"a.{kind}"), BUCKET, key)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in faulty.endpoint.environment("p").items():
                patch.setenv(name, value)
            patch.setenv("AWS_MAX_ATTEMPTS", "2")
            options = {"allow_http": "true", **faulty.endpoint.environment("p")}
            deltalake.write_deltalake(
                f"s3://{BUCKET}/table", pa.Table.from_pandas(rows), storage_options=options
            )
            yield faulty
    assert faulty.received("GET") > 0


@pytest.fixture(autouse=True)
def in_order(faulty: Faulty) -> Iterator[None]:
    yield
    faulty.recover()


def model(kind: str) -> ModelSpec:
    return parse_spec(
        f"name: m\nobjective: regression\nsource: {{kind: {kind}, uri: s3://{BUCKET}/"
        f"{PLACES[kind]}}}\nlabel: {{column: y}}\ncolumns: {{x: {{type: integer}}, "
        "y: {type: float}}\nsplit: {kind: random, validation: 0.2, test: 0.2}\n"
    )


def read(kind: str, root: Path) -> int:
    spec = model(kind)
    source = sources.inspect(spec, root, None, None)
    return sum(batch.table.num_rows for batch in sources.read(spec, root, source))


@pytest.mark.parametrize("kind", PLACES)
def test_a_store_that_falls_silent_is_worth_a_retry(
    kind: str, faulty: Faulty, tmp_path: Path
) -> None:
    assert read(kind, tmp_path) == 50_000
    faulty.cut_answers_after = 900
    with pytest.raises(UnavailableError, match=r"s3://.*(does not answer|answered)"):
        read(kind, tmp_path)
    faulty.recover()
    assert read(kind, tmp_path) == 50_000


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_files_that_may_be_listed_and_not_read_are_told_as_that(
    kind: str, faulty: Faulty, tmp_path: Path
) -> None:
    faulty.deny_reads = "/"
    with pytest.raises(InputError, match=r"access to bucket .* was denied .*policy") as told:
        read(kind, tmp_path)
    assert not isinstance(told.value, IntegrityError)


def test_data_files_of_a_table_that_may_not_be_read_are_told_as_that(
    faulty: Faulty, tmp_path: Path
) -> None:
    """Its log may: it is all that is needed to look at the source."""
    spec = model("delta")
    source = sources.inspect(spec, tmp_path, None, None)
    rows = sources.read(spec, tmp_path, source)
    faulty.deny_reads = ".parquet"
    with pytest.raises(InputError, match=r"access to bucket .* was denied") as told:
        list(rows)
    assert not isinstance(told.value, IntegrityError)


def test_a_file_that_is_damaged_is_still_told_as_that(faulty: Faulty, tmp_path: Path) -> None:
    client = faulty.endpoint.client()
    client.put_object(Bucket=BUCKET, Key="files/b.parquet", Body=b"PAR1 nothing PAR1")
    try:
        with pytest.raises(InputError, match="not readable as Parquet"):
            read("parquet", tmp_path)
    finally:
        client.delete_object(Bucket=BUCKET, Key="files/b.parquet")
