"""Other ways to serve a booster: how each is installed, set, started and asked.

Each has a folder here with its pinned ``requirements.txt`` and what it takes to serve the booster,
and gets a virtual environment of its own. All are sent the float32 row that the booster reads, in
the JSON that is their own: they compute no features, parse no dates, encode no categories, log no
predictions.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks.serving.servers import Server, free_port

HERE = Path(__file__).parent

Row = list[float | None]


@dataclass(frozen=True)
class Peer:
    """``settings`` are tried one after the other (environment variables), and the quickest is
    compared. Words in braces of ``command`` and of the variables are filled in: ``{bin}`` of the
    virtual environment, ``{here}``, ``{booster}``, ``{work}`` (a folder to write to), ``{port}``,
    ``{port2}`` and ``{port3}``; ``prepare`` is run once before."""

    name: str
    title: str
    command: Sequence[str]
    path: str
    ready: str
    body: Callable[[Row], object]
    prediction: Callable[[Any], float]
    settings: Mapping[str, Mapping[str, str]]
    environment: Mapping[str, str]
    prepare: Sequence[str] = ()

    @property
    def folder(self) -> Path:
        return HERE / self.name

    def install(self, environments: Path) -> Path:
        """The ``bin`` of a virtual environment with its requirements, which is made once.

        Raises RuntimeError when they can't be installed.
        """
        requirements = self.folder / "requirements.txt"
        digest = sha256(requirements.read_bytes()).hexdigest()[:12]
        place = environments / f"{self.name}-{digest}"
        if not (place / "complete").is_file():
            python, uv = str(place / "bin" / "python"), str(Path(sys.executable).with_name("uv"))
            wanted = ["install", "--quiet", "-r", str(requirements)]
            _run([uv, "venv", "--quiet", "--clear", "--seed", "-p", sys.executable, str(place)])
            try:
                _run([uv, "pip", *wanted, "--python", python])
            except RuntimeError:  # a machine may have pip set up for its registry and not uv
                _run([python, "-m", "pip", *wanted])
            (place / "complete").touch()
        return place / "bin"

    def server(self, setting: str, binaries: Path, booster: Path, work: Path) -> Server:
        """The server in one of its settings, not yet started."""
        work.mkdir(parents=True, exist_ok=True)
        ports = free_port(), free_port(), free_port()
        names = {
            "bin": binaries, "here": self.folder, "booster": booster, "work": work,
            "port": ports[0], "port2": ports[1], "port3": ports[2],
        }  # fmt: skip
        own = {**self.environment, **self.settings[setting]}
        environment = {
            **_bare_environment(),
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "BOOSTER": str(booster),
            **{name: value.format(**names) for name, value in own.items()},
        }
        if self.prepare:
            command = [word.format(**names) for word in self.prepare]
            _run(command, environment)
        return Server(
            command=[word.format(**names) for word in self.command],
            environment=environment,
            folder=work,
            port=ports[0],
            ready=self.ready,
            log=work / "log",
        )


def _run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(done.stderr or done.stdout)[-3000:]}")


def _bare_environment() -> dict[str, str]:
    """One thread for OpenMP: each server has one core."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


_UVICORN = {"UVICORN_LOG_LEVEL": "error", "UVICORN_ACCESS_LOG": "false"}

