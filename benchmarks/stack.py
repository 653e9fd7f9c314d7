"""The embedded stack: what it costs when nothing happens, and how soon a flow runs.

    python -m benchmarks.stack [--poll 1 2 5 10] [--runs N] [--idle SECONDS] [--quick]

For each poll setting of the worker (PREFECT_WORKER_QUERY_SECONDS) a stack of its own, by
``perennial up``. Idle: processor seconds a minute of each part, with its children. Run: from a run
of continuous-training being created to its flow running, by the server's clock. Event: the same
from ``perennial.drift.detected``, which prefect.yaml's trigger answers with such a run. The model
is small and nothing is new, so that each flow ends soon; the next one is asked for when it has,
after a random wait, so that no sample is in step with the polls. *stock* is the pool as Prefect
makes it, at the first setting.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import harness
from benchmarks.harness import MODEL, console, show
from perennial.cli.prefect_server import api_url, call
from perennial.cli.stack import state as states
from perennial.cli.stack.parts import SERVER
from perennial.cli.stack.processes import marked
from perennial.contracts.events import ANSWER_LABEL, Event, resource_id
from perennial.contracts.retraining import Finding, Trigger
from perennial.spec.places import WORK_POOL
from perennial.stores.project import Project

_TICKS = os.sysconf("SC_CLK_TCK")
_SETTLE_SECONDS = 20.0
_RUN_SECONDS = 180.0
_CHANGES: dict[str, dict[str, Any]] = {
    "tuning": {"trials": 2, "timeout": "1h"}, "training": {"rounds": 20},
    "retrain": {"on": ["drift"], "max_a_day": 100},
}  # fmt: skip


@dataclass
class Setting:
    """One way to run the worker, and what was measured. Seconds; CPU seconds a minute by part."""

    name: str
    poll: str
    stock: bool = False
    idle: dict[str, float] = field(default_factory=dict)
    runs: list[float] = field(default_factory=list)
    created: list[float] = field(default_factory=list)
    events: list[float] = field(default_factory=list)


def main(argv: Sequence[str] | None = None) -> list[Setting]:
    """Measure, print a table, return the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stack")
    parser.add_argument("--poll", nargs="+", default=["1", "2", "5"], metavar="SECONDS")
    parser.add_argument("--runs", type=int, default=8, help="of each kind")
    parser.add_argument("--idle", type=float, default=60.0, help="seconds to watch an idle stack")
    parser.add_argument("--quick", action="store_true", help="small and once: that it works")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.poll, arguments.runs, arguments.idle = arguments.poll[:1], 1, 5.0
    settings = [Setting(f"{poll} s", poll) for poll in arguments.poll]
    if not arguments.quick:
        settings.append(Setting(f"{arguments.poll[0]} s, stock", arguments.poll[0], stock=True))
    with tempfile.TemporaryDirectory(prefix="bench-stack-", dir=arguments.folder) as name:
        folder = Path(name)
        project = Project(folder / "project")
        some = [_some(path, folder) for path in harness.write_flights(folder / "flights")]
        harness.write_project(project.root, some, _CHANGES)
        console.print(harness.machine())
        for setting in settings:
            with _stack(project, setting.poll) as url:
                _measure(project, url, setting, arguments.runs, arguments.idle)
            console.print(setting)
    _show(settings)
    return settings


def _some(flights: Path, folder: Path) -> Path:
    """Every fortieth flight of a file."""
    lines = flights.read_text(encoding="utf-8").splitlines(keepends=True)
    target = folder / flights.name
    target.write_text("".join([lines[0], *lines[1::40]]), encoding="utf-8")
    return target


@contextmanager
def _stack(project: Project, poll: str) -> Iterator[str]:
    """A running stack; yields the address of its Prefect API."""
    environment = {**harness.environment(), "PREFECT_WORKER_QUERY_SECONDS": poll}
    _perennial(project, environment, "check", MODEL, "--write")
    _perennial(project, environment, "up", "-d", "--port", "0", "--serve-port", "0")
    try:
        state = states.read(project)
        assert state is not None
        port = state.parts[SERVER].port
        assert port is not None
        yield api_url(port)
    finally:
        _perennial(project, environment, "down")


def _perennial(project: Project, environment: Mapping[str, str], *arguments: str) -> None:
    command = [sys.executable, "-m", "perennial", "--project", str(project.root), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"perennial {' '.join(arguments)}: {done.stdout}{done.stderr}")


