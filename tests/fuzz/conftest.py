"""One server for all fuzz tests of a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzz.served import Server, make_project, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("fuzzed")
    make_project(root)
    with serving(root) as running:
        yield running
        running.is_well()
