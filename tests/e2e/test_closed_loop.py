"""The loop, closed: what people do changes, and a version that knows it answers, by itself."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pandas as pd
import pytest

from perennial.cli.prefect_server import api_url
from perennial.cli.stack import state as states
from perennial.cli.stack.parts import SERVER, SERVING
from perennial.contracts.retraining import Finding, Retraining
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from tests.turning import A_DAY, START, TURN, rides, write_project
from tests.workplace import Workplace

MODEL = "rides"
FIRST_DAYS, ALL_DAYS = TURN, TURN + 35
LABEL = "late"
_T = TypeVar("_T")


@pytest.fixture
def stack(project: Workplace) -> Iterator[tuple[Workplace, str, str]]:
    """A project of rides that behave as they always did, its stack up: the addresses of Prefect's
    API and of serving."""
    del project.environment["PREFECT_HOME"]
    root = project.root
    for folder in ("models", "data"):
        shutil.rmtree(root / folder)
    write_project(root, rides(FIRST_DAYS))
    written = project.cli("check", "--write")
    assert written.returncode == 0, written.stdout + written.stderr
    up = project.cli("up", "-d", "--port", "0", "--serve-port", "0")
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        state = states.read(Project(root))
        assert state is not None
        port = state.parts[SERVER].port
        assert port is not None
        yield project, api_url(port), str(state.url(SERVING))
    finally:
        down = project.cli("down")
    assert down.returncode == 0, down.stdout + down.stderr


def until(found: Callable[[], _T | None], seconds: float = 240.0) -> _T:
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.1)
    return value


def run(api: str, name: str, **parameters: Any) -> dict[str, Any]:
    """Run a deployment to its end, as ``prefect deployment run`` does."""
    deployment = httpx.get(f"{api}/deployments/name/{name}/{MODEL}").json()["id"]
    body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    started = httpx.post(f"{api}/deployments/{deployment}/create_flow_run", json=body).json()["id"]

    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = httpx.get(f"{api}/flow_runs/{started}").json()
        return found if found["state"]["type"] not in ("SCHEDULED", "PENDING", "RUNNING") else None

    return until(ended)


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    told = frame.assign(at=frame["at"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    found: list[dict[str, Any]] = told.drop(columns=LABEL).to_dict("records")
    return found


def serves(url: str, row: dict[str, Any], version: int) -> bool:
    answer = httpx.post(f"{url}/models/{MODEL}/predict", json=row)
    return answer.status_code == 200 and answer.json()["version"] == version


def all_logged(url: str) -> bool:
    """Whether every prediction and label that the server took is in its table."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return any(line == "perennial_log_waiting_bytes 0.0" for line in lines)


def retrained(root: Path) -> Retraining | None:
    table = Registry(Project(root).registry_url).retrainings
    return next((r for r in table.last(MODEL) if r.goes and r.finished_at), None)


def test_turned_traffic_ends_in_a_better_version_that_answers_and_nobody_touched_anything(
    stack: tuple[Workplace, str, str],
) -> None:
    project, api, serving = stack
    first = run(api, "continuous-training", as_of=str(START + pd.Timedelta(days=FIRST_DAYS)))
    assert first["state"]["type"] == "COMPLETED", first["state"]["message"]
    everything = rides(ALL_DAYS)
    new = everything.iloc[FIRST_DAYS * A_DAY :]
    asked = rows(new)
    until(lambda: serves(serving, asked[0], 1))

    for at in range(0, len(asked), 100):
        part = asked[at : at + 100]
        answer = httpx.post(f"{serving}/models/{MODEL}/predict", json=part, timeout=30)
        assert answer.status_code == 200, answer.text
    labels = [
        {"ride": row["ride"], "at": row["at"], "label": label == "true"}
        for row, label in zip(asked, new[LABEL], strict=True)
    ]
    sent = httpx.post(f"{serving}/models/{MODEL}/labels", json=labels, timeout=30)
    assert sent.status_code == 200, sent.text
    write_project(project.root, everything)
    until(lambda: all_logged(serving))

    watched = run(api, "drift-watch")
    assert watched["state"]["type"] == "COMPLETED", watched["state"]["message"]
    found = until(lambda: retrained(project.root))
    until(lambda: serves(serving, asked[0], 2))

    assert found.trigger.finding is Finding.CONCEPT
    assert found.outcome == "promoted"
    its = httpx.get(f"{api}/flow_runs/{found.started_run}").json()
    assert its["created_by"]["type"] == "AUTOMATION"
    assert its["parameters"]["trigger"]["window"] is not None
    assert its["parameters"]["reason"] == found.current.reason
    decisions = Registry(Project(project.root).registry_url).decisions(MODEL)
    assert [d.version for d in decisions if d.action == "promoted"] == [2, 1]
    status = project.cli("status", MODEL)
    assert status.returncode == 0
    assert "concept drift" in status.stdout
