"""One client's connection: uvicorn's, with an end to headers that never end, and room for others.

uvicorn (with httptools) takes headers of any size and waits for them for ever, and as long for a
client to read its answer, so that some idle sockets, or one busy one, could fill the server.

It also loses the body of a request that asks for another protocol (``Upgrade: h2c``, as some
clients do with every first request), and takes what comes of it later for the next request. Here
such a request is read as if it had not asked, which RFC 9110 (7.8) leaves to the server.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from perennial.serving.replies import JSON, Refusal, error_reply, overloaded
from perennial.serving.requests import request_id

MOST_HEADER_BYTES = 32 * 1024
HEADER_SECONDS = 5.0
"""How often a connection is looked at. One that is found twice in a row before the end of the same
headers is closed, so they may take this long for sure, and twice as long at most; and so is one
that took nothing of its answer meanwhile."""

_REASONS = {
    400: b"Bad Request",
    431: b"Request Header Fields Too Large",
    503: b"Service Unavailable",
}


def most_connections() -> int:
    """Half of the files that this process may open: the log needs some, and the registry."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 2**20 if most == resource.RLIM_INFINITY else most // 2


class Connection(HttpToolsProtocol):
    """For ``uvicorn.Config(http=Connection)``."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._header_bytes = 0  # since the last request's were complete
        self._requests = 0
        self._in_body = False  # also while nobody reads it, the request having been answered
        self._seen: Any = self  # the request that was the last one when we looked
        self._unread = 0  # bytes of the answer that nobody had taken when we looked
        self._watch = self.loop.call_later(HEADER_SECONDS, self._look)
        if len(self.connections) > most_connections():
            self._refuse(overloaded("too many connections are open"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        requests, in_body = self._requests, self._in_body
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            self._refuse(Refusal(400, "invalid_http", "the request is not HTTP/1.1"))
        if self._requests != requests:
            self._header_bytes = 0
        elif not in_body:
            self._header_bytes += len(data)
            if self._header_bytes > MOST_HEADER_BYTES:
                what = f"the headers are larger than {MOST_HEADER_BYTES:,} bytes"
                self._refuse(Refusal(431, "headers_too_large", what))

    def _parse(self, data: bytes) -> None:
        rest: bytes | memoryview = data
        while True:
            try:
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                rest = memoryview(rest)[upgrade.args[0] :]
                head = self._head_without_upgrade()
                # The parser took the message for complete, and may still hold its length.
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
                self.parser.feed_data(head)
            else:
                return

    def _head_without_upgrade(self) -> bytes:
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if method == b"CONNECT":  # asks for a tunnel by itself, with any headers
            raise httptools.HttpParserInvalidMethodError
        lines = [b"%s %s HTTP/%s" % (method, self.url, version.encode())]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # its head is parsed again
        self._requests += 1
        self._in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._in_body = False
        super().on_message_complete()

    def _refuse(self, refusal: Refusal) -> None:
        if self.transport.is_closing():
            return
        identity = request_id({})
        reply = error_reply(refusal, identity)
        more = b"".join(b"%s: %s\r\n" % header for header in reply.headers)
        status = b"%d %s" % (refusal.status, _REASONS[refusal.status])
        self.transport.write(
            b"HTTP/1.1 %s\r\ncontent-type: %s\r\ncontent-length: %d\r\nx-request-id: %s\r\n%s"
            b"connection: close\r\n\r\n%s"
            % (status, JSON, len(reply.body), identity.encode(), more, reply.body)
        )
        self.transport.close()

    def _look(self) -> None:
        last = self.cycle
        between = last is None or last.response_complete
        idle = self.timeout_keep_alive_task is not None  # uvicorn's own clock runs
        unread = self.transport.get_write_buffer_size()
        if unread and unread == self._unread:
            self.transport.abort()  # a mere close would wait for the answer to be taken
            return
        if not unread and between and not idle and last is self._seen:
            self.transport.close()
            return
        self._unread = unread
        self._seen = last if between and not idle else self
        self._watch = self.loop.call_later(HEADER_SECONDS, self._look)
