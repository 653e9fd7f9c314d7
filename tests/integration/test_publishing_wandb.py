"""Versions and aliases in the W&B Registry, and offline runs that are uploaded later: against a
server on this machine that answers as W&B's does."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from perennial.contracts.publishing import Publication
from perennial.decisions.publishing import ALIASES
from perennial.learning import wandb_runs
from perennial.learning.tracking import StudyLog, StudyTracker
from perennial.stores.publishing import publish, servers
from perennial.stores.publishing import wandb as destination
from tests.published import MODEL, Shelf, shelf
from tests.waiting import until
from tests.wandb_server import TRIAL, Server, wandb_server

COLLECTION = f"wandb-registry-model/{MODEL}"

KILLED_STUDY = """
import os, signal, sys
from pathlib import Path
from perennial.learning.tracking import StudyTracker

with StudyTracker("small", Path(sys.argv[1])).study("s", {}) as log:
    trial = log.trial(0, "search", {})
    for rounds in range(5, int(sys.argv[2]), 5):
        trial.point(rounds, 0.5, 0.5)
    print("tracked", flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)
"""


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


@contextmanager
def going_on(root: Path, study: str = "s") -> Iterator[StudyLog]:
    """A study whose own run is offline; it ends with the block."""
    with ExitStack() as ending:
        with pytest.MonkeyPatch.context() as offline:
            offline.setenv("WANDB_MODE", "offline")
            log = ending.enter_context(StudyTracker("small", root).study(study, {}))
        yield log
        log.found({"best_value": 0.4})


def track(root: Path, study: str = "s") -> None:
    """A study of one trial, tracked offline to its end."""
    with going_on(root, study) as log, pytest.MonkeyPatch.context() as offline:
        offline.setenv("WANDB_MODE", "offline")
        log.trial(0, "search", TRIAL.params).ended(TRIAL)


def track_and_kill(root: Path, rounds: int, **environment: str) -> None:
    """A study that is killed in its first trial."""
    killed = subprocess.Popen(
        [sys.executable, "-c", KILLED_STUDY, str(root), str(rounds)],
        env={**os.environ, "WANDB_MODE": "offline", **environment},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert killed.stdout is not None
    assert killed.stdout.readline() == "tracked\n"
    if rounds > 1000:
        until(lambda: max(sizes(root)) > 2**15)  # W&B writes when it gets round to it
    killed.communicate("\n")
    assert killed.returncode == -signal.SIGKILL
    time.sleep(1 - time.time() % 1)  # a run begun again within the second has the same folder


def sizes(root: Path) -> list[int]:
    return sorted(log.stat().st_size for log in root.glob("wandb/*/*.wandb"))


def let_an_hour_pass(root: Path) -> None:
    for log in root.glob("wandb/*/*.wandb"):
        os.utime(log, (time.time() - 3700,) * 2)


def settled(root: Path) -> list[str]:
    return sorted(path.read_text() for path in root.glob("wandb/*/settled"))


def nothing_is_left(server: Server, root: Path) -> bool:
    """Whether another upload sends nothing, and doesn't even ask the server."""
    asked = len(server.asked)
    return wandb_runs.sync(root) == wandb_runs.Synced(0, "") and len(server.asked) == asked


def begun(server: Server) -> list[tuple[str, str]]:
    return sorted(
        (given["groupName"], given["displayName"]) for given in server.runs if given["displayName"]
    )


def test_a_study_killed_before_anything_was_written_keeps_no_other_run_from_being_uploaded(
    server: Server, tmp_path: Path
) -> None:
    track_and_kill(tmp_path, rounds=20)
    assert sizes(tmp_path) == [7, 7], "W&B writes in blocks"
    let_an_hour_pass(tmp_path)
    track(tmp_path, "healthy")
    assert wandb_runs.sync(tmp_path) == wandb_runs.Synced(2, "")
    assert begun(server) == [("healthy", "healthy"), ("healthy", "trial 0")]
    assert settled(tmp_path) == ["it ended before anything was written\n"] * 2
    assert nothing_is_left(server, tmp_path)


def test_of_a_killed_run_what_there_is_goes_up_after_an_hour_and_once(
    server: Server, tmp_path: Path
) -> None:
    track_and_kill(tmp_path, rounds=8000)
    assert wandb_runs.sync(tmp_path) == wandb_runs.Synced(0, "")
    (log,) = (log for log in tmp_path.glob("wandb/*/*.wandb") if log.stat().st_size > 7)
    os.truncate(log, log.stat().st_size - 10)  # amid a record, as the end of a block mostly is
    let_an_hour_pass(tmp_path)
    assert wandb_runs.sync(tmp_path) == wandb_runs.Synced(1, "")
    assert begun(server) == [("s", "trial 0")]
    assert any(r'"validation\":0.5' in stream for stream in server.streams)
    assert nothing_is_left(server, tmp_path)


