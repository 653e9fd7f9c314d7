"""Asking a Prefect server, against a small one of our own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.error import HTTPError

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from perennial.cli import prefect_server
from perennial.cli.prefect_server import call, free_port, healthy, is_free, server_environment


@contextmanager
def answering(*codes: int) -> Iterator[tuple[str, list[str]]]:
    """A server that answers with these codes, one a request; yields its address and who asked."""
    left, asked = list(codes), []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Authorization", ""))
            self.send_response(left.pop(0))
            self.end_headers()
            self.wfile.write(b"true")

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_server.time, "sleep", lambda _: None)


def test_a_server_whose_database_is_locked_is_asked_again() -> None:
    with answering(503, 503, 200) as (url, asked):
        assert call("GET", url) is True
        assert len(asked) == 3


def test_a_refusal_is_told_at_once_and_a_locked_database_in_the_end() -> None:
    with answering(404) as (url, asked), pytest.raises(HTTPError, match="404"):
        call("GET", url)
    assert len(asked) == 1
    with answering(*[503] * 5) as (url, asked), pytest.raises(HTTPError, match="503"):
        call("GET", url)
    assert len(asked) == 5


def test_a_server_with_a_password_is_given_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:secret")
    with answering(200) as (url, asked):
        assert call("GET", url) is True
        assert asked == ["Basic YWRtaW46c2VjcmV0"]


def test_a_port_is_free_until_somebody_listens_and_nobody_there_is_not_healthy() -> None:
    port = free_port()
    assert is_free(port)
    assert not healthy(f"http://127.0.0.1:{port}/api")
    with answering(200) as (url, _):
        assert not is_free(int(url.rpartition(":")[2]))
        assert healthy(url)


def test_a_server_keeps_no_connection_to_its_own_file(tmp_path: Path) -> None:
    told = server_environment({}, tmp_path, 1)
    engine = create_engine(told["PREFECT_SERVER_DATABASE_CONNECTION_URL"].replace("+aiosqlite", ""))
    with engine.begin() as connection:
        connection.execute(text("create table t (a integer)"))
    assert isinstance(engine.pool, NullPool)
    assert (tmp_path / "prefect.db").is_file()


@pytest.mark.parametrize("name", ["SERVER_DATABASE_CONNECTION_URL", "API_DATABASE_CONNECTION_URL"])
def test_a_database_that_the_environment_names_is_the_servers(tmp_path: Path, name: str) -> None:
    url = "postgresql+asyncpg://prefect@db.example/prefect"
    told = server_environment({f"PREFECT_{name}": url}, tmp_path, 1)
    assert {k: v for k, v in told.items() if "DATABASE" in k} == {f"PREFECT_{name}": url}