PEERS = (
    Peer(
        name="mlserver",
        title="MLServer",
        command=("{bin}/mlserver", "start", "{work}"),
        path="/v2/models/flights/infer",
        ready="/v2/models/flights/ready",
        body=lambda row: {
            "inputs": [{"name": "x", "shape": [1, len(row)], "datatype": "FP32", "data": row}]
        },
        prediction=lambda answer: float(answer["outputs"][0]["data"][0]),
        environment={
            "MLSERVER_DEBUG": "false",
            "MLSERVER_HOST": "127.0.0.1",
            "MLSERVER_HTTP_PORT": "{port}",
            "MLSERVER_GRPC_PORT": "{port2}",
            "MLSERVER_METRICS_PORT": "{port3}",
            "MLSERVER_MODEL_NAME": "flights",
            "MLSERVER_MODEL_IMPLEMENTATION": "mlserver_xgboost.XGBoostModel",
            "MLSERVER_MODEL_URI": "{booster}",
        },
        settings={
            "in its own process": {"MLSERVER_PARALLEL_WORKERS": "0"},
            "in its own process, batches of 16 in 1 ms": {
                "MLSERVER_PARALLEL_WORKERS": "0",
                "MLSERVER_MODEL_MAX_BATCH_SIZE": "16",
                "MLSERVER_MODEL_MAX_BATCH_TIME": "0.001",
            },
            "a worker process": {"MLSERVER_PARALLEL_WORKERS": "1"},
            "a worker process, batches of 16 in 1 ms": {
                "MLSERVER_PARALLEL_WORKERS": "1",
                "MLSERVER_MODEL_MAX_BATCH_SIZE": "16",
                "MLSERVER_MODEL_MAX_BATCH_TIME": "0.001",
            },
        },
    ),
    Peer(
        name="mlflow",
        title="MLflow",
        prepare=("{bin}/python", "{here}/save.py", "{booster}", "{work}/model"),
        command=(
            "{bin}/mlflow", "models", "serve", "--model-uri", "{work}/model", "--host",
            "127.0.0.1", "--port", "{port}", "--env-manager", "local", "--workers", "1",
        ),
        path="/invocations",
        ready="/health",
        body=lambda row: {"inputs": [[math.nan if value is None else value for value in row]]},
        prediction=lambda answer: float(answer["predictions"][0]),
        environment={**_UVICORN, "MLFLOW_DISABLE_TELEMETRY": "true"},
        settings={"as it comes": {}},
    ),
    Peer(
        name="bentoml",
        title="BentoML",
        command=(
            "{bin}/bentoml", "serve", "service:Flights", "--working-dir", "{here}", "--host",
            "127.0.0.1", "--port", "{port}", "--api-workers", "1", "-q",
        ),
        path="/predict",
        ready="/readyz",
        body=lambda row: {"rows": [row]},
        prediction=lambda answer: float(answer[0]),
        environment={"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": "{work}/home"},
        settings={
            "one by one": {"BATCH_SIZE": "1"},
            "adaptive batches of up to 16": {"BATCH_SIZE": "16", "BATCH_MILLISECONDS": "10000"},
        },
    ),
    Peer(
        name="litserve",
        title="LitServe",
        command=("{bin}/python", "{here}/app.py", "{port}"),
        path="/predict",
        ready="/health",
        body=lambda row: {"row": row},
        prediction=lambda answer: float(answer["prediction"]),
        environment={},
        settings={
            "one by one": {"BATCH_SIZE": "1", "BATCH_SECONDS": "0", "FAST_QUEUE": "0"},
            "one by one, fast queue": {
                "BATCH_SIZE": "1", "BATCH_SECONDS": "0", "FAST_QUEUE": "1",
            },
            "batches of 16 in 1 ms": {
                "BATCH_SIZE": "16", "BATCH_SECONDS": "0.001", "FAST_QUEUE": "0",
            },
            "batches of 16 in 1 ms, fast queue": {
                "BATCH_SIZE": "16", "BATCH_SECONDS": "0.001", "FAST_QUEUE": "1",
            },
        },
    ),
    Peer(
        name="bare",
        title="bare ASGI, inplace_predict",
        command=(
            "{bin}/uvicorn", "app:asgi", "--app-dir", "{here}", "--host", "127.0.0.1", "--port",
            "{port}", "--loop", "uvloop", "--http", "httptools", "--no-access-log",
            "--log-level", "error",
        ),
        path="/",
        ready="/",
        body=lambda row: row,
        prediction=lambda answer: float(answer["prediction"]),
        environment={},
        settings={"uvicorn": {}},
    ),
    Peer(
        name="bare",
        title="bare RSGI, inplace_predict",
        command=(
            "{bin}/granian", "app:rsgi", "--working-dir", "{here}", "--interface", "rsgi",
            "--host", "127.0.0.1", "--port", "{port}", "--loop", "uvloop", "--workers", "1",
            "--no-access-log", "--log-level", "error",
        ),
        path="/",
        ready="/",
        body=lambda row: row,
        prediction=lambda answer: float(answer["prediction"]),
        environment={},
        settings={"granian": {}},
    ),
)  # fmt: skip
