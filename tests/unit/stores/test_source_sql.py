from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from perennial.contracts.errors import InputError, UnavailableError
from perennial.spec import ModelSpec
from perennial.stores import sources

URI = "uri: trips.csv,"
Make = Callable[..., ModelSpec]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "trips.db"
    with sqlite3.connect(path) as connection:
        connection.execute(
            'CREATE TABLE "trip list" '
            "(at TEXT, car TEXT, zone TEXT, km REAL, stops INT, note TEXT, late INT, [a b] INT)"
        )
        rows = [
            ("2024-01-03T00:00:00+02:00", "c", "north", 3.0, 1, None, 1, 0),
            ("2024-01-01 10:00:00", "a", "north", 1.5, 2, "x:y", 0, 0),
            ("2024-01-02", "b", "south", None, "many", "", None, 0),
            (None, "z", "south", 1, 1, "", None, 0),
        ]
        connection.executemany('INSERT INTO "trip list" VALUES (?,?,?,?,?,?,?,?)', rows)
    return path


def sql(make: Make, query: str, uri: str = "sqlite:///trips.db") -> ModelSpec:
    return make(("kind: csv", "kind: sql"), (URI, f"uri: '{uri}', query: '{query}',"))


def cars(spec: ModelSpec, root: Path, since: datetime | None = None) -> list[str]:
    source = sources.inspect(spec, root, since, None)
    return [car for b in sources.read(spec, root, source) for car in b.table["car"].to_pylist()]


def told(spec: ModelSpec, root: Path) -> str:
    with pytest.raises(InputError) as caught:
        cars(spec, root)
    return str(caught.value).replace(str(root), "ROOT")


def test_a_table_is_read_in_the_order_of_its_identity(
    spec_of: Make, database: Path, tmp_path: Path
) -> None:
    spec = sql(spec_of, '"trip list"')
    (batch,) = sources.read(spec, tmp_path, sources.inspect(spec, tmp_path, None, None))
    assert batch.table["car"].to_pylist() == ["z", "a", "b", "c"]
    assert batch.table["stops"].to_pylist() == ["1", "2", "many", "1"]
    assert set(batch.undeclared) == {"a b"}


def test_whole_numbers_beyond_64_bits_are_read_as_their_digits(
    spec_of: Make, tmp_path: Path
) -> None:
    sqlite3.register_converter("UNSIGNED_TEXT", int)  # as MySQL's driver gives unsigned numbers
    with sqlite3.connect(tmp_path / "trips.db") as connection:
        connection.execute(
            "CREATE TABLE trips (at, car, zone, km UNSIGNED_TEXT, stops INT, note, late INT)"
        )
        rows = [("2024-01-01", "a", "north", text, 1, None, 1) for text in (str(2**64 - 1), "7")]
        connection.executemany("INSERT INTO trips VALUES (?,?,?,?,?,?,?)", rows)
    spec = sql(spec_of, "trips", "sqlite:///trips.db?detect_types=1")
    (batch,) = sources.read(spec, tmp_path, sources.inspect(spec, tmp_path, None, None))
    assert sorted(batch.table["km"].to_pylist()) == ["18446744073709551615", "7"]


def test_a_select_may_hold_colons_and_end_in_a_semicolon(
    spec_of: Make, database: Path, tmp_path: Path
) -> None:
    spec = sql(spec_of, 'SELECT * FROM "trip list" WHERE note = "x:y" AND at NOT LIKE ":b";')
    assert cars(spec, tmp_path) == ["a"]


