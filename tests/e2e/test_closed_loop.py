"""The loop, closed: what people do changes, and a version that knows it earns their requests by
itself; one that has learned from wrong labels loses them by itself."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pandas as pd
import pytest

from perennial.cli.prefect_server import api_url, call
from perennial.cli.stack import state as states
from perennial.cli.stack.parts import SERVER, SERVING
from perennial.contracts.retraining import Finding, Retraining
from perennial.contracts.rollouts import Rollout
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from tests.turning import A_DAY, MODEL_YAML, START, TURN, rides, write_project
from tests.waiting import until
from tests.workplace import Workplace

MODEL = "rides"
FIRST_DAYS, ALL_DAYS = TURN, TURN + 35
LABEL = "late"
ROLLOUT = """\
rollout:
  strategy: [shadow, canary]
  steps: [50, 100]
  bake: 1s
  check_every: 1s
  min_requests: 150
  timeout: 3d
  guards: {error_rate: 0.05, metric: {name: logloss, max_loss: 0.1}}
"""
CAREFUL = MODEL_YAML + ROLLOUT
_T = TypeVar("_T")


@pytest.fixture
def stack(project: Workplace) -> Iterator[tuple[Workplace, str, str]]:
    """A project of rides that behave as they always did, its stack up: the addresses of Prefect's
    API and of serving."""
    del project.environment["PREFECT_HOME"]
    project.track()
    root = project.root
    for folder in ("models", "data"):
        shutil.rmtree(root / folder)
    write_project(root, rides(FIRST_DAYS), CAREFUL)
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


def run(api: str, name: str, **parameters: Any) -> dict[str, Any]:
    """Run a deployment to its end, as ``prefect deployment run`` does."""
    deployment = call("GET", f"{api}/deployments/name/{name}/{MODEL}", seconds=120)["id"]
    body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    path = f"{api}/deployments/{deployment}/create_flow_run"
    started = call("POST", path, body, seconds=120)["id"]

    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = call("GET", f"{api}/flow_runs/{started}", seconds=120)
        return found if found["state"]["type"] not in ("SCHEDULED", "PENDING", "RUNNING") else None

    return until(ended)


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    told = frame.assign(at=frame["at"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    found: list[dict[str, Any]] = told.drop(columns=LABEL).to_dict("records")
    return found


def ask(serving: str, frame: pd.DataFrame, at_once: int = 1) -> None:
    """Requests of so many rows, and their labels once all are answered."""
    asked = rows(frame)
    with httpx.Client(base_url=serving, timeout=30) as client:
        for at in range(0, len(asked), at_once):
            answer = client.post(f"/models/{MODEL}/predict", json=asked[at : at + at_once])
            assert answer.status_code == 200, answer.text
        labels = [
            {"ride": row["ride"], "at": row["at"], "label": label == "true"}
            for row, label in zip(asked, frame[LABEL], strict=True)
        ]
        sent = client.post(f"/models/{MODEL}/labels", json=labels)
        assert sent.status_code == 200, sent.text


@contextmanager
def traffic(serving: str, frame: pd.DataFrame) -> Iterator[None]:
    """Rides go on and on meanwhile, the same ones again after the last."""
    ending = threading.Event()
    failures: list[BaseException] = []

    def go_on() -> None:
        at = 0
        try:
            while not ending.wait(0.3):
                ask(serving, frame.iloc[at : at + 100])
                at = (at + 100) % (len(frame) - 100)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()
    assert failures == []  # no request failed while versions came and went


def serves(url: str, row: dict[str, Any], version: int) -> bool:
    answer = httpx.post(f"{url}/models/{MODEL}/predict", json=row, timeout=120)
    return answer.status_code == 200 and answer.json()["version"] == version


def all_logged(url: str) -> bool:
    """Whether every prediction and label that the server took is in its table."""
    lines = httpx.get(f"{url}/metrics", timeout=120).text.splitlines()
    return any(line == "perennial_log_waiting_bytes 0.0" for line in lines)


def retrained(root: Path) -> Retraining | None:
    table = Registry(Project(root).registry_url).retrainings
    return next((r for r in table.last(MODEL) if r.goes and r.finished_at), None)


def ended_rollout(root: Path, version: int) -> Rollout | None:
    found = Registry(Project(root).registry_url).rollouts.last(MODEL)
    return next((r for r in found if r.version == version and r.ended), None)


def test_turned_traffic_ends_in_a_better_version_and_a_bad_one_is_sent_back_untouched_by_hands(
    stack: tuple[Workplace, str, str],
) -> None:
    project, api, serving = stack
    first = run(api, "continuous-training", as_of=str(START + pd.Timedelta(days=FIRST_DAYS)))
    assert first["state"]["type"] == "COMPLETED", first["state"]["message"]
    everything = rides(ALL_DAYS + 35)
    known, coming = everything.iloc[: ALL_DAYS * A_DAY], everything.iloc[ALL_DAYS * A_DAY :]
    until(lambda: serves(serving, rows(known)[0], 1))

    ask(serving, known.iloc[FIRST_DAYS * A_DAY :], at_once=100)
    write_project(project.root, known, CAREFUL)
    until(lambda: all_logged(serving))
    with traffic(serving, coming):
        watched = run(api, "drift-watch")
        assert watched["state"]["type"] == "COMPLETED", watched["state"]["message"]
        found = until(lambda: retrained(project.root))
        earned = until(lambda: ended_rollout(project.root, 2), 600)
        until(lambda: serves(serving, rows(known)[0], 2))
    assert found.trigger.finding is Finding.CONCEPT
    assert found.outcome == "rolling out"
    its = call("GET", f"{api}/flow_runs/{found.started_run}", seconds=120)
    assert its["created_by"]["type"] == "AUTOMATION"
    assert its["parameters"]["trigger"]["window"] is not None
    assert its["parameters"]["reason"] == found.current.reason
    assert earned.state.phase == "promoted", earned.state.reason
    assert [step.strategy for step in earned.plan.steps] == ["shadow", "canary", "canary"]

    # Upstream turns the labels round: those that the gates judge by, too.
    wrong = coming.assign(**{LABEL: coming[LABEL].map({"true": "false", "false": "true"})})
    write_project(project.root, pd.concat([known, wrong]), CAREFUL)
    with traffic(serving, coming):
        bad = run(api, "continuous-training")
        assert "version 3 is rolled out" in bad["state"]["message"]
        lost = until(lambda: ended_rollout(project.root, 3), 600)
        until(lambda: serves(serving, rows(known)[0], 2))
    assert lost.state.phase == "rolled back", lost.state.reason
    assert "logloss" in lost.state.reason
    registry = Registry(Project(project.root).registry_url)
    assert list(registry.quarantined(MODEL)) == [3]
    route = registry.route(MODEL)
    assert [(arm.version, arm.weight) for arm in route.arms] == [(2, 100)]
    decisions = registry.decisions(MODEL)
    assert [d.version for d in decisions if d.action == "promoted"] == [2, 1]
    status = project.cli("status", MODEL)
    assert status.returncode == 0
    assert "concept drift" in status.stdout
    assert "rolled back" in status.stdout
