"""Who may ask for what."""

from __future__ import annotations

import base64
import hmac
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from perennial.contracts.errors import InputError
from perennial.serving import access as module
from perennial.serving.access import Access, challenge, must_be_loopback, role_for
from perennial.serving.replies import Refusal
from perennial.stores.tokens import Role, add_token, digest, remove_tokens

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.yaml"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _scope(path: str, method: str = "POST", root: str = "") -> dict[str, Any]:
    return {"type": "http", "path": root + path, "method": method, "root_path": root}


def _bearer(token: str) -> dict[bytes, bytes]:
    return {b"authorization": f"Bearer {token}".encode()}


def _basic(token: str) -> dict[bytes, bytes]:
    return {b"authorization": b"Basic " + base64.b64encode(f"me:{token}".encode())}


def _status(access: Access, scope: dict[str, Any], headers: dict[bytes, bytes]) -> int:
    try:
        access.check(scope, headers)
    except Refusal as refusal:
        return refusal.status
    return 200


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("/v2/health/live", None),
        ("/v2/health/ready", None),
        ("/v2", "predict"),
        ("/v2/models/a/infer", "predict"),
        ("/v2/models/a/versions/1/ready", "predict"),
        ("/models", "predict"),
        ("/models/a", "predict"),
        ("/models/labels", "predict"),
        ("/models/a/predict", "predict"),
        ("/models/a/versions/1/predict", "predict"),
        ("/models/a/labels", "label"),
        ("/", "admin"),
        ("/metrics", "admin"),
        ("/docs", "admin"),
        ("/openapi.json", "admin"),
        ("/metrics/", "admin"),
        ("//metrics", "admin"),
        ("", "admin"),
        ("*", "admin"),
        ("/new", "admin"),
        ("/v2x", "admin"),
        ("/modelsx/a", "admin"),
    ],
)
def test_each_path_has_its_role_and_what_is_new_is_closed(path: str, role: Role | None) -> None:
    assert role_for(path) == role


@pytest.mark.parametrize(
    ("roles", "open_paths"),
    [
        (["predict"], {"/models/a/predict", "/models", "/v2/models/a"}),
        (["label"], {"/models/a/labels"}),
        (["label", "predict"], {"/models/a/labels", "/models/a/predict", "/models",
                                "/v2/models/a"}),
        (["admin"], {"/models/a/labels", "/models/a/predict", "/models", "/v2/models/a", "/",
                     "/metrics", "/docs", "/openapi.json"}),
    ],
)  # fmt: skip
def test_a_token_opens_what_its_roles_say_and_nothing_else(
    path: Path, roles: list[Role], open_paths: set[str]
) -> None:
    token = add_token(path, "app", roles, NOW)
    access = Access(path)

    found = {
        asked: _status(access, _scope(asked), _bearer(token))
        for asked in ("/models/a/predict", "/models", "/v2/models/a", "/models/a/labels", "/",
                      "/metrics", "/docs", "/openapi.json")
    }  # fmt: skip

    assert found == {asked: 200 if asked in open_paths else 403 for asked in found}


def test_a_refusal_says_which_role_is_missing(path: Path) -> None:
    token = add_token(path, "app", ["predict", "label"], NOW)

    with pytest.raises(Refusal) as refusal:
        Access(path).check(_scope("/metrics"), _bearer(token))

    assert refusal.value.code == "missing_role"
    assert refusal.value.message == (
        "this needs the role admin; the token of 'app' has predict and label"
    )


def test_the_callers_name_comes_from_the_token(path: Path) -> None:
    add_token(path, "other", ["admin"], NOW)
    token = add_token(path, "app", ["predict"], NOW)

    assert Access(path).check(_scope("/models"), _bearer(token)) == "app"


def test_health_needs_no_token(path: Path) -> None:
    add_token(path, "app", ["predict"], NOW)

    assert Access(path).check(_scope("/v2/health/ready", "GET"), {}) == ""


