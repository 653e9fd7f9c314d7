"""What stands in front of every endpoint."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from perennial.serving.access import Access
from perennial.serving.hardening import Guard, incoming
from perennial.serving.replies import Receive, Refusal, Reply, Scope, Send
from perennial.serving.requests import ClientGoneError
from perennial.stores.tokens import add_token

LOCAL = {b"host": b"localhost"}


class Asked:
    """What came of one request."""

    def __init__(self, messages: list[dict[str, Any]], refused: list[int]) -> None:
        self.refused = refused
        self.answered = bool(messages)
        if messages:
            self.status = messages[0]["status"]
            self.all_headers = [(n.decode(), v.decode()) for n, v in messages[0]["headers"]]
            self.headers = dict(self.all_headers)
            self.body = messages[1]["body"] if len(messages) > 1 else b""


def _ask(
    app: Any,
    access: Access | None = None,
    *,
    path: str = "/models",
    method: str = "GET",
    headers: dict[bytes, bytes] = LOCAL,
) -> Asked:
    messages: list[dict[str, Any]] = []
    refused: list[int] = []

    async def send(message: Any) -> None:
        messages.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    scope = {"type": "http", "path": path, "method": method, "headers": list(headers.items())}
    asyncio.run(Guard(app, access or Access(None), refused.append)(scope, receive, send))
    return Asked(messages, refused)


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    found = incoming(scope)
    await Reply.json({"id": found.id, "caller": found.caller}).send(send, found.id)


async def _page(scope: Scope, receive: Receive, send: Send) -> None:
    await Reply(b"<p>", kind=b"text/html; charset=utf-8").send(send, incoming(scope).id)


def _raising(error: Exception) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    return app


def test_the_app_learns_the_id_and_the_caller(tmp_path: Path) -> None:
    token = add_token(tmp_path / "t", "app", ["predict"], datetime(2026, 1, 1, tzinfo=UTC))
    headers = {b"authorization": f"Bearer {token}".encode(), b"x-request-id": b"mine"}

    asked = _ask(_echo, Access(tmp_path / "t"), headers=headers)

    assert json.loads(asked.body) == {"id": "mine", "caller": "app"}
    assert asked.headers["x-request-id"] == "mine"


def test_answers_are_not_sniffed_and_reading_ones_not_stored() -> None:
    read, written = _ask(_echo), _ask(_echo, method="POST")

    assert read.headers["x-content-type-options"] == "nosniff"
    assert read.headers["cache-control"] == "no-store"
    assert written.headers["x-content-type-options"] == "nosniff"
    assert "content-security-policy" not in read.headers


def test_a_page_runs_no_script_and_is_framed_by_nobody() -> None:
    asked = _ask(_page, path="/")

    assert asked.headers["content-security-policy"] == (
        "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    assert asked.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/models", {"error": {"code": "no_token", "problems": [], "request_id": "mine",
                     "message": "send a token: 'Authorization: Bearer <token>'"}}),
        ("/v2", {"error": "send a token: 'Authorization: Bearer <token>' [request mine]"}),
    ],
)  # fmt: skip
def test_who_has_no_token_is_told_in_the_protocols_form(
    tmp_path: Path, path: str, expected: dict[str, Any]
) -> None:
    add_token(tmp_path / "t", "app", ["predict"], datetime(2026, 1, 1, tzinfo=UTC))

    asked = _ask(_echo, Access(tmp_path / "t"), path=path, headers={b"x-request-id": b"mine"})

    assert (asked.status, asked.refused) == (401, [401])
    assert json.loads(asked.body) == expected
    assert asked.headers["www-authenticate"] == 'Bearer realm="perennial"'


def test_an_error_of_ours_tells_nothing_but_its_id(caplog: pytest.LogCaptureFixture) -> None:
    asked = _ask(_raising(RuntimeError("/secret/path: password")))

    error = json.loads(asked.body)["error"]
    assert (asked.status, asked.refused, error["code"]) == (500, [500], "internal")
    assert "secret" not in asked.body.decode()
    assert error["request_id"] == asked.headers["x-request-id"]
    (record,) = caplog.records
    assert (record.levelname, record.__dict__["request_id"]) == ("ERROR", error["request_id"])


def test_a_refusal_of_the_app_is_its_answer() -> None:
    asked = _ask(_raising(Refusal(503, "overloaded", "come back", retry_after=3)))

    assert (asked.status, asked.headers["retry-after"]) == (503, "3")


@pytest.mark.parametrize("status", [408, 413])
def test_after_a_body_that_was_not_read_the_connection_ends(status: int) -> None:
    assert _ask(_raising(Refusal(status, "x", "x"))).headers["connection"] == "close"


def test_nobody_is_answered_who_has_hung_up() -> None:
    assert not _ask(_raising(ClientGoneError())).answered


def test_an_answer_that_has_begun_is_not_begun_again(caplog: pytest.LogCaptureFixture) -> None:
    async def breaks_off(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("in the middle")

    asked = _ask(breaks_off)

    assert (asked.status, asked.body) == (200, b"")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
