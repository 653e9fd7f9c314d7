"""What runs where PostgreSQL's server is installed, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from perennial.cli.prefect_server import free_port
from tests.contract import postgres

collect_ignore_glob = [] if postgres.binaries() else ["test_*.py"]


@pytest.fixture(scope="session")
def postgres_at_port() -> Iterator[postgres.Server]:
    """A server that also listens at a port and asks for passwords there."""
    with postgres.running(free_port()) as server:
        yield server
