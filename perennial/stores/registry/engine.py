"""The connection to the registry's database, and its errors in words a person can act on."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from weakref import WeakSet

import sqlalchemy as sa
from sqlalchemy import event

from perennial.contracts.addresses import database_address
from perennial.contracts.distribution import pip_install
from perennial.contracts.errors import InputError, IntegrityError, Problem, UnavailableError

P = ParamSpec("P")
T = TypeVar("T")

_BUSY_SECONDS = 30
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_UNUSABLE = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
}
_NO_ROOM = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
"""What a full disk makes of it, which passes: whoever watches a rollout waits for that."""
_NETWORK: dict[str, Any] = {
    "connect_timeout": 10,
    # Nobody waits for long at a network that was cut.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "fallback_application_name": "perennial",
    "prepare_threshold": None,  # prepared statements don't outlast a transaction in PgBouncer
}
_LIMITS = sa.text(
    # A writer that stands still in the middle, as a stopped process does, holds up nobody for long.
    f"SELECT set_config('lock_timeout', '{_BUSY_SECONDS}s', true), "
    f"set_config('idle_in_transaction_session_timeout', '{_BUSY_SECONDS}s', true)"
)
_NO_PRIVILEGE, _READ_ONLY = "42501", "25006"  # PostgreSQL's codes
_REFUSED = (
    "authentication failed", "no password supplied", "does not exist", "no pg_hba.conf entry",
    "could not translate host name", "failed to resolve host", "not permitted to log in",
    "permission denied for database", "is not currently accepting connections",
)  # fmt: skip
"""What a server or the driver says of an address that is wrong, so that a retry is no use."""
_SECRETS = {"password", "sslpassword"}
_REACHED: WeakSet[sa.Dialect] = WeakSet()
"""Those of engines that had a connection: one that had none has nothing to lose."""
_IN_DOUBT = "; perennial status shows whether it was done"
_AGAIN_SECONDS = 8.0
_PAUSES_SECONDS = (0.1, 0.3, 1.0)


class NotAllowedError(InputError):
    """The database's user may not do this."""


class _LostError(UnavailableError):
    """A connection that there was is gone."""


def connect(url: str, make: bool = True) -> sa.Engine:
    """An engine for an SQLAlchemy URL. Nothing is opened before it is used.

    Its statements raise IntegrityError for a damaged SQLite file, InputError for one that can't be
    opened or written, and UnavailableError for a database that does not answer, as an SQLite file
    that isn't there and is not to be made.
    """
    parsed = database_address(url, "registry")
    backend = parsed.get_backend_name() if parsed else ""
    if parsed and backend == "sqlite" and parsed.database:
        return _sqlite(parsed, Path(parsed.database), make)
    if backend == "postgresql":
        return _postgresql(url)
    fix = "use sqlite:///FILE or postgresql://USER@HOST/DATABASE"
    raise InputError(Problem("registry", "its address is not one of a supported database", fix))


def _sqlite(url: sa.URL, path: Path, make: bool) -> sa.Engine:
    try:
        if make:
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
    if not make:
        event.listen(engine, "do_connect", _open_sqlite)
    event.listen(engine, "handle_error", _translate)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


@lru_cache(maxsize=4)
def _postgresql(address: str) -> sa.Engine:
    """One a process: however often it opens a registry, it has the connections that it uses at
    once, and keeps two."""
    if find_spec("psycopg") is None:
        fix = pip_install("postgres")
        raise InputError(Problem("registry", "PostgreSQL needs the package psycopg", fix))
    url = sa.make_url(address)
    engine = sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        json_serializer=_json,
        pool_size=2,
        max_overflow=20,
        pool_pre_ping=True,
        connect_args={name: value for name, value in _NETWORK.items() if name not in url.query},
    )
    event.listen(engine, "handle_error", _translate)
    event.listen(engine, "connect", lambda *_: _REACHED.add(engine.dialect))
    return engine


