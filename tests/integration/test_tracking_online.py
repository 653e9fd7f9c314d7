"""Tracking online, against a server on this machine that answers as W&B's does."""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from perennial.learning import wandb_runs
from perennial.learning.studies import TrialRecord
from perennial.learning.tracking import StudyTracker

RECORD = TrialRecord(
    0, "search", {"max_depth": 4}, "complete", 0.4, 7, {7: 0.4}, "", "", {"speed": 1.0}, 0.5
)


@dataclass
class Server:
    """What it was asked, and whether it still answers."""

    url: str = ""
    runs: list[dict[str, Any]] = field(default_factory=list)
    uploads: dict[str, str] = field(default_factory=dict)
    streams: list[str] = field(default_factory=list)
    silent: threading.Event = field(default_factory=threading.Event)
    closed: threading.Event = field(default_factory=threading.Event)

    def answer(self, path: str, body: str) -> dict[str, Any]:
        if self.silent.is_set():
            self.closed.wait()
        if path.startswith("/upload/"):
            self.uploads[path.removeprefix("/upload/")] = body
        elif path.endswith("/file_stream"):
            self.streams.append(body)
        elif path.startswith("/graphql"):
            request = json.loads(body)
            match = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
            return {"data": self.data(match[1] if match else "", request.get("variables") or {})}
        return {}

    def data(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        if operation == "UpsertBucket":
            self.runs.append(given)
            project = {"id": "p", "name": given["project"], "entity": {"id": "e", "name": "me"}}
            bucket = {"id": "b", "name": given["name"], "config": "{}", "project": project}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if operation == "CreateRunFiles":
            files = [
                {"name": name, "uploadUrl": f"{self.url}/upload/{given['run']}/{name}"}
                for name in given["files"]
            ]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        return {}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    found = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            answer = json.dumps(found.answer(self.path, body.decode())).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PUT = handle_any  # noqa: N815  # the names are the base class's

        def log_message(self, *_: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            pass  # a client that gave up

    with Quiet(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        found.url = f"http://127.0.0.1:{http.server_port}"
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", found.url)
        try:
            yield found
        finally:
            found.closed.set()
            http.shutdown()


def test_with_a_key_runs_reach_the_server_and_nothing_of_the_machine_does(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with StudyTracker("small", tmp_path, links={"flow_run": "8c1d"}).study("s", {"a": 1}) as log:
        trial = log.trial(0, "search", RECORD.params)
        for rounds in range(1, 8):
            trial.point(rounds, 1 / rounds, 1 / rounds)
        trial.ended(RECORD)
        log.ended(RECORD, 0.4)
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
        log.trial(0, "search", {}).ended(RECORD)
        server.silent.set()
        for number in (1, 2, 3):
            log.trial(number, "search", {}).ended(RECORD)
    assert set(log.places) == {"study", "trial 0"}
    told = [record.message for record in caplog.records if record.name.startswith("perennial")]
    assert len(told) == 1
    assert told[0].startswith("tracking in W&B ended, the work goes on: CommError: Timed out")
