"""SQL databases: a table or a SELECT, read in chunks through a server-side cursor."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, OperationalError

from perennial.contracts.addresses import database_address
from perennial.contracts.distribution import pip_install
from perennial.contracts.errors import InputError, Problem, UnavailableError
from perennial.spec import ModelSpec
from perennial.spec.values import nearest
from perennial.stores.sources.batches import Piece, absent_columns, wanted_columns

_CHUNK = 50_000
_SECRETS = ("password", "sslpassword", "passfile", "sslkey", "token", "authtoken", "access_token")
_PLAIN_POSTGRESQL = ("postgresql", "postgres")  # to SQLAlchemy psycopg2, and nothing
_Bounds = tuple[datetime | None, datetime | None]


def state(spec: ModelSpec, root: Path) -> tuple[str, str]:
    """The database's address without its password, and text that changes when its rows may have:
    their number, that of the labels, and the first and last event time.

    Another value in a row that was there before is not noticed by this, nor one row in place of
    another: databases have no cheap trace of it in common.
    """
    with _connected(spec, root) as (connection, address):
        relation, _ = _relation(spec, connection, address)
        what: list[Any] = [sa.func.count(), sa.func.count(sa.column(spec.label.column))]
        if spec.source.event_time is not None:
            time: sa.ColumnClause[Any] = sa.column(spec.source.event_time)
            what += [sa.func.min(time), sa.func.max(time)]
        row = connection.execute(sa.select(*what).select_from(relation)).one()
        return address, "|".join(str(value) for value in row)


def read(
    spec: ModelSpec, root: Path, since: datetime | None, until: datetime | None
) -> Iterator[Piece]:
    """The rows of the table or SELECT inside the window, in the order of their identity (of all
    columns without one), so that the same rows come in the same order again."""
    wanted = wanted_columns(spec)
    columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in wanted]
    order: list[sa.ColumnClause[Any]] = [sa.column(name) for name in spec.identity or wanted]
    with _connected(spec, root) as (connection, address):
        relation, present = _relation(spec, connection, address)
        undeclared = tuple(name for name in present if name not in wanted)
        bounds = _bounds(spec, connection, relation, (since, until))
        query = sa.select(*columns).select_from(relation).where(*bounds).order_by(*order)
        place, where = "query", f"{address}, source.query"
        if spec.source.is_table:
            place, where = str(spec.source.query), f"{address}, table {spec.source.query}"
        first = 1
        streaming = connection.execution_options(stream_results=True, yield_per=_CHUNK)
        for rows in streaming.execute(query).partitions(_CHUNK):
            values = zip(wanted, zip(*rows, strict=True), strict=True)
            table = pa.table({name: _array(name, column, where) for name, column in values})
            numbers = np.arange(first, first + len(rows))
            yield Piece(table, place, numbers, undeclared=undeclared)
            first += len(rows)


def _array(name: str, values: tuple[Any, ...], where: str) -> Any:
    try:
        array = pa.array(values, from_pandas=True)
        nested = pa.types.is_nested(array.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, TypeError):
        # Values of several types, as SQLite allows, beyond 64 bits, or a decimal's infinity.
        array = pa.array([None if value is None else str(value) for value in values], pa.string())
        nested = any(isinstance(value, dict | list) for value in values)
    if nested:
        what = "holds objects or lists, such as JSON or arrays"
        fix = f"take values out of them in source.query, such as SELECT {name}->>'a' AS a"
        raise InputError(Problem(f"{where}, column {name!r}", what, fix))
    return array


@contextmanager
def _connected(spec: ModelSpec, root: Path) -> Iterator[tuple[Any, str]]:
    """A connection that only reads, where the database can be told so, and the address that may be
    shown. No error holds the password."""
    url = _url(spec.source.uri, root)
    address = _shown(url)
    try:
        engine = sa.create_engine(url, poolclass=sa.NullPool)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        fix = "install the driver that its address names"
        if url.drivername in (*_PLAIN_POSTGRESQL, "postgresql+psycopg"):
            fix = pip_install("postgres")
        raise InputError(Problem(address, f"no driver for this database: {error}", fix)) from None
    try:
        with engine.connect() as connection:
            if engine.driver == "psycopg":
                from perennial.stores.sources.postgresql import read_all_moments

                read_all_moments(connection.connection.driver_connection)
            yield _only_reading(connection), address
    except OperationalError as error:
        text = _without_password(error, url)
        if error.connection_invalidated or _is_unreachable(error):
            raise UnavailableError(f"{address}: {text}") from None
        raise InputError(Problem(address, text)) from None
    except DBAPIError as error:
        raise InputError(Problem(address, _without_password(error, url), "source.query")) from None
    finally:
        engine.dispose()


def _only_reading(connection: Any) -> Any:
    """A SELECT may call functions that write, so the transaction is told that it must not."""
    name = connection.dialect.name
    if name == "postgresql":
        return connection.execution_options(postgresql_readonly=True)
    if name == "sqlite":
        connection.exec_driver_sql("PRAGMA query_only = ON")
    return connection


def _url(uri: str, root: Path) -> sa.URL:
    text = uri
    if uri.startswith("env:"):
        name = uri.removeprefix("env:")
        text = os.environ.get(name, "")
        if not text:
            fix = "set it to the database's SQLAlchemy URL"
            raise InputError(Problem("source.uri", f"environment variable {name} is not set", fix))
    url = database_address(text, "source.uri")
    if url is None:
        fix = "such as postgresql+psycopg://user@host/database, or env:NAME"
        raise InputError(Problem("source.uri", "not an SQLAlchemy URL", fix))
    if url.drivername in _PLAIN_POSTGRESQL and find_spec("psycopg") is not None:
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
        file = root / str(url.database)
        if not file.is_file():  # SQLite would make an empty one
            raise InputError(Problem(str(file), "no such file", f"relative to {root}"))
        url = url.set(database=str(file))
    return url


def _relation(spec: ModelSpec, connection: Any, address: str) -> tuple[Any, list[str]]:
    """The table or the SELECT, with names quoted by SQLAlchemy, and all its columns. Raises
    InputError for an unknown table and for columns it lacks."""
    query = spec.source.statement
    if not spec.source.is_table:
        # A colon in it is no parameter of ours; what follows a last comment is none of it.
        verbatim = sa.text(query.replace(":", "\\:") + "\n")
        relation = verbatim.columns(*(sa.column(n) for n in wanted_columns(spec))).subquery("rows")
        probe = sa.text(f"SELECT * FROM ({verbatim.text}) AS probe WHERE 1 = 0")
        present = list(connection.execute(probe).keys())
        _refuse(absent_columns(spec, wanted_columns(spec), present, f"{address}, source.query"))
        return relation, present
    schema, _, name = query.replace('"', "").rpartition(".")
    inspector = sa.inspect(connection)
    if not inspector.has_table(name, schema=schema or None):
        known = [*inspector.get_table_names(schema or None), *inspector.get_view_names()]
        fix = f"its tables: {', '.join(sorted(known)[:20])}" if known else ""
        what = f"no table {query!r}{nearest(name, known)}"
        raise InputError(Problem(f"{address}, source.query", what, fix))
    present = [column["name"] for column in inspector.get_columns(name, schema=schema or None)]
    _refuse(absent_columns(spec, wanted_columns(spec), present, f"{address}, table {query}"))
    columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in wanted_columns(spec)]
    return sa.table(name, *columns, schema=schema or None), present


def _refuse(problems: list[Problem]) -> None:
    if problems:
        raise InputError(problems)


def _bounds(spec: ModelSpec, connection: Any, relation: Any, window: _Bounds) -> list[Any]:
    """Conditions that leave out most rows outside the window; the rest are left out later.

    Where times are kept as text (SQLite), only their dates are compared, with a day to spare for
    offsets: every ISO form begins alike. A row without a time is read, to be told as a fault.
    """
    since, until = window
    if spec.source.event_time is None or (since is None and until is None):
        return []
    time: sa.ColumnClause[Any] = sa.column(spec.source.event_time)
    example = connection.execute(sa.select(sa.func.min(time)).select_from(relation)).scalar()
    example = getattr(example, "like", example)  # of a moment that Python has not
    day = timedelta(days=1)
    bounds: list[Any] = []
    if isinstance(example, datetime):
        naive = example.tzinfo is None
        if since is not None:
            bounds.append(time >= (since.replace(tzinfo=None) if naive else since))
        if until is not None:
            bounds.append(time < (until.replace(tzinfo=None) if naive else until))
    elif isinstance(example, str):
        if since is not None:
            bounds.append(time >= str((since - day).date()))
        if until is not None:
            bounds.append(time < str((until + 2 * day).date()))
    return [sa.or_(sa.and_(*bounds), time.is_(None))] if bounds else []


def _is_unreachable(error: OperationalError) -> bool:
    text = str(error.orig).lower()
    signs = ("connect", "timeout", "timed out", "locked", "closed", "shutting down", "too many")
    return any(sign in text for sign in signs)


def _shown(url: sa.URL) -> str:
    """The address without a secret in it."""
    secret = {name: "***" for name in url.query if name.lower() in _SECRETS}
    return url.update_query_dict(secret).render_as_string(hide_password=True)


def _without_password(error: DBAPIError, url: sa.URL) -> str:
    text = str(error.orig).strip().replace("\n", " ")
    given = [url.password, *(url.query[name] for name in url.query if name.lower() in _SECRETS)]
    for secret in given:
        for each in (secret,) if isinstance(secret, str) else secret or ():
            text = text.replace(each, "***")
    return text[:300]
