"""The way that breaks does what it says, and nothing while nothing is to go wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from tests.faults.proxy import HALF_BYTES, Proxy, to_port

BODY = b"all is well " * 1000


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def way() -> Iterator[Proxy]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    proxy = Proxy(to_port(lambda: server.server_port))
    try:
        yield proxy
    finally:
        proxy.close()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def client(way: Proxy) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{way.port}", timeout=60) as client:
        assert client.get("/").content == BODY
        yield client


def test_a_cut_resets_who_is_connected_and_who_comes(way: Proxy, client: httpx.Client) -> None:
    way.set("cut")
    for _ in range(3):
        with pytest.raises(httpx.TransportError):
            client.get("/")
    way.set("pass")
    assert client.get("/").content == BODY


def test_a_busy_store_says_so_without_being_asked(way: Proxy, client: httpx.Client) -> None:
    way.set("busy")
    with suppress(httpx.TransportError):  # what was connected is reset, at once or when it is used
        client.get("/")
    answer = client.put("/x", content=b"1234")
    assert (answer.status_code, b"SlowDown" in answer.content) == (503, True)


def test_half_an_answer_is_no_answer(way: Proxy, client: httpx.Client) -> None:
    assert len(BODY) > HALF_BYTES
    way.set("half")
    for _ in range(3):
        with pytest.raises(httpx.TransportError):
            client.get("/")


def test_what_hangs_goes_on_when_it_is_over(way: Proxy, client: httpx.Client) -> None:
    way.set("hang")
    with pytest.raises(httpx.ReadTimeout):
        client.get("/", timeout=0.3)
    threading.Timer(0.3, way.set, ["pass"]).start()
    assert client.get("/").content == BODY


def test_a_server_that_is_not_there_is_not_there() -> None:
    proxy = Proxy(to_port(lambda: None))
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{proxy.port}/")
    proxy.close()
