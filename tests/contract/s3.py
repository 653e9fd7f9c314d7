"""Throw-away S3 endpoints for tests: moto's server, and one that is at fault when told."""

from __future__ import annotations

import http.client
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from tests.contract import ceph

BUCKET = "perennial-tests"


@dataclass(frozen=True)
class Endpoint:
    """An S3 endpoint with a bucket, and who may use it."""

    url: str
    key: str = "tests"
    secret: str = "not-a-secret-of-anybody"

    def environment(self, prefix: str) -> dict[str, str]:
        """The settings of a project whose storage is a prefix of the bucket."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": "us-east-1",
            "PERENNIAL_STORAGE": f"s3://{BUCKET}/{prefix}",
        }

    def client(self) -> Any:
        """boto3's client: a view of the store that shares nothing with our code."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name="us-east-1",
        )


@contextmanager
def moto() -> Iterator[Endpoint]:
    """moto's server in this process, over HTTP, with an empty bucket."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = Endpoint(f"http://{host}:{port}")
        endpoint.client().create_bucket(Bucket=BUCKET)
        yield endpoint
    finally:
        server.stop()


@contextmanager
def radosgw() -> Iterator[Endpoint]:
    """Ceph's gateway, with an empty bucket."""
    with ceph.radosgw(Endpoint.key, Endpoint.secret) as url:
        endpoint = Endpoint(url)
        endpoint.client().create_bucket(Bucket=BUCKET)
        yield endpoint


_STARTING = {"moto": moto, **({"radosgw": radosgw} if ceph.installed() else {})}
KINDS = list(_STARTING)


class Endpoints:
    """Endpoints by their kinds, each started at its first use."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._running: dict[str, Endpoint] = {}

    def __getitem__(self, kind: str) -> Endpoint:
        if kind not in self._running:
            self._running[kind] = self._stack.enter_context(_STARTING[kind]())
        return self._running[kind]


@contextmanager
def started() -> Iterator[Endpoints]:
    """Endpoints that end with the context."""
    with ExitStack() as stack:
        yield Endpoints(stack)


class Faulty:
    """A proxy before an endpoint. What it is told to do wrong it does until ``recover``.

    ``busy``: so many of the next requests are answered 503 SlowDown. ``hold_after``: PUT requests
    beyond so many are never answered. ``die_after``: with the PUT request after so many it dies, as
    a machine does that is switched off. ``cut_answers_after``: it dies so many bytes into the next
    object that is read. ``deny_reads``: objects with this in their names may be listed, and not
    read; ``deny_writes``: they may not be written. ``lose_answer_to``: the PUT request of this
    number is done, and its answer lost. PUT requests are counted from 1.
    """

    def __init__(self, upstream: Endpoint, url: str) -> None:
        self.endpoint = Endpoint(url, upstream.key, upstream.secret)
        self.upstream = urlsplit(upstream.url).netloc
        self._lock = threading.Lock()
        self._recovered = threading.Event()
        self._counts: Counter[str] = Counter()
        self.busy = 0
        self.recover()

    def recover(self) -> None:
        """In order again. Requests that are held are dropped."""
        self._recovered.set()
        self._recovered = threading.Event()
        self.busy = 0
        self.dead = self.holding = False
        self.deny_reads = self.deny_writes = ""
        self.hold_after = self.die_after = self.cut_answers_after = self.lose_answer_to = -1

    def received(self, method: str) -> int:
        return self._counts[method]

    @classmethod
    @contextmanager
    def before(cls, upstream: Endpoint) -> Iterator[Faulty]:
        class Handler(_Handler):
            pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        faulty = cls(upstream, f"http://127.0.0.1:{server.server_port}")
        Handler.faulty = faulty
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield faulty
        finally:
            faulty.recover()
            server.shutdown()
            server.server_close()

    def what_now(self, method: str, path: str, reads: bool) -> str:
        """What becomes of a request, which may be one to read an object."""
        with self._lock:
            self._counts[method] += 1
            count = self._counts[method]
            if method == "PUT" and -1 < self.die_after < count:
                self.dead = True
            if self.dead:
                return "die"
            if self.busy:
                self.busy -= 1
                return "busy"
            denied = self.deny_reads if reads else self.deny_writes if method == "PUT" else ""
            if denied and denied in path:
                return "deny"
            if method == "PUT" and -1 < self.hold_after < count:
                self.holding = True
                return "hold"
            if method == "PUT" and count == self.lose_answer_to:
                return "lose"
            return "cut" if reads and self.cut_answers_after >= 0 else "answer"

    def hold(self) -> None:
        self._recovered.wait()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faulty: Faulty

    def log_message(self, *_: Any) -> None:
        pass

    def _handle(self) -> None:
        faulty, (_, _, path, query, _) = self.faulty, urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        reads = self.command == "GET" and "list-type" not in query
        todo = faulty.what_now(self.command, path, reads)
        self.close_connection = todo not in ("answer", "busy", "deny")
        if todo == "hold":
            faulty.hold()
        if todo in ("hold", "die"):
            return
        if todo in ("busy", "deny"):
            status, code = (503, "SlowDown") if todo == "busy" else (403, "AccessDenied")
            content = f"<Error><Code>{code}</Code><Message>No</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            return
        connection = http.client.HTTPConnection(faulty.upstream)
        connection.request(self.command, self.path, body, dict(self.headers.items()))
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if todo == "lose":
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "server", "date"):
                self.send_header(name, value)
        if "content-length" not in {name.lower() for name, _ in answer.getheaders()}:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if todo == "cut" and len(content) > faulty.cut_answers_after:
            content, faulty.dead = content[: faulty.cut_answers_after], True
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815
