"""What tests share: a fresh project, and a Prefect server for those that run flows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import flows  # noqa: F401  # sets how XGBoost's threads wait, here as in every flow
from perennial.cli import prefect_server as cli_server
from tests.workplace import FEATURES_PY, MODEL_YAML, Workplace, demand_rows, environment_of


@pytest.fixture
def project(tmp_path: Path) -> Workplace:
    """A fresh project without a Prefect server (enough for what starts no flow)."""
    model = tmp_path / "models" / "demand"
    model.mkdir(parents=True)
    (model / "model.yaml").write_text(MODEL_YAML)
    (model / "features.py").write_text(FEATURES_PY)
    place = Workplace(tmp_path, environment_of(tmp_path))
    place.write_rows("2024-a.csv", demand_rows("2024-01-01", 90))
    return place


@pytest.fixture
def flow_project(project: Workplace, prefect_server: str) -> Workplace:
    """A fresh project whose flows run against a real Prefect server."""
    project.environment["PREFECT_API_URL"] = prefect_server
    return project


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prefect server of this test process on a free loopback port; yields its API address.

    Tests of other modules share it, in whatever order: a module that asks for runs or events by
    name, or that changes what is the server's as a whole, takes ``own_prefect_server``.
    """
    with _prefect_server(tmp_path_factory.mktemp("prefect-server")) as url:
        yield url


@pytest.fixture(scope="module")
def own_prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prefect server that no other module's tests know; yields its API address."""
    with _prefect_server(tmp_path_factory.mktemp("own-prefect-server")) as url:
        yield url


@contextmanager
def _prefect_server(home: Path) -> Iterator[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    with cli_server.prefect_server(home, environment) as url:
        yield url
    shutil.rmtree(home, ignore_errors=True)