def test_rows_before_the_window_stay_in_the_database_whatever_the_form_of_their_times(
    spec_of: Make, database: Path, tmp_path: Path
) -> None:
    spec = sql(spec_of, '"trip list"')
    since = datetime(2024, 1, 6, 0, tzinfo=UTC)  # less three days of window, less a day to spare
    assert cars(spec, tmp_path, since) == ["z", "b", "c"]


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO \"trip list\" (at, car) VALUES ('2024-01-02', 'n')",
        "UPDATE \"trip list\" SET late = NULL WHERE car = 'a'",
    ],
)
def test_the_fingerprint_notices_new_rows_and_new_labels(
    spec_of: Make, database: Path, tmp_path: Path, change: str
) -> None:
    spec = sql(spec_of, '"trip list"')
    before = sources.inspect(spec, tmp_path, None, None)
    assert before.uri == f"sqlite:///{database}"
    with sqlite3.connect(database) as connection:
        connection.execute(change)
    assert sources.inspect(spec, tmp_path, None, None).fingerprint != before.fingerprint


def test_the_url_may_come_from_the_environment_and_is_not_kept(
    spec_of: Make, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = sql(spec_of, '"trip list"', "env:TRIPS_URL")
    assert told(spec, tmp_path) == (
        "source.uri: environment variable TRIPS_URL is not set "
        "(set it to the database's SQLAlchemy URL)"
    )
    monkeypatch.setenv("TRIPS_URL", "sqlite:///trips.db")
    assert len(cars(spec, tmp_path)) == 4
    assert sources.inspect(spec, tmp_path, None, None).uri == "env:TRIPS_URL"


def test_a_password_is_in_no_message(
    spec_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = sql(spec_of, "trips", "env:TRIPS_URL")
    monkeypatch.setenv("TRIPS_URL", "postgresql+psycopg://me:s3cret@127.0.0.1:1/x")
    with pytest.raises(UnavailableError) as caught:
        sources.inspect(spec, tmp_path, None, None)
    assert "s3cret" not in str(caught.value)
    assert str(caught.value).startswith("postgresql+psycopg://me:***@127.0.0.1:1/x: ")
    monkeypatch.setenv("TRIPS_URL", "me:s3cret@nowhere")
    assert "s3cret" not in told(spec, tmp_path)


def test_an_unknown_table_is_told_with_the_nearest(
    spec_of: Make, database: Path, tmp_path: Path
) -> None:
    assert told(sql(spec_of, "triplist"), tmp_path) == (
        "sqlite:///ROOT/trips.db, source.query: no table 'triplist'; did you mean 'trip list'? "
        "(its tables: trip list)"
    )


def test_missing_columns_of_a_select_are_told(
    spec_of: Make, database: Path, tmp_path: Path
) -> None:
    spec = sql(spec_of, 'SELECT at, car, zone, km, note, stops AS halts FROM "trip list"')
    told_of = [line.split(" (")[0] for line in told(spec, tmp_path).splitlines()]
    where = "sqlite:///ROOT/trips.db, source.query"
    assert told_of == [
        f"{where}: column 'stops' is not there",
        f"{where}: the label column 'late' is not there",
    ]


def test_a_select_that_does_not_run_is_an_input_error(
    spec_of: Make, database: Path, tmp_path: Path
) -> None:
    assert "syntax error" in told(sql(spec_of, "SELECT FROM WHERE"), tmp_path)


def test_a_missing_sqlite_file_is_not_made(spec_of: Make, tmp_path: Path) -> None:
    assert told(sql(spec_of, "trips"), tmp_path) == (
        "ROOT/trips.db: no such file (relative to ROOT)"
    )
    assert not (tmp_path / "trips.db").exists()


def test_a_database_without_its_driver_says_what_to_install(spec_of: Make, tmp_path: Path) -> None:
    spec = sql(spec_of, "trips", "oracle://me@host/x")
    assert "no driver for this database" in told(spec, tmp_path)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_an_address_of_postgresql_without_a_driver_means_psycopg(
    scheme: str, spec_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIPS_URL", f"{scheme}://me@127.0.0.1:1/x")
    with pytest.raises(UnavailableError, match=r"^postgresql\+psycopg://me@127.0.0.1:1/x: "):
        sources.inspect(sql(spec_of, "trips", "env:TRIPS_URL"), tmp_path, None, None)
