"""A server with tokens, and one without, as clients and browsers meet them."""

from __future__ import annotations

import base64
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from perennial.serving.access import role_for
from perennial.serving.app import _routes  # the table of all paths: there must be no other
from perennial.stores.tokens import FILE_NAME, ROLES, add_token, digest, remove_tokens
from tests.fuzz.served import NOW, ROW, Server, make_project, serving

LABEL = {"label": "yes", "prediction_id": "x"}
PATHS: dict[str, tuple[str, Any]] = {
    "/models/parcels/predict": ("POST", ROW),
    "/models/parcels/versions/1/predict": ("POST", ROW),
    "/v2/models/parcels": ("GET", None),
    "/models": ("GET", None),
    "/models/parcels/labels": ("POST", LABEL),
    "/": ("GET", None),
    "/metrics": ("GET", None),
    "/docs": ("GET", None),
    "/openapi.json": ("GET", None),
    "/no/such/path": ("GET", None),
}
OPEN = {"/v2/health/live", "/v2/health/ready"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("secured")
    make_project(root)
    return root


@pytest.fixture(scope="module")
def tokens(root: Path) -> Path:
    return root / ".perennial" / FILE_NAME


@pytest.fixture(scope="module")
def holders(tokens: Path) -> dict[str, str]:
    return {role: add_token(tokens, f"the-{role}", [role], NOW) for role in ROLES}


@pytest.fixture(scope="module")
def secured(root: Path, tokens: Path, holders: dict[str, str]) -> Iterator[Server]:
    admin = ("authorization", f"Bearer {holders['admin']}")
    assert tokens.exists()  # so that the server asks for them, without being told to
    with serving(root, "--host", "0.0.0.0", headers=[admin]) as running:
        yield running
        running.is_well()


def test_that_nothing_is_encrypted_is_told_where_others_can_listen(secured: Server) -> None:
    warnings = [
        line for line in secured.log.read_text().splitlines() if '"level":"warning"' in line
    ]
    assert "no TLS at an address that others reach" in warnings[0]


def _ask(server: Server, path: str, token: str | None) -> int:
    method, body = PATHS.get(path, ("GET", None))
    headers = {"authorization": f"Bearer {token}" if token else ""}
    return server.ask(method, path, json=body, headers=headers).status_code


@pytest.mark.parametrize(
    ("role", "opened"),
    [
        ("predict", {"/models/parcels/predict", "/models/parcels/versions/1/predict",
                     "/v2/models/parcels", "/models"}),
        ("label", {"/models/parcels/labels"}),
        ("admin", set(PATHS) - {"/no/such/path"}),
    ],
)  # fmt: skip
def test_each_role_opens_its_own_paths(
    secured: Server, holders: dict[str, str], role: str, opened: set[str]
) -> None:
    found = {path: _ask(secured, path, holders[role]) for path in PATHS}

    closed = 404 if role == "admin" else 403
    assert found == {path: 200 if path in opened else closed for path in PATHS}


def test_without_a_token_only_health_is_told(secured: Server) -> None:
    assert {_ask(secured, path, None) for path in PATHS} == {401}
    assert {_ask(secured, path, None) for path in OPEN} == {200}


def test_a_browser_is_asked_for_the_token_as_a_password(
    secured: Server, holders: dict[str, str]
) -> None:
    page = {"accept": "text/html"}
    asked = secured.ask("GET", "/", headers={**page, "authorization": ""})
    password = base64.b64encode(f"anybody:{holders['admin']}".encode()).decode()
    shown = secured.ask("GET", "/", headers={**page, "authorization": f"Basic {password}"})

    assert asked.status_code == 401
    assert 'Basic realm="perennial"' in asked.headers["www-authenticate"]
    assert shown.status_code == 200
    assert "default-src 'none'" in shown.headers["content-security-policy"]


def test_tokens_are_exchanged_while_the_server_runs(secured: Server, tokens: Path) -> None:
    old = add_token(tokens, "rotating", ["predict"], NOW)
    _until(secured, old, 200)
    new = add_token(tokens, "rotating", ["predict"], NOW)
    _until(secured, new, 200)
    assert _ask(secured, "/models", old) == 200

    remove_tokens(tokens, "rotating", digest(old)[:8])

    _until(secured, old, 401)
    assert _ask(secured, "/models", new) == 200


def test_a_broken_file_of_tokens_locks_nobody_out(
    secured: Server, tokens: Path, holders: dict[str, str]
) -> None:
    right = tokens.read_text()
    tokens.write_text("tokens: [")
    try:
        deadline = time.monotonic() + 240
        while "the tokens read before stay valid" not in secured.log.read_text():
            assert time.monotonic() < deadline
            assert _ask(secured, "/models", holders["predict"]) == 200
            time.sleep(0.1)
        assert _ask(secured, "/models", holders["predict"]) == 200
    finally:
        tokens.write_text(right)


def test_no_token_is_in_the_log_or_in_an_answer(secured: Server, holders: dict[str, str]) -> None:
    for path, (method, body) in PATHS.items():
        for token in holders.values():
            headers = {"authorization": f"Bearer {token}"}
            assert token not in secured.ask(method, path, json=body, headers=headers).text

    log = secured.log.read_text()
    assert all(token not in log for token in holders.values())


def test_every_path_of_the_service_has_its_role() -> None:
    class Anything:
        def __getattr__(self, name: str) -> Anything:
            return self

    paths = {route.path for route in _routes(Anything(), None)}  # type: ignore[arg-type]

    assert {path for path in paths if role_for(path) is None} == OPEN
    assert {path for path in paths if role_for(path) == "label"} == {"/models/{name}/labels"}
    assert {path for path in paths if role_for(path) == "admin"} == {
        "/", "/metrics", "/docs", "/openapi.json",
    }  # fmt: skip


def test_without_tokens_other_machines_are_not_served(tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("perennial"), "--project", tmp_path, "serve"]

    done = subprocess.run(
        [*command, "--host", "0.0.0.0"], capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 2
    assert done.stderr.startswith("--host: '0.0.0.0' can be reached by others")


def test_without_tokens_another_sites_page_is_refused(server: Server) -> None:
    by_name = server.ask("GET", "/models", headers={"host": "evil.example"})
    by_form = server.ask(
        "POST", "/models/parcels/labels", json=LABEL, headers={"origin": "http://evil.example"}
    )
    own = server.ask("POST", "/models/parcels/predict", json=ROW, headers={"origin": server.url})

    assert (by_name.status_code, by_name.json()["error"]["code"]) == (403, "wrong_host")
    assert (by_form.status_code, by_form.json()["error"]["code"]) == (403, "cross_site")
    assert own.status_code == 200


def test_a_body_that_is_too_large_is_answered_though_it_is_still_being_sent(
    server: Server,
) -> None:
    large = b"[" + b" " * (17 * 2**20) + b"]"

    told = server.ask("POST", "/models/parcels/predict", content=large)
    pieces = (large[i : i + 2**20] for i in range(0, len(large), 2**20))
    streamed = server.ask("POST", "/models/parcels/predict", content=pieces)

    for answer in (told, streamed):
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
        assert answer.headers["connection"] == "close"


def test_clients_that_stop_halfway_leave_nothing_behind(server: Server) -> None:
    address = urlsplit(server.url)
    head = (
        b"POST /models/parcels/predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 500\r\n\r\n"
    )
    sockets = [socket.create_connection((address.hostname, address.port)) for _ in range(100)]
    for place, client in enumerate(sockets):
        with closing(client):
            client.sendall((head + b"{" * 200)[: place * 3])

    server.is_well()


def _until(server: Server, token: str, status: int) -> None:
    deadline = time.monotonic() + 240
    while _ask(server, "/models", token) != status:
        assert time.monotonic() < deadline
        time.sleep(0.1)
