"""Bring a registry's database to the schema this code works with: on first use, and safely when
several processes start at once."""

from __future__ import annotations

import sqlalchemy as sa

from perennial.contracts.errors import InputError, IntegrityError, Problem, UnavailableError
from perennial.stores.registry.engine import NotAllowedError, repeatable, shown, writing
from perennial.stores.registry.schema import REVISION_TABLE, REVISIONS

_LOCK = 0x706572656E6E  # one number for every Perennial: PostgreSQL's advisory lock on migrating


@repeatable
def migrate(engine: sa.Engine, make: bool = True) -> None:
    """Create or upgrade the tables. An up-to-date database costs one query and no Alembic.

    Raises IntegrityError when a newer Perennial has written the database, and UnavailableError when
    there are no tables and none are to be made.
    """
    with engine.begin() as connection:
        current = _revision(connection)
    if current == REVISIONS[-1]:
        return
    if current is None and not make:
        raise UnavailableError(f"registry {shown(engine.url)}: nothing was trained yet: no tables")
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        current = _revision(connection)  # another process may have been first
        if current == REVISIONS[-1]:
            return
        if current is not None and current not in REVISIONS:
            where = f"registry {shown(engine.url)}"
            what = f"its schema {current} is newer than this Perennial knows ({REVISIONS[-1]})"
            raise IntegrityError(Problem(where, what, "upgrade perennial"))
        try:
            _upgrade(connection)
        except NotAllowedError:
            where = f"registry {shown(engine.url)}"
            has = f"are of schema {current}" if current else "are not made yet"
            what = f"its tables {has}, {REVISIONS[-1]} is needed, and this user may not make them"
            fix = "run perennial status once as their owner; see docs/postgresql.md"
            raise InputError(Problem(where, what, fix)) from None


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(REVISION_TABLE):
        return None
    revision: str | None = connection.scalar(sa.text(f"SELECT version_num FROM {REVISION_TABLE}"))
    return revision


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "perennial.stores.registry:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
