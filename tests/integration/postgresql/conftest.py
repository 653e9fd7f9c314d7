"""What runs where PostgreSQL's server is installed, and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from perennial.cli.prefect_server import free_port
from perennial.stores.registry import Registry
from tests.contract import postgres

collect_ignore_glob = [] if postgres.binaries() else ["test_*.py"]

PASSWORD = "a p@ssword/of:ours"
_PAGE = Path(__file__).parents[3] / "docs" / "postgresql.md"


@dataclass(frozen=True)
class Documented:
    """A server whose databases and users were made as docs/postgresql.md says, word for word; it
    asks for passwords."""

    server: postgres.Server

    def url(self, user: str, database: str, driver: str = "postgresql", **changes: str) -> str:
        url = sa.URL.create(
            driver, user, PASSWORD, "127.0.0.1", self.server.port, database
        )  # fmt: skip
        return url.set(**changes).render_as_string(hide_password=False)

    @property
    def registry(self) -> str:
        """As the user of day by day."""
        return self.url("perennial_app", "perennial")


@pytest.fixture(scope="session")
def documented() -> Iterator[Documented]:
    making, granting = re.findall(r"```sql\n(.*?)```", _PAGE.read_text(), re.DOTALL)
    with postgres.running(free_port()) as server:
        found = Documented(server)
        _execute(server.url, making)
        for role in re.findall(r"CREATE ROLE (\w+)", making):
            _execute(server.url, f"ALTER ROLE {role} PASSWORD '{PASSWORD}';")
        owner = found.url("perennial_owner", "perennial")
        Registry(owner).close()
        _execute(owner.replace("postgresql", "postgresql+psycopg", 1), granting)
        yield found


def _execute(url: str, statements: str) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    text = re.sub("--.*", "", statements)
    with engine.connect() as connection:
        for statement in filter(None, map(str.strip, text.split(";"))):
            connection.exec_driver_sql(statement)
