"""The store of studies on SQLite; what holds for every database is in tests/contract."""

from __future__ import annotations

import dataclasses
import sqlite3
import sys
from pathlib import Path

import pytest

from perennial.contracts.errors import InputError, UnavailableError
from perennial.learning.studies import StudyStore, TrialRecord, best_curve
from perennial.spec.schema import Range

SPACE = {"learning_rate": Range(low=0.05, high=0.3, log=True)}
RECORD = TrialRecord(
    0, "search", {"learning_rate": 0.1}, "complete", 0.8, 17, {17: 0.8}, "", "", {}, 1.25
)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/kept/studies.db"


def test_sqlite_keeps_a_log_so_that_readers_do_not_wait_for_the_writer(
    url: str, tmp_path: Path
) -> None:
    with (
        StudyStore.open(url, "s", SPACE, greater_is_better=False) as store,
        sqlite3.connect(tmp_path / "kept" / "studies.db", timeout=0) as reader,
    ):
        assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM trials").fetchone()
        store.add(RECORD)
        reader.rollback()
        assert reader.execute("SELECT count(*) FROM trials").fetchone() == (1,)


def test_a_database_that_is_none_is_unavailable_with_the_cause(tmp_path: Path) -> None:
    (tmp_path / "studies.db").write_text("these are not the tables you look for " * 40)
    url = f"sqlite:///{tmp_path}/studies.db"
    with (
        pytest.raises(UnavailableError) as caught,
        StudyStore.open(url, "s", SPACE, greater_is_better=False),
    ):
        raise AssertionError("opened a text file")
    assert caught.value.message == (
        "the database of studies does not answer: file is not a database"
    )


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "postgresql://app:secret@db.example.com/studies",
            "studies: PostgreSQL needs the package psycopg (pip install 'perennial-ml[postgres]')",
        ),
        (
            "mysql://app:secret@db.example.com/studies",
            "studies: their address is not one of a database "
            "(use sqlite:///FILE or postgresql://USER@HOST/DATABASE in PERENNIAL_STUDIES_URL)",
        ),
        (
            "studies.db",
            "studies: their address is not one of a database "
            "(use sqlite:///FILE or postgresql://USER@HOST/DATABASE in PERENNIAL_STUDIES_URL)",
        ),
    ],
)
def test_an_address_that_can_not_be_used_is_refused_without_repeating_it(
    url: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with (
        pytest.raises(InputError) as refused,
        StudyStore.open(url, "s", SPACE, greater_is_better=False),
    ):
        raise AssertionError("opened")
    assert str(refused.value) == message


@pytest.mark.parametrize("revision", ["v2.6.0.a", "of another time"])
def test_tables_of_another_optuna_are_told_with_what_to_do(tmp_path: Path, revision: str) -> None:
    place = tmp_path / "studies.db"
    assert best_curve(f"sqlite:///{place}", "none") == {}
    with sqlite3.connect(place) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    with pytest.raises(InputError, match=r"not of Optuna .*storage upgrade") as told:
        best_curve(f"sqlite:///{place}", "none")
    assert str(place) in told.value.message


def test_the_best_trials_curve_is_found_by_the_studys_name(url: str) -> None:
    worse = dataclasses.replace(RECORD, number=1, value=0.7, curve={10: 0.6, 20: 0.7})
    best = dataclasses.replace(RECORD, number=2, value=0.9, curve={20: 0.9, 10: 0.75})
    with StudyStore.open(url, "s", SPACE, greater_is_better=True) as store:
        for record in (RECORD, worse, best):
            store.add(record)
    assert list(best_curve(url, "s").items()) == [(10, 0.75), (20, 0.9)]
    assert best_curve(url, "another") == {}
