"""Raw bytes against a real server: headers that are too large, too slow, none, or ask for another
protocol."""

from __future__ import annotations

import asyncio
import json
import re
import resource
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import uvicorn

from perennial.serving import connections
from perennial.serving.connections import Connection

OK = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
Send = Callable[[Any], Awaitable[None]]


async def _app(scope: Any, receive: Any, send: Send) -> None:
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


async def _echo(scope: Any, receive: Any, send: Send) -> None:
    """Says how it was asked, and the body in brackets."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    said = b"<%s %s|%s>" % (scope["method"].encode(), scope["path"].encode(), body)
    headers = [(b"content-length", b"%d" % len(said))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": said})


def _answers(pieces: Sequence[bytes], pause: float = 0.0, app: Any = _app) -> bytes:
    """What a server says to these bytes until it hangs up; raises TimeoutError if it doesn't."""

    async def talk() -> bytes:
        config = uvicorn.Config(
            app, port=0, http=Connection, ws="none", lifespan="off", log_level="critical",
            timeout_keep_alive=0.5, server_header=False,
        )  # fmt: skip
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        heard = b""
        try:
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(pause)
            async with asyncio.timeout(10):
                while piece := await reader.read(2**16):
                    heard += piece
        except ConnectionError:
            pass
        finally:
            writer.close()
            server.should_exit = True
            await serving
        return heard

    return asyncio.run(talk())


def _error(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    error = json.loads(body)["error"]
    assert f"x-request-id: {error['request_id']}".encode() in head
    return int(head.split()[1]), error["code"]


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.2)


def test_requests_one_after_the_other_are_answered_on_one_connection() -> None:
    assert _answers([OK, OK, OK], pause=0.05).count(b"HTTP/1.1 200 OK") == 3


def test_the_server_does_not_name_itself() -> None:
    assert b"server:" not in _answers([OK])


@pytest.mark.parametrize(
    "pieces",
    [[b"GET / HTTP/1.1\r\na: " + b"x" * 40_000], [b"GET /" + b"x" * 40_000],
     [OK, b"GET / HTTP/1.1\r\na: " + b"x" * 40_000]],
)  # fmt: skip
def test_headers_that_are_too_large_are_refused(pieces: list[bytes]) -> None:
    answer = _answers(pieces, pause=0.05)

    assert _error(answer[answer.rindex(b"HTTP/1.1") :]) == (431, "headers_too_large")


def test_a_large_body_is_no_header_even_when_it_is_answered_unread() -> None:
    post = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999\r\n\r\n"

    assert _answers([post, b"x" * 50_000, b"x" * 49_999, OK], 0.05).count(b"200 OK") == 2


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET /\xe9 HTTP/1.1\r\n\r\n", b"{}\r\n\r\n"],
)  # fmt: skip
def test_what_is_not_http_is_told_so(garbage: bytes) -> None:
    assert _error(_answers([garbage])) == (400, "invalid_http")


@pytest.mark.usefixtures("_soon")
@pytest.mark.parametrize(
    "pieces", [[], [b"GET / HT"], [b"GET / HTTP/1.1\r\n", *[b"a: b\r\n"] * 10], [OK, b"GET / HT"]]
)
def test_headers_that_never_end_end_the_connection(pieces: list[bytes]) -> None:
    answer = _answers(pieces, pause=0.06)  # TimeoutError if it stayed open

    assert answer.count(b"HTTP/1.1") == pieces.count(OK)


def test_one_connection_too_many_is_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "most_connections", lambda: 0)

    answer = _answers([])

    assert _error(answer) == (503, "overloaded")
    assert b"\r\nretry-after: 1\r\n" in answer


def test_connections_leave_half_of_the_files_to_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))

    assert connections.most_connections() == 512


@pytest.mark.usefixtures("_soon")
def test_a_connection_that_is_used_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _answers([OK] * 8, pause=0.1).count(b"200 OK") == 8