def _measure(project: Project, url: str, setting: Setting, runs: int, idle: float) -> None:
    if setting.stock:
        _make_pool_stock(url)
    deployment = call("GET", f"{url}/deployments/name/continuous-training/{MODEL}")["id"]
    _finished(url, _ask(url, deployment))  # trains; the next ones find everything done
    time.sleep(_SETTLE_SECONDS)
    setting.idle = _idle(project, idle)
    chance = random.Random(7)
    for _ in range(runs):
        time.sleep(1 + chance.random() * float(setting.poll))
        run = _finished(url, _ask(url, deployment))
        setting.runs.append(_between(run["created"], run["start_time"]))
        time.sleep(1 + chance.random() * float(setting.poll))
        asked, run = _by_event(url, deployment)
        setting.created.append(_between(asked, run["created"]))
        setting.events.append(_between(asked, run["start_time"]))


def _make_pool_stock(url: str) -> None:
    pool = call("GET", f"{url}/work_pools/{WORK_POOL}")
    template = pool["base_job_template"]
    for name in ("command", "stream_output", "working_dir"):
        del template["variables"]["properties"][name]["default"]
    call("PATCH", f"{url}/work_pools/{WORK_POOL}", {"base_job_template": template})
    time.sleep(45)  # the worker looks after its pool every 30 s


def _ask(url: str, deployment: str) -> str:
    """Ask for a run as ``prefect deployment run`` does; returns its id."""
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": _now()}}
    body = {"state": state, "parameters": {"reason": "benchmark"}}
    run: str = call("POST", f"{url}/deployments/{deployment}/create_flow_run", body)["id"]
    return run


def _by_event(url: str, deployment: str) -> tuple[str, dict[str, Any]]:
    """Emit the event of a look that is answered with retraining, as the drift watch does; returns
    its time and the finished run that it started."""
    asked = _now()
    look = Trigger(
        kind="drift", reason="benchmark", at=datetime.now(UTC), finding=Finding.HARMFUL,
        data=str(uuid.uuid4()),
    )  # fmt: skip
    event = {
        "id": str(uuid.uuid4()), "occurred": asked, "event": Event.DRIFT_DETECTED,
        "payload": {"reason": look.reason, "trigger": look.model_dump(mode="json")},
        "resource": {"prefect.resource.id": resource_id(MODEL), ANSWER_LABEL: "retrain"},
        "related": [],
    }  # fmt: skip
    call("POST", f"{url}/events", [event])
    wanted = {
        "deployments": {"id": {"any_": [deployment]}},
        "flow_runs": {"start_time": {"is_null_": False}, "expected_start_time": {"after_": asked}},
    }
    deadline = time.monotonic() + _RUN_SECONDS
    while not (runs := call("POST", f"{url}/flow_runs/filter", wanted)):
        if time.monotonic() > deadline:
            raise RuntimeError("no run answered the event")
        time.sleep(0.5)
    return asked, _finished(url, runs[0]["id"])


def _finished(url: str, run: str) -> dict[str, Any]:
    """A run after its end; raises RuntimeError unless it completed."""
    deadline = time.monotonic() + _RUN_SECONDS
    while time.monotonic() < deadline:
        found: dict[str, Any] = call("GET", f"{url}/flow_runs/{run}")
        if found["state_type"] == "COMPLETED":
            return found
        if found["state_type"] in ("FAILED", "CRASHED", "CANCELLED"):
            raise RuntimeError(f"{found['name']}: {found['state']['message']}")
        time.sleep(0.5)
    raise RuntimeError(f"the run was not done within {_RUN_SECONDS:.0f} s")


def _idle(project: Project, seconds: float) -> dict[str, float]:
    """Processor seconds a minute of each part; nobody asks anything meanwhile."""
    before = _cpu(project)
    started = time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - started
    after = _cpu(project)
    return {part: (after[part] - before.get(part, 0.0)) * 60 / passed for part in after}


def _cpu(project: Project) -> dict[str, float]:
    """Processor seconds so far by part, ``supervisor`` among them."""
    state = states.read(project)
    assert state is not None
    found = {"supervisor": _process_cpu(state.supervisor.pid)}
    for one in marked(project.home):
        found[one.part] = found.get(one.part, 0.0) + _process_cpu(one.process.pid)
    return found


def _process_cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _show(settings: Sequence[Setting]) -> None:
    parts = list(settings[0].idle)
    show(
        "Idle: processor seconds a minute",
        ("poll", *parts, "all"),
        [
            (
                one.name,
                *(f"{one.idle[part]:.2f}" for part in parts),
                f"{sum(one.idle.values()):.2f}",
            )
            for one in settings
        ],
    )
    show(
        f"Seconds until the flow runs: median (most) of {len(settings[0].runs)}",
        ("poll", "run created → running", "event → run created", "event → running"),
        [(one.name, *map(_spread, (one.runs, one.created, one.events))) for one in settings],
    )


def _spread(seconds: Sequence[float]) -> str:
    return f"{median(seconds):.1f} ({max(seconds):.1f})"


def _between(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def _now() -> str:
    return datetime.now(UTC).isoformat()


if __name__ == "__main__":
    main()