@pytest.mark.parametrize(
    "value",
    [
        None, "", "Bearer", "Bearer ", "Bearer x", "Token {token}", "{token}", "Bearer{token}",
        "Bearer {token}x", "Bearer {digest}", "Basic {token}", "Basic é", "Basic !!!!",
    ],
)  # fmt: skip
def test_anything_but_a_valid_token_is_401(path: Path, value: str | None) -> None:
    token = add_token(path, "app", ["admin"], NOW)
    headers = {}
    if value is not None:
        text = value.format(token=token, digest=digest(token))
        headers[b"authorization"] = text.encode("latin-1")

    assert _status(Access(path), _scope("/models", "GET"), headers) == 401


def test_the_scheme_is_read_in_any_case(path: Path) -> None:
    token = add_token(path, "app", ["predict"], NOW)

    headers = {b"authorization": f"bEARER   {token}".encode()}

    assert _status(Access(path), _scope("/models"), headers) == 200


def test_a_browser_may_send_the_token_as_a_password_to_read_but_not_to_write(path: Path) -> None:
    token = add_token(path, "me", ["admin"], NOW)
    access = Access(path)

    assert _status(access, _scope("/", "GET"), _basic(token)) == 200
    assert _status(access, _scope("/", "HEAD"), _basic(token)) == 200
    assert _status(access, _scope("/models/a/labels", "POST"), _basic(token)) == 401
    assert _status(access, _scope("/", "GET"), _basic("wrong")) == 401


def test_only_a_page_in_a_browser_is_asked_for_a_password() -> None:
    accepts = {b"accept": b"text/html,application/xhtml+xml"}

    assert challenge(_scope("/models", "GET"), {}) == (
        (b"www-authenticate", b'Bearer realm="perennial"'),
    )
    assert challenge(_scope("/models", "POST"), accepts) == challenge(_scope("/", "GET"), {})
    assert challenge(_scope("/", "GET"), accepts)[1][1].startswith(b"Basic ")


