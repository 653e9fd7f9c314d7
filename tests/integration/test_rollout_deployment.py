"""A rollout that is begun is watched by a worker, and by another run when that one dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prefect import flow

from perennial.cli.prefect_server import call
from perennial.cli.stack import care as care_module
from perennial.cli.stack.care import Care
from perennial.contracts.events import BEGUN, ROLLOUT_LABEL, Event
from perennial.contracts.rollouts import Rollout
from perennial.stores import rolling_out
from perennial.stores.rolling_out import begin
from tasks._events import emit
from tasks.rollout import remind
from tests.rolling import Rolling, rolling
from tests.waiting import until
from tests.workplace import environment_of

MODELS = ("begun", "detached", "forgotten", "hopeless", "neglected")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, own_prefect_server: str) -> Iterator[Rolling]:
    root = tmp_path_factory.mktemp("rollouts")
    found = rolling(root, {**environment_of(root), "PREFECT_API_URL": own_prefect_server})
    for model in MODELS:
        found.of(model)
        found.versions(2, model)
    with found.deployed(
        lambda each: each["entrypoint"] == "flows.rollout.rollout" and each["name"] in MODELS
    ):
        yield found


def runs(place: Rolling, model: str) -> list[dict[str, Any]]:
    """The runs of a model's deployment, in the order they were created."""
    asked = {
        "flows": {"name": {"any_": ["rollout"]}},
        "deployments": {"name": {"any_": [model]}},
    }
    return sorted(place.ask("flow_runs/filter", asked), key=lambda run: run["created"])


def started(place: Rolling, model: str, before: timedelta = timedelta()) -> Rollout:
    now = datetime.now(UTC) - before
    return begin(
        place.project, place.registry, model, 2, {}, actor="tests", reason="better",
        cause="judged", force=False, now=now,
    )  # fmt: skip


def last(place: Rolling, model: str) -> Rollout:
    return place.registry.rollouts.last(model, 1)[0]


def process_of(place: Rolling, run: dict[str, Any]) -> int:
    """The process of a run at a worker of this machine."""
    found: list[int] = []

    def known() -> bool:
        pid = place.ask(f"flow_runs/{run['id']}").get("infrastructure_pid")
        found[:] = [int(pid.rpartition(":")[2])] if pid else []
        return bool(found)

    until(known)
    return found[0]


@flow(persist_result=False)
def telling(model: str, labels: dict[str, str]) -> None:
    payload = {"model": model, "reason": "better", "cause": f"judged {labels}", "version": 2}
    assert emit(Event.VERSION_REGISTERED, model, payload, labels)


def test_what_was_begun_is_watched_and_a_run_that_dies_is_followed(place: Rolling) -> None:
    telling("begun", {})  # promoted at once: nothing to watch
    begun = started(place, "begun")
    telling("begun", {ROLLOUT_LABEL: BEGUN})
    until(lambda: last(place, "begun").state.last is not None)
    (run,) = runs(place, "begun")
    assert run["parameters"] == {"model": "begun"}
    looked = last(place, "begun").revision
    os.kill(process_of(place, run), signal.SIGKILL)

    until(lambda: len(runs(place, "begun")) == 2)
    second = runs(place, "begun")[1]
    assert second["parameters"]["deaths"] == 1
    until(lambda: last(place, "begun").revision > looked + 2)
    with place.traffic(model="begun"):
        until(lambda: runs(place, "begun")[1]["state_type"] == "COMPLETED")
    first, second = runs(place, "begun")
    assert first["state_type"] == "CRASHED"
    assert "model:begun" in second["tags"]
    assert (last(place, "begun").id, last(place, "begun").state.phase) == (begun.id, "promoted")
    assert place.registry.route("begun").champion == 2


@flow(persist_result=False)
def reminding(model: str) -> Rollout | None:
    return remind(model)


