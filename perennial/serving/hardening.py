"""What stands between the network and the endpoints: access, request ids, headers, last resorts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from perennial.serving import logs
from perennial.serving.access import Access, challenge, path_of
from perennial.serving.replies import (
    Message,
    Receive,
    Refusal,
    Scope,
    Send,
    error_reply,
    error_reply_v2,
)
from perennial.serving.requests import ClientGoneError, Headers, headers_of, request_id

App = Callable[[Scope, Receive, Send], Awaitable[None]]

PAGE_POLICY = (
    b"default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Pages are made of their own text and style alone: no script runs, and nobody frames them."""

_PLAIN = ((b"x-content-type-options", b"nosniff"),)
_CUT = (*_PLAIN, (b"connection", b"close"))  # nobody will read what of the body is under way
_ASKED = (*_PLAIN, (b"cache-control", b"no-store"))
_PAGE = (
    *_ASKED,
    (b"content-security-policy", PAGE_POLICY),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


@dataclass(frozen=True, slots=True)
class Incoming:
    """What is known of a request before its body. ``caller`` is the name of its token ("" where
    none is needed)."""

    id: str
    headers: Headers
    caller: str


def incoming(scope: Scope) -> Incoming:
    """What the guard found out about a request."""
    found = scope["perennial"]
    assert isinstance(found, Incoming)
    return found


class Guard:
    """The outermost ASGI application.

    Lets a request through to ``app`` when its token allows it, gives it an id (see ``incoming``),
    and adds the headers of a careful answer. What ``app`` raises ends here: a Refusal as its error,
    anything else as a 500 that says nothing but the request's id, under which the log has the rest.
    ``refused`` is told the status of each.
    """

    def __init__(self, app: App, access: Access, refused: Callable[[int], None]) -> None:
        self._app = app
        self._access = access
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # a WebSocket's handshake is turned down by whoever asks without an answer
        headers = headers_of(scope)
        identity = request_id(headers)
        asked = scope["method"] != "POST"
        started = False

        def send_on(message: Message) -> Awaitable[None]:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], *_more(message, asked)]
            return send(message)

        try:
            caller = self._access.check(scope, headers)
            scope["perennial"] = Incoming(identity, headers, caller)
            await self._app(scope, receive, send_on)
            return
        except ClientGoneError:
            return
        except Refusal as error:
            logs.refused(identity, "guard", error.status, error.code)
            refusal = error
        except Exception as error:
            logs.failed(identity, "guard", error)
            refusal = Refusal(500, "internal", "the server failed; its log says why")
        if started:
            return  # the connection is closed by the server when an answer stays unfinished
        self._refused(refusal.status)
        tell = error_reply_v2 if path_of(scope).startswith("/v2") else error_reply
        reply = tell(refusal, identity)
        if refusal.status == 401:
            reply = replace(reply, headers=challenge(scope, headers))
        await reply.send(send_on, identity)


def _more(message: Message, asked: bool) -> tuple[tuple[bytes, bytes], ...]:
    """The headers that an answer gets on top of its own. ``asked``: it may be a page."""
    if message["status"] in (408, 413):
        return _CUT
    if not asked:
        return _PLAIN
    headers: list[tuple[bytes, bytes]] = message["headers"]
    if any(name == b"content-type" and value.startswith(b"text/html") for name, value in headers):
        return _PAGE
    return _ASKED
