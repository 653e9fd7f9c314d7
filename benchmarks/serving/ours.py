"""The server under test, started as a user starts it, and the limit of what it is built on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import MODEL
from benchmarks.serving.contenders import Contender
from benchmarks.serving.project import Flights
from benchmarks.serving.servers import Server, free_port

PATH = f"/models/{MODEL}/predict"
READY = "/v2/health/ready"


def server(root: Path, folder: Path) -> Server:
    """``perennial serve`` with nothing set but its port: the prediction log is on."""
    port = free_port()
    program = str(Path(sys.executable).with_name("perennial"))
    folder.mkdir(parents=True, exist_ok=True)
    return Server(
        command=[program, "--project", str(root), "serve", "--port", str(port)],
        environment=harness.environment(),
        folder=folder,
        port=port,
        ready=READY,
        log=folder / "log",
    )


def contender(root: Path, flights: Flights, folder: Path) -> Contender:
    return Contender(
        title="Perennial",
        setting="as it comes: features computed, predictions logged",
        server=server(root, folder / "work" / "perennial"),
        path=PATH,
        bodies=flights.bodies(),
        prediction=lambda answer: float(answer["probability"]),
    )


def limit(us: Contender, folder: Path, core: int) -> Contender:
    """The same stack answering the bytes of a real answer of ours, with no prediction at all."""
    us.server.start(core)
    try:
        status, headers, body = us.server.post(us.path, "application/json", us.bodies[0])
    finally:
        us.server.stop()
    if status != 200:
        raise RuntimeError(f"{status}: {body!r}")
    work = folder / "work" / "limit"
    work.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in headers.items() if name not in _OF_THE_SERVER}
    (work / "answer.json").write_text(json.dumps({"headers": kept, "body": body.decode()}))
    port = free_port()
    return Contender(
        title="limit: no prediction",
        setting="the same bytes",
        server=Server(
            command=[sys.executable, "-m", "benchmarks.serving.limit", str(port), "answer.json"],
            environment={**harness.environment(), "PYTHONPATH": str(harness.EXAMPLE.parents[1])},
            folder=work,
            port=port,
            ready="/",
            log=work / "log",
        ),
        path=us.path,
        bodies=us.bodies,
        prediction=us.prediction,
    )


_OF_THE_SERVER = {"date", "server"}  # it writes them itself, as ours does
