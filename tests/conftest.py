"""What tests share: a fresh project, and a Prefect server for those that run flows."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import flows  # noqa: F401  # sets how XGBoost's threads wait, here as in every flow
from tests.workplace import FEATURES_PY, MODEL_YAML, Workplace, demand_rows


@pytest.fixture
def project(tmp_path: Path) -> Workplace:
    """A fresh project without a Prefect server (enough for what starts no flow)."""
    model = tmp_path / "models" / "demand"
    model.mkdir(parents=True)
    (model / "model.yaml").write_text(MODEL_YAML)
    (model / "features.py").write_text(FEATURES_PY)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "WANDB_"))},
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_LOCAL_STORAGE_PATH": str(tmp_path / ".perennial" / "results"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "WANDB_MODE": "offline",
        "PERENNIAL_PROJECT": str(tmp_path),
    }
    place = Workplace(tmp_path, environment)
    place.write_rows("2024-a.csv", demand_rows("2024-01-01", 90))
    return place


@pytest.fixture
def flow_project(project: Workplace, prefect_server: str) -> Workplace:
    """A fresh project whose flows run against a real Prefect server."""
    project.environment["PREFECT_API_URL"] = prefect_server
    return project


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prefect server of this test process on a free loopback port; yields its API address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = tmp_path_factory.mktemp("prefect-server")
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)],
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")},
                "PREFECT_HOME": str(home),
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            },
            stdout=log,
            stderr=log,
        )
        url = f"http://127.0.0.1:{port}/api"
        try:
            _until(lambda: _healthy(url), server, home / "log")
            yield url
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
            shutil.rmtree(home, ignore_errors=True)


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return json.load(answer) is True
    except OSError:
        return False


def _until(ready: Callable[[], bool], server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while not ready():
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
