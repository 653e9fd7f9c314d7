"""Asking a Prefect server that is not there, or not what it should be."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from deployments.__main__ import main
from deployments.destinations import WEBHOOK
from deployments.server import asking
from perennial.cli.prefect_server import free_port
from perennial.contracts.errors import UnavailableError
from perennial.spec.deployment import prefect_yaml


@contextmanager
def answering(code: int, body: bytes) -> Iterator[str]:
    """A server that always gives this answer; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def said(url: str | None, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}):
        code = main(arguments)
    printed = capsys.readouterr()
    assert printed.out == ""
    return code, printed.err.strip()


def test_without_a_server_none_is_started(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(None, capsys) == (
        2,
        "PREFECT_API_URL: not set, and no Prefect server known (perennial up starts one; else "
        "export PREFECT_API_URL=http://HOST:4200/api)",
    )


@pytest.mark.parametrize("url", ["prefect:4200", "ftp://prefect/api", "http://", "http://a:b/api"])
def test_what_is_no_address_is_told(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, message = said(url, capsys)
    assert code == 2
    assert message.startswith("PREFECT_API_URL: not an address (")


def test_a_server_that_does_not_answer_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    place = f"127.0.0.1:{free_port()}/api"
    assert said(f"http://me:verysecret@{place}", capsys) == (
        1,
        f"http://{place}: the Prefect server does not answer (start it, or name another)",
    )


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (
            401, b"", 2,
            "the login is refused (401) (PREFECT_API_KEY is for Prefect Cloud, "
            "PREFECT_API_AUTH_STRING for a server of your own)",
        ),
        (
            403, b"", 2,
            "the login is refused (403) (PREFECT_API_KEY is for Prefect Cloud, "
            "PREFECT_API_AUTH_STRING for a server of your own)",
        ),
        (404, b"", 2, "no Prefect API here (PREFECT_API_URL usually ends in /api)"),
        (200, b"<html>", 2, "no Prefect API here (PREFECT_API_URL usually ends in /api)"),
        (500, b"boom", 1, "the Prefect server fails (500); look at its log"),
    ],
)  # fmt: skip
def test_a_server_that_refuses_is_told_in_one_line(
    status: int, body: bytes, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(status, body) as url:
        assert said(url, capsys) == (code, f"{url}: {message}")


def test_wrong_variables_are_told_before_anything_is_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WEBHOOK, "verysecret")
    code, message = said(f"http://127.0.0.1:{free_port()}/api", capsys)
    assert code == 2
    assert message == f"{WEBHOOK}: not an address (it begins with http:// or https://)"


@pytest.mark.parametrize(
    "left", ["", "deployments: 3", "deployments: [{name: x}]", "deployments: [", "- deployments"]
)
def test_a_prefect_yaml_that_was_cut_is_told_and_nothing_is_compared(
    left: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PERENNIAL_PROJECT", str(tmp_path))
    path = tmp_path / "prefect.yaml"
    path.write_text(prefect_yaml([]).partition("\n")[0] + f"\n{left}\n")
    assert said(f"http://127.0.0.1:{free_port()}/api", capsys, "--check") == (
        2,
        f"{path}: holds no deployments that can be read any more "
        "(perennial check --write writes it anew)",
    )


def test_two_who_set_up_at_once_are_told_to_call_again() -> None:
    there = WorkPoolCreate(name="perennial", type="process", base_job_template={})
    with (
        answering(409, b'{"detail": "already exists"}') as url,
        temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}),
        pytest.raises(UnavailableError) as told,
        asking() as client,
    ):
        client.create_work_pool(there)
    assert told.value.message == (
        f"{url}: somebody else sets it up at the same time; call perennial setup again"
    )
