"""What is said when the registry's database can't be used."""

from __future__ import annotations

import resource
import sqlite3
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from perennial.contracts.errors import InputError, IntegrityError, UnavailableError
from perennial.stores.registry import Registry, engine


def test_a_file_that_is_no_database_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(IntegrityError) as damaged:
        Registry(f"sqlite:///{path}")
    assert str(damaged.value) == (
        f"registry sqlite:///{path}: the file is damaged: file is not a database "
        "(put back a copy of the file, or move it away together with its -wal and -shm; "
        "the bundles themselves are not affected)"
    )
    assert path.read_bytes() == b"not a database at all" * 100


def test_damage_inside_the_file_is_told_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    Registry(f"sqlite:///{path}").close()
    pages = bytearray(path.read_bytes())
    pages[200:] = b"\xa5" * (len(pages) - 200)  # the header survives, the tables do not
    path.write_bytes(pages)
    with pytest.raises(IntegrityError, match="the file is damaged"):
        Registry(f"sqlite:///{path}").models()


def test_an_empty_file_becomes_a_registry(tmp_path: Path) -> None:
    (tmp_path / "registry.db").touch()
    assert Registry(f"sqlite:///{tmp_path}/registry.db").models() == []


def test_who_only_follows_a_registry_makes_none(tmp_path: Path) -> None:
    path = tmp_path / "not mounted" / "registry.db"
    url = f"sqlite:///{path}"
    with pytest.raises(UnavailableError) as absent:
        Registry(url, make=False)
    assert str(absent.value) == (
        f"registry {path}: no such file: its disk is not mounted, or nothing was trained yet"
    )
    assert not path.parent.exists()
    path.parent.mkdir()
    path.touch()
    with pytest.raises(UnavailableError) as empty:
        Registry(url, make=False)
    assert str(empty.value) == f"registry {url}: nothing was trained yet: no tables"
    Registry(url).close()
    followed = Registry(url, make=False)
    assert followed.models() == []
    path.unlink()
    with pytest.raises(UnavailableError, match="no such file"):
        followed.models()
    assert not path.exists()


def test_a_writer_that_holds_the_file_too_long_is_worth_a_retry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_BUSY_SECONDS", 0)
    path = tmp_path / "registry.db"
    registry = Registry(f"sqlite:///{path}")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert registry.models() == []  # readers don't wait for writers
    with (
        pytest.raises(UnavailableError, match="still locked after 0 s"),
        engine.writing(registry._engine),
    ):
        pass
    other.close()


def test_a_full_disk_is_worth_a_retry(tmp_path: Path) -> None:
    registry = Registry(f"sqlite:///{tmp_path}/registry.db")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # no file may grow
    try:
        with pytest.raises(UnavailableError, match=r"can't be read or written .*disk full\?"):
            record(registry)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert registry.decisions("m") == []
    record(registry)
    assert len(registry.decisions("m")) == 1


def test_a_database_that_may_not_grow_is_worth_a_retry(tmp_path: Path) -> None:
    registry = Registry(f"sqlite:///{tmp_path}/registry.db")

    @sa.event.listens_for(registry._engine, "connect")
    def limit(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # no more than there are

    with pytest.raises(UnavailableError, match="database or disk is full"):
        record(registry, "because " * 50_000)


def record(registry: Registry, reason: str = "tried") -> None:
    registry.record(
        "m", "kept champion", version=None, actor="tests", reason=reason, evidence={},
        cause="tried", now=datetime(2026, 3, 1, tzinfo=UTC),
    )  # fmt: skip


def test_a_folder_in_place_of_the_file_can_not_be_opened(tmp_path: Path) -> None:
    (tmp_path / "registry.db").mkdir()
    with pytest.raises(InputError) as refused:
        Registry(f"sqlite:///{tmp_path}/registry.db")
    assert str(refused.value) == (
        f"registry sqlite:///{tmp_path}/registry.db: can't be used: unable to open database file "
        "(check the path, its permissions and the free space)"
    )


def test_a_file_in_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(InputError, match="can't make its folder: "):
        Registry(f"sqlite:///{tmp_path}/home/registry.db")


@pytest.mark.parametrize(
    "url", ["mysql://u:secret@host/db", "sqlite://", "registry.db", "postgres://u:secret@h/d", ""]
)
def test_an_address_of_no_supported_database_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(InputError) as refused:
        Registry(url)
    assert str(refused.value) == (
        "registry: its address is not one of a supported database "
        "(use sqlite:///FILE or postgresql://USER@HOST/DATABASE)"
    )


def test_a_server_that_does_not_answer_is_worth_a_retry_and_the_password_stays_hidden(
    tmp_path: Path,
) -> None:
    with pytest.raises(UnavailableError) as silent:
        Registry(f"postgresql://anna:secret@/db?host={tmp_path}")
    message = str(silent.value)
    assert message.startswith("registry postgresql+psycopg://anna:***@/db")
    assert "the database did not do it: connection" in message
    assert "secret" not in message


def test_values_that_are_not_json_are_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        engine._json({"metric": float("nan")})


def test_the_file_is_in_write_ahead_mode(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    Registry(f"sqlite:///{path}").close()
    assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_without_the_driver_of_postgresql_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(InputError) as refused:
        Registry("postgresql://app@db.example.com/perennial")
    assert str(refused.value) == (
        "registry: PostgreSQL needs the package psycopg (pip install 'perennial-ml[postgres]')"
    )


def test_no_secret_of_an_address_is_shown() -> None:
    url = "postgresql://anna:s3cret@h/d?password=s3cret&sslpassword=s3cret&sslmode=require"
    assert engine.shown(sa.make_url(url)) == (
        "postgresql://anna:***@h/d?password=hidden&sslmode=require&sslpassword=hidden"
    )
