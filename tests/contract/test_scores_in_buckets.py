"""Tables of predictions in a bucket: at their own address, and in nobody else's place."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest

from perennial.contracts.errors import InputError
from perennial.contracts.refs import SourceRef, VersionRef
from perennial.contracts.scoring import ScoringJob
from perennial.stores import lake, scored
from perennial.stores.sources.delta import delta_state
from perennial.stores.storage.objects import Objects
from tests.contract.s3 import BUCKET, Endpoint, started

UNFIT = ("a#2", "a?x=1", "a%20b", "[a]", "a|b", "a^b", "a\\b", "a\tb", "a//b", "a/./b", "a/../b")
FINE = ("a b", "ünï", "100%", "a+b", "a=1/b=2", "a:b@c", "o'clock", '"', "{a}", "~", "a&b;c", "$x")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with started() as running:
        yield running["moto"]


@pytest.fixture(autouse=True)
def connected(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in endpoint.environment("project").items():
        monkeypatch.setenv(name, value)


def job(output: str) -> ScoringJob:
    return ScoringJob(
        version=VersionRef(model="m", version=1, digest="d" * 64, uri="bundle"),
        source=SourceRef(kind="csv", uri="rows.csv", fingerprint="f", since=None, until=None),
        columns=(),
        output=output,
        max_share=0.02,
    )


def keys(endpoint: Endpoint, prefix: str) -> list[str]:
    found = endpoint.client().list_objects_v2(Bucket=BUCKET, Prefix=prefix)
    return [each["Key"] for each in found.get("Contents", ())]


def write(uri: str) -> None:
    rows = pa.RecordBatch.from_pydict({"a": [1]})
    stream = pa.RecordBatchReader.from_batches(rows.schema, [rows])
    lake.write(uri, lake.open_table(uri), stream)


@pytest.mark.parametrize("name", FINE)
def test_a_table_is_where_its_address_says(endpoint: Endpoint, name: str) -> None:
    uri = f"s3://{BUCKET}/fine/{name}"
    write(uri)
    write(uri)
    assert len(keys(endpoint, f"fine/{name}/")) == len(Objects(uri).sizes()) == 4
    table = lake.open_table(uri)
    assert table is not None
    assert lake.files_intact(table, uri)
    assert delta_state(uri).startswith("version 1 of ")


@pytest.mark.parametrize("name", UNFIT)
def test_an_address_that_would_be_that_of_another_table_is_refused(
    endpoint: Endpoint, name: str
) -> None:
    uri = f"s3://{BUCKET}/unfit/{name}"
    for use in (write, delta_state, lambda uri: scored.find(job(uri))):
        with pytest.raises(InputError, match=r"no tables can be kept|is neither a folder nor"):
            use(uri)
    assert not keys(endpoint, "unfit/")


@pytest.mark.parametrize("key", ["notes.txt", "deep/rows.parquet", "deep/part-1.parquet"])
@pytest.mark.parametrize("table", ["", "_quarantine"])
def test_an_output_among_other_files_is_refused(endpoint: Endpoint, key: str, table: str) -> None:
    place = f"s3://{BUCKET}/others/{key.replace('/', '-')}{table}"
    Objects(f"{place}{table}").write(key, b"precious")

    with pytest.raises(InputError) as refused:
        scored.find(job(place))

    assert refused.value.message == (
        f"{place}{table}: there is something else (name another place)"
    )


def test_what_a_killed_writer_left_in_a_new_output_is_no_obstacle() -> None:
    place = f"s3://{BUCKET}/left"
    Objects(place).write("_delta_log/_commit_1a2b.json.tmp", b"")
    Objects(place).write("part-00000-1a2b-c000.zstd.parquet", b"half")
    assert scored.find(job(place)) is None
