"""Which rollouts the stack has watched and what it says, by a Prefect server of three answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from perennial.cli.stack.care import Care
from perennial.stores.rolling_out import begin
from tests.rolling import MODEL, Rolling, rolling
from tests.workplace import environment_of

BEGUN = f"rollout of {MODEL}@2: nobody watches it, a run is started"
UNASKED = (
    f"rollout of {MODEL}@2: it can't be asked who watches it: HTTP Error 503: Service Unavailable"
)


class Server(ThreadingHTTPServer):
    """Knows whether a run goes on and since when, unless it is away; and what was started."""

    away = False
    watched = False
    since = datetime.now(UTC) - timedelta(days=1)
    started = 0

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class Answers(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.away:
            self.tell(503, {})
        elif self.path == "/api/flow_runs/filter":
            state = {"type": "RUNNING", "timestamp": self.server.since.isoformat()}
            self.tell(200, [{"id": "1", "state": state}] if self.server.watched else [])
        else:
            assert self.path == "/api/deployments/d/create_flow_run"
            self.server.started += 1
            self.tell(201, {})

    def do_GET(self) -> None:
        assert self.path == f"/api/deployments/name/rollout/{MODEL}"
        self.tell(200, {"id": "d"})

    def tell(self, status: int, found: object) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Answers) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def place(tmp_path: Path) -> Rolling:
    """With a rollout that nothing happens to: it is paused."""
    found, at = rolling(tmp_path, environment_of(tmp_path)), datetime.now(UTC) - timedelta(hours=1)
    found.versions(2)
    begin(
        found.project, found.registry, MODEL, 2, {}, actor="tests", reason="better",
        cause="judged", force=False, now=at,
    )  # fmt: skip
    found.registry.rollouts.command(MODEL, "pause", actor="tests", reason="a holiday", now=at)
    return found


def test_a_server_that_cannot_be_asked_is_told_of_once_and_delays_nothing(
    place: Rolling, server: Server
) -> None:
    care, now = Care(place.project), datetime.now(UTC)
    server.away = True
    assert [list(care.look(server.port, now)) for _ in range(3)] == [[UNASKED], [], []]
    server.away = False
    assert list(care.look(server.port, now)) == [BEGUN]
    server.away, later = True, now + timedelta(minutes=3)
    assert list(care.look(server.port, later)) == [UNASKED]
    assert server.started == 1


def test_the_next_try_waits_no_longer_once_somebody_has_watched(
    place: Rolling, server: Server
) -> None:
    care, now = Care(place.project), datetime.now(UTC)
    for days in range(4):
        then = now + timedelta(days=days)
        server.watched = False
        assert list(care.look(server.port, then)) == [BEGUN]
        assert list(care.look(server.port, then + timedelta(minutes=1))) == []
        assert list(care.look(server.port, then + timedelta(minutes=3))) == [BEGUN]
        server.watched = True
        assert list(care.look(server.port, then + timedelta(minutes=9))) == []
    assert server.started == 8


def test_a_run_that_looks_no_more_does_not_count_while_a_step_runs(
    place: Rolling, server: Server
) -> None:
    care, now = Care(place.project), datetime.now(UTC)
    server.watched = True
    assert list(care.look(server.port, now)) == []  # what is paused may be silent for ever
    place.registry.rollouts.command(
        MODEL, "resume", actor="tests", reason="it is over", now=now - timedelta(minutes=11)
    )
    assert list(care.look(server.port, now)) == [BEGUN]
    server.since = now  # the run that was started: it has time to look
    assert list(care.look(server.port, now + timedelta(minutes=5))) == []
    assert server.started == 1


def test_rollouts_of_another_project_at_the_same_registry_are_left_to_it(
    place: Rolling, server: Server
) -> None:
    care, now = Care(place.project), datetime.now(UTC)
    path = place.model / "model.yaml"
    text = path.read_text()
    path.write_text(text.replace(f"name: {MODEL}", "name: another"))
    assert list(care.look(server.port, now)) == []
    path.write_text("name: [")  # it may be this one
    assert list(care.look(server.port, now)) == [BEGUN]