def test_every_entry_is_compared_in_constant_time_also_after_a_match(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = [add_token(path, f"n{i}", ["predict"], NOW) for i in range(5)]
    access = Access(path)
    compared: list[tuple[bytes, bytes]] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return hmac.compare_digest(a, b)

    class Watched:
        compare_digest = staticmethod(compare)

    monkeypatch.setattr(module, "hmac", Watched)
    for given in (tokens[0], tokens[-1], "none of them"):
        compared.clear()
        _status(access, _scope("/models"), _bearer(given))
        assert [a.hex() for a, _ in compared] == [digest(token) for token in tokens]
        assert {b.hex() for _, b in compared} == {digest(given)}


def test_a_token_is_exchanged_without_a_restart(path: Path, clock: Clock) -> None:
    old = add_token(path, "app", ["predict"], NOW)
    access = Access(path, clock)
    new = add_token(path, "app", ["predict"], NOW)

    def seen() -> tuple[int, int]:
        return tuple(_status(access, _scope("/models"), _bearer(t)) for t in (old, new))  # type: ignore[return-value]

    assert seen() == (200, 401)  # looked at a moment ago
    clock.now += 1
    assert seen() == (200, 200)
    remove_tokens(path, "app", digest(old)[:8])
    clock.now += 1
    assert seen() == (401, 200)


def test_the_file_is_looked_at_once_a_second_at_most(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = add_token(path, "app", ["predict"], NOW)
    access = Access(path, clock)
    looks = []
    real = module.stamp
    monkeypatch.setattr(module, "stamp", lambda p: looks.append(p) or real(p))

    for step in range(300):
        clock.now = 100 + step / 100
        access.check(_scope("/models"), _bearer(token))

    assert len(looks) == 2


def test_a_broken_new_file_keeps_the_old_tokens_and_says_so_once(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    token = add_token(path, "app", ["predict"], NOW)
    access = Access(path, clock)
    path.write_text("tokens: [")

    for _ in range(3):
        clock.now += 1
        assert _status(access, _scope("/models"), _bearer(token)) == 200

    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "the tokens read before stay valid" in record.getMessage()
    path.write_text("tokens: []")
    clock.now += 1
    assert _status(access, _scope("/models"), _bearer(token)) == 401


def test_a_file_that_is_gone_keeps_the_tokens_until_it_is_back(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    token = add_token(path, "app", ["predict"], NOW)
    access = Access(path, clock)
    path.unlink()

    for _ in range(3):
        clock.now += 1
        assert _status(access, _scope("/models"), _bearer(token)) == 200
    assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 1

    new = add_token(path, "app", ["predict"], NOW)
    clock.now += 1
    assert _status(access, _scope("/models"), _bearer(token)) == 401
    assert _status(access, _scope("/models"), _bearer(new)) == 200


def test_a_new_file_of_the_same_length_and_time_is_noticed(path: Path, clock: Clock) -> None:
    token = add_token(path, "app", ["predict"], NOW)
    before = path.stat()
    access = Access(path, clock)
    other = path.with_name("other")
    other.write_text(path.read_text().replace(digest(token), digest("x")))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.chmod(0o600)
    other.replace(path)

    clock.now += 1

    assert path.stat().st_size == before.st_size
    assert _status(access, _scope("/models"), _bearer("x")) == 200


def test_behind_a_prefix_roles_are_those_of_the_path_below_it(path: Path) -> None:
    token = add_token(path, "app", ["predict"], NOW)
    access = Access(path)

    assert _status(access, _scope("/models", root="/ml"), _bearer(token)) == 200
    assert _status(access, _scope("/metrics", root="/ml"), _bearer(token)) == 403
    assert _status(access, _scope("/metrics", root="/v2"), _bearer(token)) == 403


def test_a_server_does_not_start_with_a_wrong_file(path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        Access(path)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.9.1", "::1", "localhost", "LOCALHOST", "::ffff:127.0.0.1"]
)
def test_without_tokens_this_machine_alone_is_served(host: str) -> None:
    must_be_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "10.0.0.1", "example.com", "localhost.evil", "::ffff:10.0.0.1"]
)
def test_without_tokens_no_other_machine_is_served(host: str) -> None:
    with pytest.raises(InputError) as error:
        must_be_loopback(host)

    assert error.value.message == (
        f"--host: {host!r} can be reached by others, and there are no tokens to tell them apart "
        "(perennial tokens add NAME --role predict makes one; or serve at 127.0.0.1)"
    )


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LOCALHOST:8080", 200), ("127.0.0.1:8080", 200), ("[::1]:8080", 200),
        ("127.0.0.2:8080", 200), ("[::ffff:127.0.0.1]:8080", 200), ("[::ffff:10.0.0.1]", 403),
        ("10.0.0.1", 403), ("127.1", 403), ("127.0.0.2.evil.example", 403),
        ("evil.example", 403), ("evil.example:8080", 403), ("127.0.0.1.evil.example", 403),
        ("localhost@evil.example", 403), ("evil.example#localhost", 403), ("", 403), ("[", 403),
        ("localhost, evil.example", 403), ("0.0.0.0", 403),
    ],
)  # fmt: skip
def test_without_tokens_a_name_that_was_made_to_point_here_is_refused(
    host: str, status: int
) -> None:
    assert _status(Access(None), _scope("/models", "GET"), {b"host": host.encode()}) == status


@pytest.mark.parametrize(
    ("method", "origin", "status"),
    [
        ("POST", None, 200), ("POST", "http://localhost:8080", 200),
        ("POST", "https://localhost:8080", 200), ("POST", "http://localhost:3000", 403),
        ("POST", "http://evil.example", 403), ("POST", "null", 403), ("DELETE", "null", 403),
        ("GET", "http://evil.example", 200),
    ],
)  # fmt: skip
def test_without_tokens_another_sites_page_can_send_nothing(
    method: str, origin: str | None, status: int
) -> None:
    headers = {b"host": b"localhost:8080"}
    if origin is not None:
        headers[b"origin"] = origin.encode()

    assert _status(Access(None), _scope("/models/a/labels", method), headers) == status


def test_a_mounted_secret_is_followed_when_its_link_points_elsewhere(
    tmp_path: Path, clock: Clock
) -> None:
    old = add_token(tmp_path / "1" / "tokens.yaml", "app", ["predict"], NOW)
    new = add_token(tmp_path / "2" / "tokens.yaml", "app", ["predict"], NOW)
    link = tmp_path / "data"
    link.symlink_to("1")
    access = Access(link / "tokens.yaml", clock)

    (tmp_path / "next").symlink_to("2")
    (tmp_path / "next").replace(link)
    clock.now += 1

    assert _status(access, _scope("/models"), _bearer(new)) == 200
    assert _status(access, _scope("/models"), _bearer(old)) == 401
