"""The connection to the registry's database, and its errors in words a person can act on."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import event

from perennial.contracts.errors import InputError, IntegrityError, Problem, UnavailableError

_BUSY_SECONDS = 30
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_UNUSABLE = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_PERM,
}


def connect(url: str) -> sa.Engine:
    """An engine for an SQLAlchemy URL. Nothing is opened before it is used.

    Its statements raise IntegrityError for a damaged SQLite file, InputError for one that can't be
    opened or written, and UnavailableError for a database that does not answer.
    """
    try:
        parsed = sa.make_url(url)
        backend = parsed.get_backend_name()
    except sa.exc.ArgumentError:
        backend = ""
    if backend == "sqlite" and parsed.database:
        return _sqlite(parsed, Path(parsed.database))
    if backend == "postgresql":
        return _postgresql(parsed)
    fix = "use sqlite:///FILE or postgresql://USER@HOST/DATABASE"
    raise InputError(Problem("registry", "its address is not one of a supported database", fix))


def _sqlite(url: sa.URL, path: Path) -> sa.Engine:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"can't make its folder: {error.strerror}"
        raise InputError(Problem(f"registry {path}", what)) from None
    engine = sa.create_engine(
        url,
        json_serializer=_json,
        connect_args={"timeout": _BUSY_SECONDS},
        # A connection that stays open would go on reading a file that was replaced by another.
        poolclass=sa.NullPool,
    )
    event.listen(engine, "handle_error", _translate)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _postgresql(url: sa.URL) -> sa.Engine:
    if find_spec("psycopg") is None:
        fix = "pip install 'perennial[postgres]'"
        raise InputError(Problem("registry", "PostgreSQL needs the package psycopg", fix))
    engine = sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        json_serializer=_json,
        pool_pre_ping=True,
        connect_args={"connect_timeout": 10},
    )
    event.listen(engine, "handle_error", _translate)
    return engine


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One transaction that writes: committed as a whole, or nothing of it stays."""
    with engine.execution_options(writes=True).begin() as connection:
        yield connection


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True)


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions begin below, not where the driver guesses
    connection.execute("PRAGMA foreign_keys = ON")
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        # Others are using a new file this moment: WAL is only quicker, and the next one sets it.
        if error.sqlite_errorcode & 0xFF not in _BUSY:
            raise


def _begin_sqlite(connection: sa.Connection) -> None:
    # A writer takes the lock at once: one that began by reading could not wait for it later.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _translate(context: sa.ExceptionContext) -> None:
    original = context.original_exception
    engine = context.engine
    place = engine.url.render_as_string(hide_password=True) if engine is not None else ""
    where = f"registry {place}".strip()
    text = str(original).strip()
    if isinstance(original, sqlite3.Error):
        code = getattr(original, "sqlite_errorcode", 0) & 0xFF
        if code in _DAMAGED:
            fix = (
                "put back a copy of the file, or move it away together with its -wal and -shm; "
                "the bundles themselves are not affected"
            )
            raise IntegrityError(Problem(where, f"the file is damaged: {text}", fix))
        if code in _BUSY:
            raise UnavailableError(f"{where}: still locked after {_BUSY_SECONDS} s ({text})")
        if code in _UNUSABLE:
            fix = "check the path, its permissions and the free space"
            raise InputError(Problem(where, f"can't be used: {text}", fix))
    elif type(original).__module__.startswith("psycopg") and (
        context.is_disconnect or isinstance(context.sqlalchemy_exception, sa.exc.OperationalError)
    ):
        raise UnavailableError(f"{where}: the database did not do it: {text}")