# A forked process may not speak on its parent's connections.
os.register_at_fork(after_in_child=_postgresql.cache_clear)


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One transaction that sees one moment, however many queries it makes."""
    if engine.dialect.name == "postgresql":
        engine = engine.execution_options(isolation_level="REPEATABLE READ")
    with engine.begin() as connection:  # SQLite has no other way
        yield connection


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One transaction that writes: committed as a whole, or nothing of it stays."""
    with engine.execution_options(writes=True).begin() as connection:
        if connection.dialect.name == "postgresql":  # SQLite's are at the file
            connection.execute(_LIMITS)
        yield connection


def repeatable(method: Callable[P, T]) -> Callable[P, T]:
    """A method that comes to the same when it is called twice: it is called again, for some
    seconds, when the connection is lost under it, as when the database is started anew."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        deadline = time.monotonic() + _AGAIN_SECONDS
        for pause in itertools.chain(_PAUSES_SECONDS, itertools.repeat(_PAUSES_SECONDS[-1])):
            try:
                return method(*args, **kwargs)
            except _LostError:
                if time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)
        raise AssertionError("the pauses have no end")

    return call


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True)


def _open_sqlite(
    dialect: sa.Dialect, _record: object, arguments: Sequence[str], options: Mapping[str, Any]
) -> Any:
    """A connection to a file that there is; SQLite's own way makes one."""
    path = Path(arguments[0]).absolute()
    if not path.exists():
        why = "its disk is not mounted, or nothing was trained yet"
        raise UnavailableError(f"registry {path}: no such file: {why}")
    return dialect.connect(f"{path.as_uri()}?mode=rw", uri=True, **options)


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
    if context.is_pre_ping:  # the pool knows what to do with a connection that has died
        return
    original = context.original_exception
    where = f"registry {shown(context.engine.url)}" if context.engine is not None else "registry"
    if isinstance(original, sqlite3.Error):
        _sqlite_error(where, original)
    elif type(original).__module__.startswith("psycopg"):
        _postgresql_error(where, context)


def _sqlite_error(where: str, original: sqlite3.Error) -> None:
    code, text = getattr(original, "sqlite_errorcode", 0) & 0xFF, str(original)
    if code in _DAMAGED:
        fix = (
            "put back a copy of the file, or move it away together with its -wal and -shm; "
            "the bundles themselves are not affected"
        )
        raise IntegrityError(Problem(where, f"the file is damaged: {text}", fix))
    if code in _BUSY:
        raise UnavailableError(f"{where}: still locked after {_BUSY_SECONDS} s ({text})")
    if code in _NO_ROOM:
        raise UnavailableError(f"{where}: can't be read or written ({text}); is its disk full?")
    if code in _UNUSABLE:
        fix = "check the path, its permissions and the free space"
        raise InputError(Problem(where, f"can't be used: {text}", fix))


def _postgresql_error(where: str, context: sa.ExceptionContext) -> None:
    original = context.original_exception
    text = " ".join(str(original).split())
    code = getattr(original, "sqlstate", None)
    if code == _NO_PRIVILEGE:
        fix = "docs/postgresql.md has what its user must be granted"
        raise NotAllowedError(Problem(where, text, fix))
    if code == _READ_ONLY:
        raise InputError(Problem(where, text, "name the server that may be written"))
    if context.connection is None and any(sign in text for sign in _REFUSED):
        fix = "check user, password, host and database in PERENNIAL_REGISTRY_URL"
        raise InputError(Problem(where, text, fix))
    if context.is_disconnect or (context.connection is None and context.dialect in _REACHED):
        doubt = "" if context.connection is None or context.statement else _IN_DOUBT
        raise _LostError(f"{where}: the connection was lost: {text}{doubt}")
    if context.connection is None or isinstance(
        context.sqlalchemy_exception, sa.exc.OperationalError
    ):
        raise UnavailableError(f"{where}: the database did not do it: {text}")


def shown(url: sa.URL) -> str:
    """A database's URL without a secret in it."""
    secrets = dict.fromkeys(_SECRETS & set(url.query), "hidden")
    return url.update_query_dict(secrets).render_as_string(hide_password=True)
