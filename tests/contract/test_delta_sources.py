"""Delta tables as other engines write them, Spark and Databricks above all, are read."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perennial.contracts.errors import InputError, IntegrityError
from perennial.spec import ModelSpec, parse_spec
from perennial.stores import sources
from perennial.stores.storage.delta import delta_options
from tests.contract.s3 import KINDS, Endpoints, started

START = datetime(2024, 1, 1, tzinfo=UTC)
TYPES = {"at": "timestamp", "id": "long", "part": "string"}
_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def model(where: str, part: str = "category") -> ModelSpec:
    return parse_spec(
        "name: m\nobjective: binary\n"
        f"source: {{kind: delta, uri: '{where}', event_time: at, entity: [id], lateness: 0d}}\n"
        f"label: {{column: late}}\ncolumns: {{id: {{type: integer}}, part: {{type: {part}}}}}"
    )


def read(
    where: Path | str, spec: ModelSpec | None = None, since: datetime | None = None
) -> dict[int, tuple[Any, str]]:
    """What a source holds: by its id each row's partition and place."""
    spec = spec or model(str(where))
    wanted = ["at", "id", "part"]
    found = sources.read(spec, Path("/"), sources.inspect(spec, Path("/"), since, None), wanted)
    return {
        row["id"]: (row["part"], batch.where(at))
        for batch in found
        for at, row in enumerate(batch.table.to_pylist())
    }


@dataclass
class Table:
    """A table written by hand, action by action: what the protocol allows and deltalake's writer
    doesn't do."""

    folder: Path
    features: Sequence[str] = ()
    legacy: bool = False
    configuration: Mapping[str, str] = field(default_factory=dict)
    stored: Mapping[str, str] = field(default_factory=lambda: {name: name for name in TYPES})
    log: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self,
        ids: range,
        part: str | None,
        name: str,
        times: Sequence[datetime] = (),
        deleted: Sequence[int] = (),
        written: int = 1,
    ) -> Path:
        """Add a file of rows, by default each an hour after the one before."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        times = times or [START + timedelta(hours=each) for each in ids]
        rows = pa.table(
            {
                self.stored["at"]: pa.array(times, pa.timestamp("us", "UTC")),
                self.stored["id"]: pa.array(ids, pa.int64()),
            }
        )
        pq.write_table(rows, path, row_group_size=4)
        at = self.stored["at"]
        cut = [f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z" for moment in times]
        stats = {
            "numRecords": len(ids), "nullCount": {at: 0},
            "minValues": {at: cut[0]}, "maxValues": {at: cut[-1]},
        }  # fmt: skip
        action = {
            "path": quote(name), "partitionValues": {self.stored["part"]: part},
            "size": path.stat().st_size, "modificationTime": written, "dataChange": True,
            "stats": json.dumps(stats),
        }  # fmt: skip
        if deleted:
            inline = _vector(deleted)
            action["deletionVector"] = {
                "storageType": "i", "pathOrInlineDv": _z85(inline), "sizeInBytes": len(inline),
                "cardinality": len(deleted),
            }  # fmt: skip
        self.log.append({"add": action})
        return path

    def commit(self) -> Path:
        """Write the log. Returns the table's folder."""
        fields = [
            {
                "name": name, "type": kind, "nullable": True,
                "metadata": {
                    "delta.columnMapping.id": number,
                    "delta.columnMapping.physicalName": self.stored[name],
                } if self.configuration.get("delta.columnMapping.mode") else {},
            }
            for number, (name, kind) in enumerate(TYPES.items(), start=1)
        ]  # fmt: skip
        protocol: dict[str, Any] = {"minReaderVersion": 1, "minWriterVersion": 2}
        if self.legacy:
            protocol = {"minReaderVersion": 2, "minWriterVersion": 5}
        if self.features:
            protocol = {
                "minReaderVersion": 3, "minWriterVersion": 7,
                "readerFeatures": list(self.features), "writerFeatures": list(self.features),
            }  # fmt: skip
        about = {
            "id": "5f2c7c6e-6d3f-4b0e-9a39-0f5ad8d3c001",
            "format": {"provider": "parquet", "options": {}},
            "schemaString": json.dumps({"type": "struct", "fields": fields}),
            "partitionColumns": ["part"], "configuration": dict(self.configuration),
            "createdTime": 0,
        }  # fmt: skip
        log = self.folder / "_delta_log"
        log.mkdir(parents=True)
        lines = [{"protocol": protocol}, {"metaData": about}, *self.log]
        (log / f"{0:020}.json").write_text("\n".join(map(json.dumps, lines)))
        return self.folder


