"""Versions and aliases in the W&B Registry, and offline runs that are uploaded later: against a
server on this machine that answers as W&B's does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from perennial.contracts.publishing import Publication
from perennial.decisions.publishing import ALIASES
from perennial.learning import wandb_runs
from perennial.learning.tracking import StudyTracker
from perennial.stores.publishing import publish, servers
from perennial.stores.publishing import wandb as destination
from tests.published import MODEL, Shelf, shelf
from tests.wandb_server import TRIAL, Server, wandb_server

COLLECTION = f"wandb-registry-model/{MODEL}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("PERENNIAL_MLFLOW_URI", raising=False)
    with wandb_server(monkeypatch) as found:
        yield found


@pytest.fixture
def shelved(server: Server, tmp_path: Path) -> Iterator[Shelf]:  # its environment
    (tmp_path / "models").mkdir()
    with shelf(tmp_path) as found:
        yield found


def told(shelved: Shelf) -> Publication:
    (found,) = servers(shelved.project)
    return publish(found, shelved.registry, MODEL)


def aliases(server: Server) -> dict[str, int]:
    """alias → the number of the version it is at."""
    return {
        alias: json.loads(server.artifacts[at].metadata)["version"]
        for (collection, alias), at in server.aliases.items()
        if collection == COLLECTION
    }


def test_a_bundle_is_a_model_artifact_linked_to_the_registry(
    shelved: Shelf, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    ref = shelved.add(1)
    shelved.route(1)
    done = told(shelved)
    assert (done.versions, done.aliases, done.error) == ((1,), {"champion": 1}, "")

    (artifact,) = server.artifacts.values()
    assert artifact.committed
    assert server.links == {COLLECTION: [artifact.id]}
    about = json.loads(artifact.metadata)
    assert (about["digest"], about["version"], about["model"]) == (ref.digest, 1, MODEL)
    assert about["links"]["prefect_flow_run_url"] == "http://prefect/runs/1"
    sent = {name.partition("/")[2] for name in server.uploads if name.startswith(artifact.id)}
    files = {path.name for path in Path(ref.uri).iterdir()}
    assert sent == {*files, "wandb_manifest.json"}
    (run,) = {given["displayName"] for given in server.runs if given["displayName"]}
    assert run == f"{MODEL}@1"
    assert capfd.readouterr() == ("", "")


def test_twice_does_nothing_twice_and_aliases_follow_the_route(
    shelved: Shelf, server: Server
) -> None:
    for number in (1, 2):
        shelved.add(number)
    shelved.route(1, challenger=2)
    assert told(shelved).moved == ALIASES
    assert aliases(server) == {"champion": 1, "challenger": 2}
    before = len(server.asked)
    again = told(shelved)
    assert (again.versions, again.moved) == ((), ())
    changing = {"CreateArtifact", "LinkArtifact", "AddAliases", "DeleteAliases", "UpsertBucket"}
    assert not changing & {*server.asked[before:]}

    server.aliases[COLLECTION, "mine"] = server.links[COLLECTION][0]
    shelved.route(2)
    assert told(shelved).moved == ALIASES
    assert aliases(server) == {"champion": 2, "mine": 1}


@pytest.mark.parametrize("operation", ["CommitArtifact", "LinkArtifact"])
def test_a_server_that_falls_silent_in_the_middle_is_left_and_caught_up_with(
    operation: str, shelved: Shelf, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelved.add(1)
    shelved.route(1)
    server.dying_at = operation
    with monkeypatch.context() as hurried:
        hurried.setattr(wandb_runs, "ANSWER_SECONDS", 5)
        hurried.setattr(destination, "UPLOAD_SECONDS", 5)
        failed = told(shelved)
    assert failed.versions == ()
    assert failed.error.startswith(f"W&B at {server.url} failed: ")

    server.dying_at = ""
    server.silent.clear()
    assert told(shelved).error == ""
    assert len(server.artifacts) == len(server.links[COLLECTION]) == 1
    assert aliases(server) == {"champion": 1}


def test_nothing_is_published_while_wandb_is_offline(
    shelved: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert servers(shelved.project) == []


def test_runs_tracked_offline_are_uploaded_later_and_once(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as offline:
        offline.setenv("WANDB_MODE", "offline")
        with StudyTracker("small", tmp_path).study("s", {"a": 1}) as log:
            trial = log.trial(0, "search", TRIAL.params)
            trial.point(1, 0.5, 0.5)
            trial.ended(TRIAL)
            offline.setenv("WANDB_MODE", "online")
            first = wandb_runs.sync(tmp_path)
            offline.setenv("WANDB_MODE", "offline")
            log.found({"best_value": 0.4})
    assert (first.uploaded, first.error) == (1, ""), "the study's own run still goes on"
    second = wandb_runs.sync(tmp_path)
    assert (second.uploaded, second.error) == (1, "")
    asked = len(server.asked)
    assert wandb_runs.sync(tmp_path).uploaded == 0
    assert len(server.asked) == asked
    begun = [given for given in server.runs if given["displayName"]]
    assert {(given["displayName"], given["groupName"]) for given in begun} == {
        ("s", "s"),
        ("trial 0", "s"),
    }


def test_a_silent_server_leaves_offline_runs_for_later(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_runs, "ANSWER_SECONDS", 5)
    with monkeypatch.context() as offline:
        offline.setenv("WANDB_MODE", "offline")
        with StudyTracker("small", tmp_path).study("s", {}) as log:
            log.found({"best_value": 0.4})
    server.silent.set()
    left = wandb_runs.sync(tmp_path)
    assert left.uploaded == 0
    assert left.error.startswith("1 offline runs were not uploaded: Failed to verify credentials")