def test_a_killed_run_never_takes_the_place_of_the_one_that_was_begun_again(
    server: Server, tmp_path: Path
) -> None:
    track_and_kill(tmp_path, rounds=8000)
    track(tmp_path)
    assert wandb_runs.sync(tmp_path) == wandb_runs.Synced(2, "")
    let_an_hour_pass(tmp_path)
    told_of = len(server.runs)
    assert wandb_runs.sync(tmp_path) == wandb_runs.Synced(0, "")
    assert len(server.runs) == told_of
    again = [why for why in settled(tmp_path) if why.endswith("is the same run, begun again\n")]
    assert len(again) == 2


def test_a_run_killed_again_before_anything_was_written_leaves_what_the_first_had(
    server: Server, tmp_path: Path
) -> None:
    track_and_kill(tmp_path, rounds=8000)
    let_an_hour_pass(tmp_path)
    track_and_kill(tmp_path, rounds=20)
    assert wandb_runs.sync(tmp_path) == wandb_runs.Synced(0, ""), "it may still be going on"
    assert settled(tmp_path) == []
    let_an_hour_pass(tmp_path)
    assert wandb_runs.sync(tmp_path) == wandb_runs.Synced(1, "")
    assert begun(server) == [("s", "trial 0")]


def test_a_run_begun_again_online_keeps_what_was_killed_offline(
    server: Server, tmp_path: Path
) -> None:
    track_and_kill(tmp_path, rounds=8000)
    let_an_hour_pass(tmp_path)
    with StudyTracker("small", tmp_path).study("s", {}) as log:
        log.trial(0, "search", TRIAL.params).ended(TRIAL)
        log.found({"best_value": 0.4})
    told_of = len(server.runs)
    assert wandb_runs.sync(tmp_path) == wandb_runs.Synced(0, "")
    assert len(server.runs) == told_of


def test_of_a_run_begun_again_the_later_one_counts_though_the_clocks_went_back(
    server: Server, tmp_path: Path
) -> None:
    track_and_kill(tmp_path, rounds=8000, TZ="<+01>-1")  # W&B names folders by local time
    let_an_hour_pass(tmp_path)
    track(tmp_path)
    again = {path.parent.name for path in tmp_path.glob("wandb/*/finished")}
    assert {*sorted(path.name for path in tmp_path.glob("wandb/*run-*"))[:2]} == again
    assert wandb_runs.sync(tmp_path) == wandb_runs.Synced(2, "")
    assert not any(r'"validation\":0.5' in stream for stream in server.streams)


def test_a_run_that_cannot_be_read_costs_itself_only(server: Server, tmp_path: Path) -> None:
    track(tmp_path)
    track(tmp_path, "other")
    broken = min(tmp_path.glob("wandb/*/*.wandb"))
    broken.write_bytes(b"?" * broken.stat().st_size)
    first = wandb_runs.sync(tmp_path)
    assert first.uploaded == 3
    assert first.error.startswith("1 offline runs were not uploaded: ERROR Failed to read")
    assert broken.parent.name in first.error
    later = wandb_runs.sync(tmp_path)
    assert (later.uploaded, later.error) == (0, first.error), "it is told until it is removed"


def test_a_run_without_a_word_for_an_hour_is_not_touched_while_its_process_lives(
    server: Server, tmp_path: Path
) -> None:
    with going_on(tmp_path):
        track(tmp_path, "other")
        until(lambda: sum(size > 7 for size in sizes(tmp_path)) == 2)
        let_an_hour_pass(tmp_path)
        assert wandb_runs.sync(tmp_path) == wandb_runs.Synced(2, "")
        assert ("s", "s") not in begun(server)
    assert settled(tmp_path) == []
    assert wandb_runs.sync(tmp_path) == wandb_runs.Synced(1, "")
    assert ("s", "s") in begun(server)


def test_a_run_taken_for_killed_on_a_disk_without_locks_is_uploaded_when_it_ends(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(45, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with going_on(tmp_path):
        let_an_hour_pass(tmp_path)
        assert wandb_runs.sync(tmp_path) == wandb_runs.Synced(0, "")
        assert settled(tmp_path) == ["it ended before anything was written\n"]
    assert wandb_runs.sync(tmp_path) == wandb_runs.Synced(1, "")
