"""The versions of a model's table: told, and put back."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import deltalake
import pandas as pd
import pytest

from perennial.contracts.data_versions import TrainedVersion
from perennial.contracts.errors import InputError, IntegrityError, UnavailableError
from perennial.contracts.refs import SourceRef
from perennial.stores import artefacts, history, lake, tables
from perennial.stores.ingested import ingested, remember

HEAD = "at,car,zone,km,stops,note,late\n"
FIRST = HEAD + (
    "2024-01-01 10:00:00,a,north,10,1,x,true\n"
    "2024-01-02 10:00:00,b,south,20.5,2,,false\n"
    "2024-01-03 10:00:00,a,north,30,3,z,\n"
)
SECOND = FIRST.replace("3,z,\n", "3,z,true\n") + (
    "2024-01-04 10:00:00,d,north,1,1,,\n2024-01-05 10:00:00,d,north,1,1,,\n"
)


@pytest.fixture
def two(trips: Any) -> Any:
    """A table of two versions."""
    for text in (FIRST, SECOND):
        trips.csv(text)
        trips.ingest()
    return trips


def test_the_log_says_what_each_commit_brought(two: Any) -> None:
    newest, first = history.log(two.table, 20)
    assert (newest.operation, newest.rows, newest.rows_added, newest.rows_changed) == (
        "merged", 5, 2, 1,
    )  # fmt: skip
    assert (first.operation, first.rows, first.rows_added, first.rows_changed) == ("made", 3, 3, 0)
    assert newest.at >= first.at
    assert newest.readable
    assert [one.version for one in history.log(two.table, 1)] == [1]


def test_what_another_program_does_to_the_table_is_in_the_log_too(two: Any) -> None:
    deltalake.DeltaTable(two.table).delete("car = 'd'")
    newest = history.log(two.table, 1)[0]
    assert (newest.operation, newest.rows, newest.rows_added) == ("delete", 3, None)


def test_versions_say_what_was_trained_on_them(two: Any) -> None:
    trained = TrainedVersion(version=7, run="r", run_url="")
    versions = history.with_models(history.log(two.table, 20), {0: [trained]})
    assert [one.trained for one in versions] == [(), (trained,)]


def test_a_restore_puts_rows_back_and_loses_no_later_version(two: Any) -> None:
    later = two.rows()
    done = history.restore(two.table, 0)
    assert (done.version, done.changed, done.rows) == (2, True, 3)
    assert len(two.rows()) == 3
    restored = history.log(two.table, 1)[0]
    assert (restored.operation, restored.restored, restored.rows) == ("restored", 0, 3)

    history.restore(two.table, 1)
    pd.testing.assert_frame_equal(two.rows(), later)
    assert [one.readable for one in history.log(two.table, 20)] == [True] * 4


def test_a_second_restore_of_the_same_version_writes_nothing(two: Any) -> None:
    history.restore(two.table, 0)
    again = history.restore(two.table, 0)
    assert (again.version, again.changed) == (2, False)
    assert not history.restore(two.table, 2).changed


def test_a_restore_brings_the_columns_of_its_version_back(trips: Any) -> None:
    trips.csv(FIRST)
    trips.ingest()
    wider = trips.changed("  note: {type: string}", "  note: {type: string}\n  kg: {type: float}")
    wider.csv(SECOND.replace("note", "note,kg").replace("\n2", "\n2").replace(",late", ",late"))
    rows = [line.rsplit(",", 1) for line in SECOND.splitlines()[1:]]
    wider.csv("at,car,zone,km,stops,note,kg,late\n" + "".join(f"{a},1.5,{b}\n" for a, b in rows))
    wider.ingest(full=True)
    assert "kg" in lake.schema_of(lake.open_table(trips.table)).names

    history.restore(trips.table, 0)

    assert "kg" not in lake.schema_of(lake.open_table(trips.table)).names
    assert len(trips.rows()) == 3


def test_after_a_restore_the_source_is_read_again_from_the_restored_rows_on(two: Any) -> None:
    source = SourceRef(kind="csv", uri="trips.csv", fingerprint="f", since=None, until=None)
    remember(two.table, source, 1)
    before = tables.dataset(two.spec, two.table, None)
    assert artefacts.intact(before)

    history.restore(two.table, 0)

    assert ingested(two.table, source) is None
    assert tables.watermark(two.spec, two.table) == datetime(2024, 1, 3, 10, tzinfo=UTC)
    assert not artefacts.intact(before), "a cached publish of before would leave the rows out"
    assert two.ingest() == 3
    again = tables.dataset(two.spec, two.table, None)
    assert again.content_digest == before.content_digest
    assert artefacts.intact(again)


def test_a_database_that_looks_the_same_is_read_from_where_its_rows_may_change(two: Any) -> None:
    source = SourceRef(kind="sql", uri="trips.db", fingerprint="f", since=None, until=None)
    remember(two.table, source, 1)
    now = source.model_copy(update={"since": datetime(2024, 1, 3, tzinfo=UTC)})
    assert ingested(two.table, now) == now
    assert ingested(two.table, now.model_copy(update={"fingerprint": "g"})) is None


def test_a_version_whose_files_are_gone_is_refused_and_the_log_marks_it(two: Any) -> None:
    table = deltalake.DeltaTable(two.table)
    table.vacuum(0, dry_run=False, enforce_retention_duration=False)
    with pytest.raises(InputError) as refused:
        history.restore(two.table, 0)
    assert str(refused.value) == (
        f"{two.table}: version 0 can't be read: files of it were removed (a vacuum does that) "
        "(take a version that perennial data NAME log doesn't mark, or a backup)"
    )
    assert [one.readable for one in history.log(two.table, 20)][-1] is False
    assert len(two.rows()) == 5


def test_a_version_that_never_was_is_refused(two: Any) -> None:
    with pytest.raises(InputError, match=r"no version 9 \(it has versions 0 to 1\)"):
        history.restore(two.table, 9)
    with pytest.raises(InputError, match=r"no version -1 \(it has versions 0 to 1\)"):
        history.at_version(two.table, -1)


def test_a_model_without_a_table_says_so(trips: Any) -> None:
    with pytest.raises(InputError, match="no table: nothing was ingested yet"):
        history.log(trips.table, 5)


def test_a_restore_begins_again_when_another_writer_was_quicker(
    two: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_back, others = lake.put_back, [SECOND + "2024-01-06 10:00:00,e,north,1,1,,\n"]

    def beaten(table: Any, version: int) -> None:
        if others:
            two.csv(others.pop())
            two.ingest()
        put_back(table, version)

    monkeypatch.setattr(lake, "put_back", beaten)
    assert history.restore(two.table, 0).version == 3
    assert len(two.rows()) == 3


def test_a_restore_that_always_comes_second_says_so_and_changes_nothing(
    two: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def beaten(*_: Any) -> None:
        raise lake.ConflictError

    monkeypatch.setattr(lake, "put_back", beaten)
    with pytest.raises(UnavailableError, match="other writers were quicker 8 times"):
        history.restore(two.table, 0)
    assert len(two.rows()) == 5


def test_a_damaged_log_is_told(two: Any) -> None:
    (Path(two.table) / "_delta_log" / f"{1:020}.json").write_text("no json")
    with pytest.raises(IntegrityError, match="the Delta log can't be read"):
        history.log(two.table, 5)
