"""A source that is a database is read, whatever its query calls, with the drivers themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from perennial.contracts.errors import InputError
from perennial.spec import ModelSpec, parse_spec
from perennial.stores import sources
from tests.contract.databases import postgres_server, registry_url  # noqa: F401  (fixtures)

SPEC = """
name: m
objective: binary
source: {{kind: sql, uri: 'env:ROWS_URL', query: {query!r}, event_time: at, entity: [k]}}
label: {{column: y}}
columns:
  k: {{type: category}}
  y: {{type: boolean}}
"""


@pytest.fixture
def database(
    registry_url: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[sa.Engine]:
    """Rows, a table that nobody may touch, and, where there are such, a function that does."""
    if registry_url.startswith("sqlite:///"):
        Path(registry_url.removeprefix("sqlite:///")).parent.mkdir()
    engine = sa.create_engine(registry_url)
    with engine.begin() as connection:
        for statement in (
            "CREATE TABLE victims (n INTEGER)",
            "INSERT INTO victims VALUES (1)",
            "CREATE TABLE rows (at TIMESTAMP, k TEXT, y INTEGER)",
            "INSERT INTO rows VALUES ('2024-01-01', 'a', 1), ('2024-01-02', 'b', 0)",
        ):
            connection.execute(sa.text(statement))
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text(
                "CREATE FUNCTION harm() RETURNS SETOF rows AS "
                "'DELETE FROM victims; SELECT * FROM rows' LANGUAGE sql"
            ))  # fmt: skip
    monkeypatch.setenv("ROWS_URL", registry_url)
    yield engine
    with engine.connect() as connection:
        left = connection.execute(sa.text("SELECT n FROM victims")).scalars().all()
    engine.dispose()
    assert left == [1]


def _read(query: str, root: Path) -> list[str]:
    spec: ModelSpec = parse_spec(SPEC.format(query=query))
    found = sources.inspect(spec, root, None, None)
    return [k for batch in sources.read(spec, root, found) for k in batch.table["k"].to_pylist()]


def test_a_table_and_a_select_are_read(database: sa.Engine, tmp_path: Path) -> None:
    assert _read("rows", tmp_path) == ["a", "b"]
    assert _read("SELECT * FROM rows WHERE k = 'b' -- only this", tmp_path) == ["b"]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM harm()",
        "SELECT * FROM rows; DELETE FROM victims",
        "SELECT * FROM rows) AS probe; DELETE FROM victims; COMMIT; --",
        "DELETE FROM victims RETURNING n AS at",
        "WITH gone AS (DELETE FROM victims RETURNING n) SELECT * FROM rows",
    ],
)
def test_what_would_write_is_refused_and_writes_nothing(
    database: sa.Engine, tmp_path: Path, query: str
) -> None:
    with pytest.raises(InputError) as error:
        _read(query, tmp_path)

    if query.startswith("SELECT * FROM harm") and database.dialect.name == "postgresql":
        assert "read-only transaction" in error.value.message