def test_what_was_begun_and_nobody_watches_is_watched_after_the_next_look(place: Rolling) -> None:
    assert reminding("forgotten") is None  # there is none
    begun = started(place, "forgotten", before=timedelta(minutes=5))
    assert runs(place, "forgotten") == []  # the event was lost
    found = reminding("forgotten")
    assert found is not None
    assert found.id == begun.id
    until(lambda: last(place, "forgotten").state.last is not None)
    (run,) = runs(place, "forgotten")
    assert reminding("forgotten") is None  # somebody watches
    stopped, looked = process_of(place, run), last(place, "forgotten").revision
    until(lambda: last(place, "forgotten").revision > looked)  # between two looks it locks nothing
    os.kill(stopped, signal.SIGSTOP)  # it goes on as far as the server knows, and does not look
    try:
        with pytest.MonkeyPatch.context() as patch:
            for wait in ("_UNSEEN", "_STUCK"):
                patch.setattr(rolling_out, wait, timedelta(seconds=5))
            looked = last(place, "forgotten").revision
            until(lambda: reminding("forgotten"))
            until(lambda: last(place, "forgotten").revision > looked)
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert place.registry.rollouts.command(
        "forgotten", "abort", actor="tests", reason="enough", now=datetime.now(UTC)
    ).ended
    until(lambda: {r["state_type"] for r in runs(place, "forgotten")} == {"COMPLETED"})
    assert runs(place, "forgotten")[0]["id"] == run["id"]
    assert len(runs(place, "forgotten")) == 2


def test_the_stack_has_watched_what_nobody_watches(
    place: Rolling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(care_module, "LOOK_SECONDS", 120)  # the machine may be busy
    care, now = Care(place.project), datetime.now(UTC)
    port = int(place.environment["PREFECT_API_URL"].removesuffix("/api").rpartition(":")[2])
    place.of("undeployed")
    place.versions(2, "undeployed")
    assert list(care.look(port, now)) == []  # there is none
    for model in ("neglected", "undeployed"):
        started(place, model, before=timedelta(minutes=1))
    assert list(care.look(port, now)) == []  # the event may yet come to a run
    said = list(care.look(port, now + timedelta(minutes=2)))
    assert said == [
        "rollout of neglected@2: nobody watches it, a run is started",
        "rollout of undeployed@2: nobody watches it, and no run can be started: "
        "HTTP Error 404: Not Found",
    ]
    until(lambda: last(place, "neglected").state.last is not None)
    # What can't be helped is tried again after 2 minutes, then 4.
    again = [list(care.look(port, now + timedelta(minutes=m))) for m in (3, 4, 7, 8)]
    assert again == [[], said[1:], [], said[1:]]
    begun = place.command("rollout", "neglected", "--detach")
    assert (begun.returncode, len(runs(place, "neglected"))) == (0, 1)
    for model in ("neglected", "undeployed"):
        place.registry.rollouts.command(
            model, "abort", actor="tests", reason="enough", now=datetime.now(UTC)
        )
    until(lambda: runs(place, "neglected")[0]["state_type"] == "COMPLETED")


def test_a_rollout_is_begun_by_hand_and_left_to_a_worker(place: Rolling) -> None:
    api = place.environment["PREFECT_API_URL"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_URL", api)
        done = place.command("rollout", "detached@2", "--reason", "it is time", "--detach")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("detached@2: canary 20 %, step 1 of 2\n")
    with place.traffic(model="detached"):
        until(lambda: last(place, "detached").ended)
    assert last(place, "detached").state.phase == "promoted"
    (run,) = runs(place, "detached")
    actors = [e.actor for e in place.registry.decisions("detached")]
    assert actors[0] == f"flow run {run['id']}"


def test_runs_that_die_one_after_the_other_come_to_an_end(place: Rolling) -> None:
    started(place, "hopeless")
    path = place.root / "models" / "hopeless" / "model.yaml"
    path.write_text(path.read_text().replace("strategy: canary", "strategy: hope"))
    api = place.environment["PREFECT_API_URL"]
    deployment = call("GET", f"{api}/deployments/name/rollout/hopeless")
    dead = {"parameters": {"deaths": 4}}  # as the run that follows four that died
    call("POST", f"{api}/deployments/{deployment['id']}/create_flow_run", dead)
    until(lambda: last(place, "hopeless").ended)
    ended = last(place, "hopeless")
    assert (ended.state.phase, ended.state.reason) == (
        "aborted",
        "6 runs in a row died while they watched it",
    )
    until(lambda: runs(place, "hopeless")[-1]["state_type"] == "COMPLETED")
    found = runs(place, "hopeless")
    assert [run["state_type"] for run in found] == ["FAILED", "FAILED", "COMPLETED"]
    assert [run["parameters"]["deaths"] for run in found] == [4, 5, 6]
