"""The SQLite file of a Prefect server that we start, opened anew for each transaction.

By itself the server keeps connections open. One may hold a cursor that a cancelled request left
behind; when Python's garbage collector finds it, SQLAlchemy's event loop waits for whatever the
connection does by then, and what that waits for may need the event loop: the server stands still
until SQLite gives up, after a minute, and what fails then leaves the next cursor. A hundred models
were not declared in twenty minutes; with this, in seven. (PostgreSQL has no such wait.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine
from sqlalchemy.engine import CreateEnginePlugin, Dialect
from sqlalchemy.pool import NullPool, Pool

_PLUGIN = "perennial.unpooled"
"""As pyproject.toml names it to SQLAlchemy."""


def database_url(home: Path) -> str:
    """The address of the database of a server whose files are in ``home``: Prefect's usual file."""
    url = URL.create(
        "sqlite+aiosqlite", database=str(home / "prefect.db"), query={"plugin": _PLUGIN}
    )
    return url.render_as_string()


class Unpooled(CreateEnginePlugin):
    """Has an engine whose address names it (``?plugin=perennial.unpooled``) keep no connection."""

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        super().__init__(url, kwargs)
        kwargs["poolclass"] = NullPool

    def update_url(self, url: URL) -> URL:
        return url

    def handle_dialect_kwargs(
        self, dialect_cls: type[Dialect], dialect_args: dict[str, Any]
    ) -> None: ...

    def handle_pool_kwargs(self, pool_cls: type[Pool], pool_args: dict[str, Any]) -> None: ...

    def engine_created(self, engine: Engine) -> None: ...
