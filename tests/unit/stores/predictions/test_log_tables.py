"""From segments to tables: exactly once, whatever is repeated, raced or changed."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from perennial.contracts.errors import IntegrityError, UnavailableError
from perennial.stores.predictions.columns import Layout
from perennial.stores.predictions.reading import labels, predictions
from perennial.stores.predictions.tables import Committed, commit_rows, commit_segments
from perennial.stores.predictions.waiting import finish
from tests.logged import NOON, label_rows, prediction_rows, seal


def rows(uri: str) -> list[dict[str, Any]]:
    found = [row for batch in predictions(uri) for row in batch.to_pylist()]
    return sorted(found, key=lambda row: row["_id"])


def ids(uri: str) -> list[str]:
    return [row["_id"] for row in rows(uri)]


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "table")


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def test_segments_committed_again_add_nothing(spool: Path, uri: str) -> None:
    waiting = seal(spool, prediction_rows(["a", "b"]), prediction_rows(["c"]))
    assert commit_segments(waiting, uri) == Committed(3)
    assert commit_segments(waiting, uri) == Committed(0)
    assert commit_segments(waiting[:1], uri) == Committed(0)
    assert ids(uri) == ["a", "b", "c"]
    assert DeltaTable(uri).version() == 0


def test_of_segments_that_are_partly_committed_only_the_rest_is_added(
    spool: Path, uri: str
) -> None:
    waiting = seal(spool, *(prediction_rows([id]) for id in "abcd"))
    commit_segments(waiting[:2], uri)
    assert commit_segments(waiting, uri) == Committed(2)
    assert ids(uri) == ["a", "b", "c", "d"]


def test_servers_are_counted_by_themselves(spool: Path, uri: str) -> None:
    first = seal(spool, prediction_rows(["a"]), prediction_rows(["b"]))
    second = seal(spool, prediction_rows(["c"]))
    commit_segments(first, uri)
    assert commit_segments(second, uri) == Committed(1)
    assert ids(uri) == ["a", "b", "c"]


@pytest.mark.parametrize("attempt", range(6))
def test_writers_that_meet_commit_every_row_once(spool: Path, uri: str, attempt: int) -> None:
    servers = [seal(spool, *(prediction_rows([f"{s}{i}"]) for i in range(6))) for s in "abc"]
    barrier = threading.Barrier(6)

    def commit(waiting: list[Any]) -> None:
        barrier.wait()
        for end in (2, 4, 6):
            while True:
                try:
                    commit_segments(waiting[:end], uri)
                    break
                except UnavailableError:
                    continue

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(commit, servers * 2))
    assert ids(uri) == [f"{s}{i}" for s in "abc" for i in range(6)]


def test_a_segment_that_another_keeper_removed_was_committed_by_it(spool: Path, uri: str) -> None:
    waiting = seal(spool, prediction_rows(["a"]), prediction_rows(["b"]))
    commit_segments(waiting[:1], uri)
    finish(waiting[0].path, "live")
    assert commit_segments(waiting, uri) == Committed(1)
    assert ids(uri) == ["a", "b"]


def test_versions_with_other_inputs_share_a_table(spool: Path, uri: str) -> None:
    old = prediction_rows(["a"], {"amount": [1.5]})
    new = prediction_rows(["b"], {"amount": [2.5], "country": ["de"]}, version=2)
    commit_segments(seal(spool, old, new), uri)
    later = prediction_rows(["c"], {"channel": ["web"]}, version=3)
    commit_segments(seal(spool, later), uri)
    found = [(row["amount"], row["country"], row["channel"]) for row in rows(uri)]
    assert found == [(1.5, None, None), (2.5, "de", None), (None, None, "web")]


def test_a_column_of_another_type_is_kept_beside_the_old_one(spool: Path, uri: str) -> None:
    commit_segments(seal(spool, prediction_rows(["a"], {"amount": [1.5]})), uri)
    changed = prediction_rows(["b"], {"amount": ["many"]}, version=2)
    back = prediction_rows(["c"], {"amount": [2.5]}, version=3)
    commit_segments(seal(spool, changed, back), uri)
    commit_segments(seal(spool, prediction_rows(["d"], {"amount": ["few"]}, version=2)), uri)
    found = [(row["amount"], row["amount__string"]) for row in rows(uri)]
    assert found == [(1.5, None), (None, "many"), (2.5, None), (None, "few")]


def test_types_that_change_within_a_new_table_do_not_stop_it(spool: Path, uri: str) -> None:
    batches = [
        prediction_rows([id], {"x": values})
        for id, values in {"a": [True], "b": [2], "c": [2.5], "d": ["2"], "e": [NOON]}.items()
    ]
    commit_segments(seal(spool, *batches), uri)
    schema = pa.schema(DeltaTable(uri).schema().to_arrow())
    types = {field.name: str(field.type) for field in schema if field.name.startswith("x")}
    assert types == {
        "x": "bool",
        "x__integer": "int64",
        "x__float": "double",
        "x__string": "string",
        "x__datetime": "timestamp[us, tz=UTC]",
    }
    assert ids(uri) == ["a", "b", "c", "d", "e"]


def test_an_input_with_a_name_of_the_log_or_other_capitals_gets_a_name_of_its_own(
    spool: Path, uri: str
) -> None:
    inputs = {"_id": [7], "Amount": [1.0], "amount": ["x"], "_DATE": ["y"]}
    commit_segments(seal(spool, prediction_rows(["a"], inputs)), uri)
    (row,) = rows(uri)
    assert (row["_id"], row["_id__integer"]) == ("a", 7)
    assert (row["Amount"], row["amount__string"]) == (1.0, "x")
    assert (row["_date"], row["_DATE__string"]) == (NOON.date(), "y")


def test_a_name_that_is_taken_with_its_type_is_counted() -> None:
    table = pa.schema({"x": pa.int64(), "x__float": pa.string()})
    layout = Layout(table)
    assert layout.place(pa.schema({"x": pa.float64()})) == ["x__float_2"]
    assert layout.place(pa.schema({"x": pa.float64()})) == ["x__float_2"]
    twice = pa.schema([("x", pa.int64()), ("x", pa.int64()), ("x", pa.int64())])
    assert layout.place(twice) == ["x", "x__integer", "x__integer_2"]


def test_names_that_sql_would_quote_are_kept(spool: Path, uri: str) -> None:
    odd = {"a b,c": [1.0], "d.e": [2.0], 'f"g`': ["x"], "größe": ["y"]}
    commit_segments(seal(spool, prediction_rows(["a"], odd)), uri)
    (row,) = rows(uri)
    assert {name: row[name] for name in odd} == {name: values[0] for name, values in odd.items()}


def test_rows_are_parted_by_their_day_in_utc(spool: Path, uri: str) -> None:
    late = NOON.replace(hour=23, minute=59, second=59, microsecond=999_999)
    next_day = late + timedelta(microseconds=1)
    before = prediction_rows(["a"], time=late)
    after = prediction_rows(["b"], time=next_day)
    commit_segments(seal(spool, before, after), uri)
    assert DeltaTable(uri).metadata().partition_columns == ["_date"]
    assert [row["_date"] for row in rows(uri)] == [date(2026, 3, 14), date(2026, 3, 15)]
    assert [row["_time"] for row in rows(uri)] == [late, next_day]


def test_a_table_of_all_outputs_keeps_their_types(spool: Path, uri: str) -> None:
    batch = prediction_rows(["a"], {"when": pa.array([NOON], pa.timestamp("us", "UTC"))})
    columns = {
        "_class": pa.array(["late"]),
        "_probabilities": pa.array([[0.25, 0.75]], pa.list_(pa.float64())),
    }
    for name, values in columns.items():
        batch = batch.set_column(batch.schema.get_field_index(name), name, values)
    commit_segments(seal(spool, batch), uri)
    (row,) = rows(uri)
    assert (row["_class"], row["_probabilities"], row["when"]) == ("late", [0.25, 0.75], NOON)


def test_labels_have_a_table_of_their_own(spool: Path, uri: str) -> None:
    waiting = seal(spool, label_rows(["a"], 1.0), label_rows(["b"], "late"), kind="labels")
    assert commit_segments(waiting, uri) == Committed(2)
    found = [row for batch in labels(uri) for row in batch.to_pylist()]
    by_id = sorted((row["_id"], row["label"], row["label__string"]) for row in found)
    assert by_id == [("a", 1.0, None), ("b", None, "late")]


def test_what_is_damaged_is_left_out_and_named(spool: Path, uri: str) -> None:
    waiting = seal(spool, *(prediction_rows([id]) for id in "abcd"))
    content = bytearray(waiting[1].path.read_bytes())
    content[-10] ^= 1
    waiting[1].path.write_bytes(content)
    waiting[2].path.write_bytes(b"?" * 5000)
    damaged = (waiting[1].path, waiting[2].path)
    assert commit_segments(waiting[:3], uri) == Committed(1, damaged)
    assert commit_segments(waiting[:3], uri) == Committed(0, damaged)  # after a kill
    assert commit_segments(waiting, uri) == Committed(1, damaged)
    assert ids(uri) == ["a", "d"]


def test_rows_of_another_origin_are_counted_by_their_writer(spool: Path, uri: str) -> None:
    commit_segments(seal(spool, prediction_rows(["a"])), uri)
    shadow = pa.Table.from_batches([prediction_rows(["b"], version=2)])
    for number in (1, 1, 3, 2):
        commit_rows(uri, "predictions", "shadow-of-s", number, [shadow])
    assert ids(uri) == ["a", "b", "b"]


def test_a_store_that_does_not_answer_is_worth_another_try(spool: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    uri = str(tmp_path / "file" / "table")
    waiting = seal(spool, prediction_rows(["a"]))
    with pytest.raises(UnavailableError) as error:
        commit_segments(waiting, uri)
    assert error.value.message.startswith(f"{uri} ")
    (tmp_path / "file").unlink()
    assert commit_segments(waiting, uri) == Committed(1)


def test_a_table_whose_log_is_damaged_is_not_written(spool: Path, uri: str) -> None:
    first, second = seal(spool, prediction_rows(["a"]), prediction_rows(["b"]))
    commit_segments([first], uri)
    log = Path(uri) / "_delta_log" / f"{0:020d}.json"
    log.write_text("{")
    with pytest.raises(IntegrityError, match="the Delta log can't be read"):
        commit_segments([second], uri)
    shutil.rmtree(uri)
    assert commit_segments([first, second], uri) == Committed(2)
