"""The parts of the stack: how each is started, when it is ready, how it is asked to end."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar
from urllib.error import HTTPError

from perennial.cli import prefect_server
from perennial.cli.prefect_server import api_url, call
from perennial.learning.memory import usable_memory
from perennial.spec.places import WORK_POOL
from perennial.stores.project import PROJECT_VARIABLE, Project

Ports = Mapping[str, int]
"""Of the parts that listen, by name."""

SERVER, WORKER, SERVING = "server", "worker", "serving"
WORKER_SETTINGS = {
    # From a run's start asked for to its process started, at most; see docs/adr/0020.
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    # A worker that is taken over counts as running once it has given a sign of life since.
    "PREFECT_WORKER_HEARTBEAT_SECONDS": "5",
    # A sign of life of each run, as often as Prefect allows: one that is lost does no harm then to
    # the automation that marks runs without any as crashed; see docs/adr/0023.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
}
_RUN_BYTES = 768 * 2**20
"""Of memory for each run: a look at drift takes 400 MiB, a training of a small model 500 to 800."""
_LEAST_RUNS = 4


def runs_at_once(memory_bytes: int) -> int:
    """How many runs the worker has at a time on a machine with so much memory; others wait. All
    models are looked at at the same minute unless they say otherwise: a hundred processes."""
    return max(_LEAST_RUNS, memory_bytes // _RUN_BYTES)


class Part(ABC):
    """One part; without state of its own."""

    name: ClassVar[str]
    title: ClassVar[str]
    usual_port: ClassVar[int | None] = None
    after: ClassVar[str | None] = None
    """The part that must run before this one is started."""
    ready_seconds: ClassVar[float]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    stop_seconds: ClassVar[float]

    def __init__(self, project: Project, ports: Ports) -> None:
        """``ports`` may be filled after this, but before the part is started."""
        self.project = project
        self.ports = ports

    @abstractmethod
    def command(self) -> list[str]:
        """The command line, for the working directory of the project."""

    @abstractmethod
    def environment(self) -> dict[str, str]: ...

    @abstractmethod
    def ready(self, at: datetime) -> bool:
        """Whether it does its work; ``at`` is when it was started or taken over."""


class Server(Part):
    name = SERVER
    title = "Prefect server"
    usual_port = 4200
    ready_seconds = prefect_server.START_SECONDS
    stop_seconds = 10.0

    def command(self) -> list[str]:
        return prefect_server.server_command(self.ports[SERVER])

    def environment(self) -> dict[str, str]:
        home = self.project.home / "prefect"
        return prefect_server.server_environment(os.environ, home, self.ports[SERVER])

    def ready(self, _at: datetime) -> bool:
        return prefect_server.healthy(api_url(self.ports[SERVER]))


class Worker(Part):
    name = WORKER
    title = "worker"
    after = SERVER
    ready_seconds = 60.0
    stop_signal = signal.SIGINT  # it ignores the first SIGTERM for a while, and dies of the second
    stop_seconds = 15.0

    def command(self) -> list[str]:
        start = ["worker", "start", "--pool", WORK_POOL, "--type", "process", "--name", WORK_POOL]
        limit = ["--limit", str(runs_at_once(usable_memory()))]
        return [sys.executable, "-m", "prefect", *start, *limit]

    def environment(self) -> dict[str, str]:
        return client_environment(self.project, self.ports)

    def ready(self, at: datetime) -> bool:
        url = f"{api_url(self.ports[SERVER])}/work_pools/{WORK_POOL}/workers/filter"
        try:
            workers = call("POST", url, {}, prefect_server.LOOK_SECONDS)
        except (OSError, ValueError):
            return False
        heartbeats = [w["last_heartbeat_time"] for w in workers if w["name"] == WORK_POOL]
        return any(datetime.fromisoformat(seen) >= at for seen in heartbeats)


class Serving(Part):
    name = SERVING
    title = "serving"
    usual_port = 8080
    ready_seconds = 60.0
    stop_seconds = 45.0  # requests under way, then the last predictions reach their tables

    def command(self) -> list[str]:
        project = ["--project", str(self.project.root)]
        return [
            sys.executable,
            "-m",
            "perennial",
            *project,
            "serve",
            "--port",
            str(self.ports[SERVING]),
        ]

    def environment(self) -> dict[str, str]:
        kept = _without_the_servers_own(os.environ)
        return {**kept, PROJECT_VARIABLE: str(self.project.root)}

    def ready(self, _at: datetime) -> bool:
        # Live, not ready: before the first version there is nothing to answer with.
        url = f"http://127.0.0.1:{self.ports[SERVING]}/v2/health/live"
        try:
            with urllib.request.urlopen(url, timeout=prefect_server.LOOK_SECONDS) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def parts_of(project: Project, ports: Ports) -> dict[str, Part]:
    """All parts by name, in the order in which they are started."""
    return {kind.name: kind(project, ports) for kind in (Server, Serving, Worker)}


def client_environment(project: Project, ports: Ports) -> dict[str, str]:
    """The environment of what speaks to the stack's Prefect server: worker, flows, ``prefect``."""
    server = prefect_server.server_environment(os.environ, project.home / "prefect", ports[SERVER])
    return {
        "PREFECT_LOCAL_STORAGE_PATH": str(project.home / "results"),
        **WORKER_SETTINGS,
        **_without_the_servers_own(server),
        "PREFECT_API_URL": api_url(ports[SERVER]),
        PROJECT_VARIABLE: str(project.root),
    }


