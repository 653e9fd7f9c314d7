"""Tracking online, against a server on this machine that answers as W&B's does."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from perennial.learning import wandb_runs
from perennial.learning.tracking import StudyTracker
from tests.wandb_server import TRIAL, Server, wandb_server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with wandb_server(monkeypatch) as found:
        yield found


def test_with_a_key_runs_reach_the_server_and_nothing_of_the_machine_does(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with StudyTracker("small", tmp_path, links={"flow_run": "8c1d"}).study("s", {"a": 1}) as log:
        trial = log.trial(0, "search", TRIAL.params)
        for rounds in range(1, 8):
            trial.point(rounds, 1 / rounds, 1 / rounds)
        trial.ended(TRIAL)
        log.ended(TRIAL, 0.4)
        log.found({"best_value": 0.4})
    study, run = (log.places[name].removeprefix(server.url) for name in ("study", "trial 0"))
    assert study.startswith("/me/perennial-small/runs/")
    identity = run.removeprefix("/me/perennial-small/runs/")

    begun = [given for given in server.runs if given["displayName"]]
    assert {(given["displayName"], given["groupName"]) for given in begun} == {
        ("s", "s"),
        ("trial 0", "s"),
    }
    for given in server.runs:
        for secret in ("host", "program", "repo", "commit"):
            assert not given[secret]
    config, summary = (
        server.uploads[f"{identity}/{name}"] for name in ("config.yaml", "wandb-summary.json")
    )
    assert "flow_run: 8c1d" in config
    assert json.loads(summary)["state"] == "complete"
    assert {name.rpartition("/")[2] for name in server.uploads} == {
        "config.yaml",
        "wandb-summary.json",
    }
    sent = "".join(server.streams) + "".join(server.uploads.values()) + str(server.runs)
    assert r"\"validation\":0.2" in sent
    for secret in (socket.gethostname(), str(Path.cwd())):
        assert f'"{secret}' not in sent
    assert capfd.readouterr() == ("", "")


def test_a_server_that_falls_silent_ends_the_tracking_and_not_the_work(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(wandb_runs, "ANSWER_SECONDS", 2)
    with StudyTracker("small", tmp_path).study("s", {}) as log:
        log.trial(0, "search", {}).ended(TRIAL)
        server.silent.set()
        for number in (1, 2, 3):
            log.trial(number, "search", {}).ended(TRIAL)
    assert set(log.places) == {"study", "trial 0"}
    told = [record.message for record in caplog.records if record.name.startswith("perennial")]
    assert len(told) == 1
    assert told[0].startswith("tracking in W&B ended, the work goes on: CommError: Timed out")
