"""What tests share: a Prefect server, a small project, and running its flows as the CLI does."""

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

MODEL_YAML = """\
name: demand
objective: binary
source: {kind: csv, uri: data/*.csv, event_time: at, entity: [shop]}
label: {column: busy, delay: 1d}
columns:
  shop: {type: category}
  temperature: {type: float, min: -40, max: 60}
  weekday: {type: integer, min: 0, max: 6, nullable: false}
  promotion: {type: boolean}
split: {kind: time, validation: 10d, test: 15d}
training: {rounds: 60}
tuning:
  trials: 4
  batch: 2
  space: {max_depth: [2, 5], learning_rate: {low: 0.05, high: 0.4, log: true}}
gates:
  - {metric: roc_auc, min: 0.6}
  - {beats: champion, metric: logloss, first_version: passed}
retrain: {schedule: "0 6 * * 1"}
"""

FEATURES_PY = """\
import pandas as pd

from perennial.data.features import fitted


def warm(temperature: pd.Series) -> pd.Series:
    return temperature.clip(lower=0)


@fitted
def usual_temperature(temperature: pd.Series) -> float:
    return float(temperature.mean())


def temperature_difference(temperature: pd.Series, usual_temperature: float) -> pd.Series:
    return temperature - usual_temperature
"""


def demand_rows(start: str, days: int, seed: int = 1, shift: float = 0.0) -> pd.DataFrame:
    """Hourly rows of five shops, label included; ``shift`` moves what makes a shop busy."""
    random = np.random.default_rng(seed)
    times = pd.date_range(start, periods=days * 8, freq="3h", tz="UTC")
    shops = np.array(["north", "south", "east", "west", "centre"])
    frame = pd.DataFrame({"at": np.repeat(times, len(shops)), "shop": np.tile(shops, len(times))})
    frame["temperature"] = random.normal(12, 8, len(frame)).round(2)
    frame["weekday"] = frame["at"].dt.dayofweek
    frame["promotion"] = random.random(len(frame)) < 0.2
    score = (
        0.12 * (frame["temperature"] - 12 - shift)
        + 1.2 * frame["promotion"]
        + 0.9 * (frame["weekday"] >= 5)
        + 0.5 * (frame["shop"] == "centre")
        - 0.8
    )
    frame["busy"] = (random.random(len(frame)) < 1 / (1 + np.exp(-score))).astype(int)
    frame["at"] = frame["at"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    return frame


@dataclass(frozen=True)
class Workplace:
    """A project folder with one small model, and its commands."""

    root: Path
    environment: dict[str, str]

    @property
    def model(self) -> Path:
        return self.root / "models" / "demand"

    def write_rows(self, name: str, frame: pd.DataFrame) -> None:
        (self.root / "data").mkdir(exist_ok=True)
        frame.to_csv(self.root / "data" / name, index=False)

    def edit(self, old: str, new: str, file: str = "model.yaml") -> None:
        text = (self.model / file).read_text()
        assert old in text
        (self.model / file).write_text(text.replace(old, new))

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from perennial.cli import main; main()", *arguments],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def start(self, flow: str, **parameters: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "flows", flow, json.dumps(parameters)],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, **parameters: Any) -> dict[str, Any]:
        """Run continuous training to its end and return its summary."""
        process = self.start("continuous_training", model="demand", **parameters)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        summary: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
        return summary


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