def _vector(deleted: Sequence[int]) -> bytes:
    """Positions below 65,536 as a portable Roaring bitmap, in the form of a deletion vector."""
    head = struct.pack("<IQI", 1681511377, 1, 0)
    bitmap = struct.pack("<IIHHI", 12346, 1, 0, len(deleted) - 1, 16)
    found = head + bitmap + struct.pack(f"<{len(deleted)}H", *deleted)
    return found + b"\0" * (-len(found) % 4)


def _z85(raw: bytes) -> str:
    numbers = struct.unpack(f">{len(raw) // 4}I", raw)
    return "".join(_Z85[n // 85**place % 85] for n in numbers for place in (4, 3, 2, 1, 0))


PARTS: dict[str, tuple[str, list[Any]]] = {
    "text": ("category", ["a b", "Köln", "c/d", "a:b", "a+b", "10%", "%25", "R&D", "x=y", "it's",
                          'a"b', "a\\b", "a?b#c", "日本", "plain", None]),
    "moments": ("datetime", [datetime(2025, 1, 1, 10, 0, 0, 250_000, UTC), START, None]),
    "days": ("datetime", [date(2025, 1, 1), date(2024, 2, 29)]),
    "numbers": ("integer", [1, -2, None]),
    "fractions": ("float", [0.5, -1e-9]),
    "booleans": ("boolean", [True, False]),
}  # fmt: skip


def divided(where: str, parts: Sequence[Any]) -> dict[int, Any]:
    """Write a table with a folder for each value. Returns the value of each row."""
    numbers = list(range(3 * len(parts)))
    values = [parts[number % len(parts)] for number in numbers]
    at = pa.array([START] * len(numbers), pa.timestamp("us", "UTC"))
    rows = pa.table({"at": at, "id": numbers, "part": values, "late": [True] * len(numbers)})
    options = delta_options(where)
    deltalake.write_deltalake(where, rows, partition_by=["part"], storage_options=options)
    return dict(zip(numbers, values, strict=True))


@pytest.mark.parametrize("kind", PARTS)
def test_a_table_may_be_divided_by_values_of_any_type_and_any_characters(
    tmp_path: Path, kind: str
) -> None:
    where = tmp_path / "my tables ü%" / "orders"
    where.parent.mkdir()
    column, parts = PARTS[kind]
    expected = divided(str(where), parts)
    found = read(where, model(str(where), column))
    assert {number: part for number, (part, _) in found.items()} == expected


@pytest.fixture(scope="module")
def endpoints() -> Iterator[Endpoints]:
    with started() as running:
        yield running


@pytest.mark.parametrize("kind", KINDS)
def test_so_may_one_in_a_bucket(
    endpoints: Endpoints, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in endpoints[kind].environment("sources").items():
        monkeypatch.setenv(name, value)
    where = "s3://perennial-tests/sources/orders"
    expected = divided(where, PARTS["text"][1])
    assert {number: part for number, (part, _) in read(where).items()} == expected


def test_folders_that_spark_names_as_they_are_called_are_found(tmp_path: Path) -> None:
    table = Table(tmp_path / "t")
    for number, part in enumerate(["a b", "Köln", "c%2Fd"]):
        table.add(
            range(number, number + 1), part.replace("%2F", "/"), f"part={part}/{number}.parquet"
        )
    assert read(table.commit()) == {
        0: ("a b", "0.parquet row 1"),
        1: ("Köln", "1.parquet row 1"),
        2: ("c/d", "2.parquet row 1"),
    }


def test_rows_that_a_deletion_vector_takes_out_are_not_there_and_others_keep_their_places(
    tmp_path: Path,
) -> None:
    table = Table(tmp_path / "tables ü%" / "t", features=["deletionVectors"])
    table.add(range(10), "a b", "part=a%20b/1.parquet", deleted=[0, 3, 4, 9])
    table.add(range(10, 20), None, "2.parquet", deleted=[1])
    table.add(range(20, 22), "x", "3.parquet")
    found = read(table.commit())
    assert set(found) == set(range(22)) - {0, 3, 4, 9, 11}
    assert found[5] == ("a b", "1.parquet row 6")
    assert found[12] == (None, "2.parquet row 3")
    later = read(table.folder, since=START + timedelta(hours=8))
    assert set(later) == {8, *range(10, 22)} - {11}


def test_a_table_that_may_have_deletion_vectors_may_have_none(tmp_path: Path) -> None:
    table = Table(tmp_path / "t", features=["deletionVectors", "v2Checkpoint"])
    table.add(range(3), "x", "1.parquet")
    assert set(read(table.commit())) == {0, 1, 2}


@pytest.mark.parametrize("legacy", [True, False])
def test_columns_that_are_called_otherwise_in_the_files_are_read_by_the_tables_names(
    tmp_path: Path, legacy: bool
) -> None:
    table = Table(
        tmp_path / "t",
        features=[] if legacy else ["columnMapping", "deletionVectors"],
        legacy=legacy,
        configuration={"delta.columnMapping.mode": "name"},
        stored={"at": "col-1", "id": "col-2", "part": "col-3"},
    )
    table.add(range(4), "x y", "k/1.parquet", deleted=[] if legacy else [2])
    table.add(range(4, 8), None, "2.parquet")
    where = table.commit()
    spec = model(str(where))
    source = sources.inspect(spec, Path("/"), None, None)
    assert sources.columns(spec, Path("/"), source) == {source.uri: ["at", "id", "part"]}
    found = read(where)
    assert set(found) == set(range(8)) - ({2} if not legacy else set())
    assert (found[3], found[4]) == (("x y", "1.parquet row 4"), (None, "2.parquet row 1"))


def test_files_come_in_the_order_they_were_written_in(tmp_path: Path) -> None:
    table = Table(tmp_path / "t")
    for name, time in (("a", 3), ("b", 1), ("c", 2), ("d", 2)):
        table.add(range(1), name, f"{name}.parquet", written=time)
    assert read(table.commit())[0][0] == "a"
    spec = model(str(table.folder))
    source = sources.inspect(spec, Path("/"), None, None)
    (batch,) = sources.read(spec, Path("/"), source, ["part"])
    assert batch.table["part"].to_pylist() == ["b", "c", "d", "a"]


@pytest.mark.parametrize("features", [[], ["deletionVectors"]])
def test_files_before_the_window_are_not_opened(tmp_path: Path, features: list[str]) -> None:
    table = Table(tmp_path / "t", features=features)
    table.add(range(10), "x", "1.parquet").unlink()
    table.add(range(10, 20), "x", "2.parquet")
    where = table.commit()
    found = read(where, since=START + timedelta(hours=16))
    assert set(found) == set(range(14, 20))  # row groups of four rows
    with pytest.raises(IntegrityError, match="version 0 is not readable"):
        read(where)


def test_statistics_may_lack_microseconds_and_reach_to_the_end_of_time(tmp_path: Path) -> None:
    table = Table(tmp_path / "t")
    table.add(range(1), "x", "1.parquet", [START + timedelta(microseconds=999)])
    table.add(range(1, 3), "x", "2.parquet", [START, datetime.max.replace(tzinfo=UTC)])
    assert set(read(table.commit(), since=START + timedelta(microseconds=500))) == {0, 1, 2}
    assert set(read(table.folder, since=START + timedelta(milliseconds=5))) == {1, 2}


REFUSED = {
    "unknown feature": (["made-up"], {}, "1.parquet", "Feature 'made-up' is not supported"),
    "unheeded feature": (
        ["typeWidening"], {}, "1.parquet",
        "is read with typeWidening, which is not known (write the columns that are needed into a "
        "table without)",
    ),
    "columns by number": (
        ["columnMapping"], {"delta.columnMapping.mode": "id"}, "1.parquet",
        "is read with columnMapping by id, which is not known",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_heeded_is_refused_in_words(tmp_path: Path, case: str) -> None:
    features, configuration, name, told = REFUSED[case]
    table = Table(tmp_path / "t", features=features, configuration=configuration)
    table.add(range(3), "x", name)
    with pytest.raises(InputError) as caught:
        read(table.commit())
    assert told in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path}/t: ")


def test_a_shallow_clone_is_refused(tmp_path: Path) -> None:
    table = Table(tmp_path / "t")
    path = table.add(range(3), "x", "1.parquet")
    table.log[0]["add"]["path"] = f"file://{path}"
    with pytest.raises(InputError, match=r"a shallow clone: .* \(name that table, or make a deep"):
        read(table.commit())
