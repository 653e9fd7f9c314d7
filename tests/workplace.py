"""A small project in a folder, its data, and running its flows as the command line does."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings

from perennial.cli.prefect_server import call
from perennial.spec.deployment import prefect_yaml
from perennial.stores.project import Project

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


def environment_of(root: Path) -> dict[str, str]:
    """This process's, for a project that has Prefect's and W&B's files to itself. W&B tracks
    nothing, which is a fifth of what a small flow takes; see ``Workplace.track``."""
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "WANDB_"))},
        "PREFECT_HOME": str(root / "prefect"),
        "PREFECT_LOCAL_STORAGE_PATH": str(root / ".perennial" / "results"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "WANDB_MODE": "disabled",
        "PERENNIAL_PROJECT": str(root),
    }


@dataclass(frozen=True)
class Workplace:
    """A project folder with one small model, and its commands."""

    root: Path
    environment: dict[str, str]

    @property
    def model(self) -> Path:
        return self.root / "models" / "demand"

    def track(self) -> None:
        """Leave to the defaults how W&B tracks: offline, in the project."""
        del self.environment["WANDB_MODE"]

    def write_rows(self, name: str, frame: pd.DataFrame) -> None:
        (self.root / "data").mkdir(exist_ok=True)
        frame.to_csv(self.root / "data" / name, index=False)

    def edit(self, old: str, new: str, file: str = "model.yaml") -> None:
        text = (self.model / file).read_text()
        assert old in text
        (self.model / file).write_text(text.replace(old, new))

    def cli(
        self, *arguments: str, most_file_bytes: int = resource.RLIM_INFINITY
    ) -> subprocess.CompletedProcess[str]:
        """The command line in a process of its own, which can't write larger files than that."""
        limit = (most_file_bytes, most_file_bytes)
        return subprocess.run(
            [sys.executable, "-c", "from perennial.cli import main; main()", *arguments],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, limit),
        )

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command line within this process: quicker, for what starts no flow."""
        from perennial.cli import main

        out, err, code = io.StringIO(), io.StringIO(), 0
        with (
            chdir(self.root),
            patch.dict(os.environ, self.environment, clear=True),
            patch.object(sys, "argv", ["perennial", *arguments]),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            try:
                main()
            except SystemExit as ended:
                code = int(ended.code or 0)
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

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

    def python(self, *arguments: str) -> str:
        """Python with these arguments, which must succeed; what it prints."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def prefect(self, *arguments: str) -> str:
        """Prefect's own command line, which must succeed; what it prints."""
        return self.python("-m", "prefect", "--no-prompt", *arguments)

    def deploy(self) -> None:
        """The project's prefect.yaml, on the server."""
        self.prefect("work-pool", "create", "perennial", "--type", "process", "--overwrite")
        self.prefect("deploy", "--all")

    @contextmanager
    def deployed(self, wanted: Callable[[dict[str, Any]], bool]) -> Iterator[None]:
        """These of the project's deployments on the server, which has no others, a worker that
        runs them, and this process within the project."""
        declared = yaml.safe_load(prefect_yaml(Project(self.root).specs()))
        declared["deployments"] = [each for each in declared["deployments"] if wanted(each)]
        (self.root / "prefect.yaml").write_text(yaml.safe_dump(declared))
        api = self.environment["PREFECT_API_URL"]
        assert self.ask("deployments/count", {}) == 0
        self.deploy()
        with (
            self.worker(),
            patch.dict(os.environ, {"PERENNIAL_PROJECT": str(self.root)}),
            temporary_settings({PREFECT_API_URL: api}),
        ):
            yield

    def ask(self, path: str, body: Any = None) -> Any:
        """What the Prefect server says: to what is posted when there is a body."""
        url = f"{self.environment['PREFECT_API_URL']}/{path}"
        return call("GET" if body is None else "POST", url, body, seconds=120)

    def artifact(self, key: str) -> str:
        """The newest of Prefect's artifacts of this name."""
        asked = {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC", "limit": 1}
        (found,) = self.ask("artifacts/filter", asked)
        return str(found["data"])

    @contextmanager
    def worker(self) -> Iterator[None]:
        """A worker that runs what is deployed, for as long as this lasts."""
        with (self.root / "worker.log").open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "prefect", "worker", "start", "--pool", "perennial"],
                cwd=self.root,
                env={**self.environment, "PREFECT_WORKER_QUERY_SECONDS": "1"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            yield
        finally:
            worker.send_signal(signal.SIGINT)
            try:
                worker.wait(20)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