def _without_the_servers_own(environment: Mapping[str, str]) -> dict[str, str]:
    own = prefect_server.DATABASE_PREFIXES
    return {k: v for k, v in environment.items() if not k.startswith(own)}


def ensure_work_pool(project: Project, port: int) -> None:
    """Make the pool that prefect.yaml names. One that is there keeps what somebody has set, but for
    how a run is started. Raises OSError."""
    url = f"{api_url(port)}/work_pools"
    defaults = _how_runs_start(project)
    try:
        pool = call("GET", f"{url}/{WORK_POOL}")
    except HTTPError as error:
        if error.code != 404:
            raise
        template = _job_template(defaults)
        body = {"name": WORK_POOL, "type": "process", "base_job_template": template}
        call("POST", f"{url}/", body)
        return
    template = pool["base_job_template"] or _job_template(defaults)
    properties = template["variables"]["properties"]
    for name, value in defaults.items():
        properties[name]["default"] = value
    call("PATCH", f"{url}/{WORK_POOL}", {"base_job_template": template})


def _how_runs_start(project: Project) -> dict[str, Any]:
    """Given no command, a worker starts an interpreter that prepares a folder and then starts
    another for the flow; the code is installed here, so that one is enough. Given a pipe to the
    worker, a run ends when its worker is killed; a file outlives it."""
    engine = shlex.join([sys.executable, "-m", "prefect.engine"])
    log = shlex.quote(str(project.home / "logs" / "runs.log"))
    return {
        "command": shlex.join(["sh", "-c", f"exec {engine} >>{log} 2>&1"]),
        "stream_output": False,
        "working_dir": str(project.root),
    }


def _job_template(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What a run on a process worker may be given, and what it is given by default."""
    texts = {"type": "object", "additionalProperties": {"type": "string"}}
    properties: dict[str, dict[str, Any]] = {
        "command": {"title": "Command", "type": "string"},
        "env": {"title": "Environment Variables", **texts},
        "labels": {"title": "Labels", **texts},
        "name": {"title": "Name", "type": "string"},
        "stream_output": {"title": "Stream Output", "type": "boolean"},
        "working_dir": {"title": "Working Directory", "type": "string"},
    }
    for name, value in defaults.items():
        properties[name]["default"] = value
    return {
        "job_configuration": {name: f"{{{{ {name} }}}}" for name in properties},
        "variables": {"type": "object", "properties": properties},
    }