@pytest.mark.usefixtures("_soon")
def test_an_answer_that_nobody_takes_ends_the_connection_and_one_that_is_taken_slowly_arrives() -> (
    None
):
    size = 12 * 2**20  # more than the kernel's buffers hold

    async def large(scope: Any, receive: Any, send: Send) -> None:
        headers = [(b"content-length", b"%d" % size)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * size})

    async def talk() -> tuple[int, bytes]:
        config = uvicorn.Config(
            large, port=0, http=Connection, ws="none", lifespan="off", log_level="critical"
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        _, deaf = await asyncio.open_connection("127.0.0.1", port, limit=1)
        reader, slow = await asyncio.open_connection("127.0.0.1", port, limit=2**16)
        heard = 0
        try:
            deaf.write(OK)
            slow.write(OK)
            async with asyncio.timeout(60):
                while heard < size:
                    heard += len(await reader.read(2**20))
                    await asyncio.sleep(0.002)
                while len(server.server_state.connections) > 1:
                    await asyncio.sleep(0.01)
            return heard, b"the deaf one is gone"
        finally:
            deaf.transport.abort()
            slow.transport.abort()
            server.should_exit = True
            await serving

    heard, said = asyncio.run(talk())

    assert heard > size
    assert said == b"the deaf one is gone"


H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAA\r\n"
INNER = b"GET /inner HTTP/1.1\r\nhost: x\r\n\r\n"


def _post(headers: bytes, body: bytes = INNER, path: bytes = b"/outer") -> bytes:
    length = b"content-length: %d\r\n" % len(body)
    return b"POST %s HTTP/1.1\r\nhost: x\r\n%s%s\r\n%s" % (path, length, headers, body)


def _said(answer: bytes) -> list[bytes]:
    return re.findall(rb"<.*?>", answer, re.DOTALL)


OUTER_SAID = b"<POST /outer|%s>" % INNER


@pytest.mark.parametrize(
    "asks",
    [H2C, H2C.lower(), H2C.upper(), b"connection: upgrade\r\nupgrade: TLS/1.0\r\nUPGRADE: h2c\r\n",
     b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"],
)  # fmt: skip
def test_a_request_that_asks_for_another_protocol_is_read_as_if_it_did_not(asks: bytes) -> None:
    request = _post(asks)

    assert _said(_answers([request], app=_echo)) == [OUTER_SAID]


@pytest.mark.parametrize("size", [1, 7, 60])
def test_its_body_is_never_taken_for_a_request_however_it_is_cut(size: int) -> None:
    request = _post(H2C)
    pieces = [request[at : at + size] for at in range(0, len(request), size)]

    assert _said(_answers(pieces, pause=0.001, app=_echo)) == [OUTER_SAID]


def test_its_body_may_come_in_chunks_and_after_the_headers() -> None:
    head = b"POST /outer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n%s\r\n" % H2C
    pieces = [head, b"%x\r\n%s\r\n" % (len(INNER), INNER), b"0\r\n\r\n", OK]

    assert _said(_answers(pieces, 0.02, app=_echo)) == [OUTER_SAID, b"<GET /|>"]


def test_requests_before_and_after_it_on_the_same_connection_are_answered_too() -> None:
    asking = OK.replace(b"\r\n\r\n", b"\r\n%s\r\n" % H2C)
    together = b"".join([OK, _post(H2C), OK, asking, asking, _post(b""), OK])

    expected = [b"<GET /|>", OUTER_SAID, *[b"<GET /|>"] * 3, OUTER_SAID, b"<GET /|>"]
    assert _said(_answers([together], app=_echo)) == expected


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
def test_a_connection_that_is_to_be_closed_after_it_is(version: bytes) -> None:
    asks = b"Connection: close, Upgrade\r\nUpgrade: h2c\r\n"
    answer = _answers([_post(asks).replace(b"HTTP/1.1", version, 1)], app=_echo)

    assert _said(answer) == [OUTER_SAID]
    assert b"\r\nconnection: close\r\n" in answer


def test_a_tunnel_is_refused_and_nothing_after_it_is_read() -> None:
    tunnel = b"CONNECT x:443 HTTP/1.1\r\nhost: x:443\r\n%s\r\n" % H2C

    assert _error(_answers([tunnel + OK], app=_echo)) == (400, "invalid_http")


def test_headers_that_are_too_large_are_refused_also_after_another_protocol() -> None:
    answer = _answers([_post(H2C), b"GET / HTTP/1.1\r\na: " + b"x" * 40_000], 0.05, app=_echo)

    assert _said(answer) == [OUTER_SAID]
    assert _error(answer[answer.rindex(b"HTTP/1.1 ") :]) == (431, "headers_too_large")
