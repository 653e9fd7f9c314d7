"""Rollouts that are ordered by Prefect: carried out while another is watched, refused in words when
they come too late."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from perennial.contracts.rollouts import Rollout
from tests.rolling import MODEL, Rolling, rolling
from tests.waiting import until
from tests.workplace import environment_of


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, own_prefect_server: str) -> Iterator[Rolling]:
    root = tmp_path_factory.mktemp("orders")
    found = rolling(root, {**environment_of(root), "PREFECT_API_URL": own_prefect_server})
    found.edit("bake: 1s", "bake: 35s")
    found.edit("min_requests: 10", "min_requests: 200")
    found.versions(3)
    with found.deployed(lambda each: each["entrypoint"] == "flows.rollout.rollout"):
        yield found


def runs(place: Rolling) -> list[dict[str, Any]]:
    """The runs of the deployment, in the order they were created."""
    asked = {"flows": {"name": {"any_": ["rollout"]}}}
    return sorted(place.ask("flow_runs/filter", asked), key=lambda run: run["created"])


def order(place: Rolling, version: int) -> None:
    place.prefect("deployment", "run", f"rollout/{MODEL}", "--param", f"version={version}")


def left_behind(place: Rolling) -> str:
    """A run that goes on, as far as the server knows, and whose machine is gone."""
    deployment = place.ask(f"deployments/name/rollout/{MODEL}")["id"]
    body = {"state": {"type": "RUNNING", "name": "Running"}}
    made = place.ask(f"deployments/{deployment}/create_flow_run", body)
    assert (made["state_type"], made["start_time"] is not None) == ("RUNNING", True)
    return str(made["id"])


def last(place: Rolling) -> Rollout:
    return place.registry.rollouts.last(MODEL, 1)[0]


def test_an_order_by_prefect_is_carried_out_while_another_rollout_is_watched(
    place: Rolling,
) -> None:
    order(place, 2)
    until(lambda: bool(runs(place)) and runs(place)[0]["state_type"] == "RUNNING")
    until(lambda: place.registry.rollouts.last(MODEL) and last(place).state.last is not None)
    first = last(place)
    place.registry.rollouts.command(  # a person may take for ever
        MODEL, "pause", actor="tests", reason="a holiday", now=datetime.now(UTC)
    )
    order(place, 3)
    until(lambda: last(place).version == 3, 90)
    assert place.registry.rollouts.one(first.id).state.phase == "superseded"
    gone = left_behind(place)
    with place.traffic(versions=(1, 3)):
        until(lambda: last(place).state.step == 1)
    until(lambda: runs(place)[0]["state_type"] == "COMPLETED", 700)  # the younger run goes on
    looked = last(place).revision  # too few requests came to let this step end
    until(lambda: last(place).revision > looked)
    # It leaves its place to nobody who does not look.
    assert (runs(place)[1]["state_type"], last(place).state.step) == ("RUNNING", 1)
    assert [run["id"] for run in runs(place)[2:]] == [gone]
    place.registry.rollouts.command(
        MODEL, "promote", actor="tests", reason="enough", now=datetime.now(UTC)
    )
    until(lambda: runs(place)[1]["state_type"] == "COMPLETED")
    second = last(place)
    assert (second.version, second.state.phase, len(runs(place))) == (3, "promoted", 3)
    assert second.ended_at is not None
    lasted = second.ended_at - second.started_at
    assert second.revision <= lasted.total_seconds() / 0.9 + 4  # looks of both together
    changes = [e for e in place.registry.decisions(MODEL) if e.generation is not None]
    assert [(e.action, e.version) for e in reversed(changes)] == [
        ("promoted", 1), ("rollout began", 2), ("superseded", 2), ("rollout began", 3),
        ("step began", 3), ("promoted", 3),
    ]  # fmt: skip

    order(place, 2)  # as one that a worker was away for, and that 3 has overtaken
    until(lambda: len(runs(place)) > 3 and runs(place)[3]["state_type"] == "FAILED")
    said = runs(place)[3]["state"]["message"]
    assert "demand@2: it is older than the champion, version 3 (perennial rollout demand@2" in said
    assert last(place) == second
