"""The databases that the registry promises to work on."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract import postgres

BACKENDS = ["sqlite", *(["postgresql"] if postgres.binaries() else [])]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    with postgres.server() as url:
        yield url


@pytest.fixture(params=BACKENDS)
def registry_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/new/registry.db"
    else:
        server = request.getfixturevalue("postgres_server")
        with postgres.database(server, f"registry_{uuid.uuid4().hex}") as url:
            yield url
