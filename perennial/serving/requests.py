"""What a request brings, read with limits: its headers, its id, its body."""

from __future__ import annotations

import asyncio
import os
import re
import types
from asyncio import timeout as deadline
from collections.abc import Coroutine, Generator, Mapping
from typing import Any, cast

from perennial.serving.replies import Message, Receive, Refusal, Scope, overloaded

Headers = Mapping[bytes, bytes]

LINGER_SECONDS = 1.0
"""How long the rest of a body that is too large is read and thrown away. Most clients look for an
answer only after they have sent everything, and see a broken connection where nobody reads."""

_ID = re.compile(rb"[!-~]{1,128}")


class ClientGoneError(Exception):
    """The client hung up before its request was complete: nobody waits for an answer."""


class Budget:
    """Bytes of all bodies that are held at one moment, with a limit. For one event loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    def claim(self, size: int) -> None:
        """Raises Refusal (503) when there is no room."""
        if self.held + size > self._limit:
            raise overloaded("too many requests are waiting for an answer")
        self.held += size

    def release(self, size: int) -> None:
        self.held -= size


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """The request's headers by lower-case name; of a name given twice, the last."""
    return dict(scope["headers"])


def request_id(headers: Headers) -> str:
    """The id that the client gave, when it is 1 to 128 visible ASCII characters; else a new one."""
    given = headers.get(b"x-request-id")
    if given is not None and _ID.fullmatch(given):
        return given.decode("ascii")
    return os.urandom(16).hex()


async def read_body(
    receive: Receive, headers: Headers, *, limit: int, timeout: float, budget: Budget
) -> bytes:
    """The whole body. Its size is claimed from the budget; who calls releases it in the end.

    Raises Refusal: 415 when it is compressed; 413 when it is larger than ``limit`` bytes, whatever
    its headers say; 408 when it has not arrived after ``timeout`` seconds; 503 when the budget has
    no room. ClientGoneError when the client hangs up.
    """
    length = headers.get(b"content-length", b"0")
    declared = int(length) if length.isdigit() and len(length) < 20 else 0
    coding = headers.get(b"content-encoding")
    if coding is not None and (declared or b"transfer-encoding" in headers):
        _check_plain(coding)
    if declared > limit:
        if b"expect" not in headers:  # a client that asks first sends nothing when told no
            await _let_go(receive)
        raise _too_large(limit)
    # A timer costs more than all else here, and a small body is nearly always here already:
    # so the first look is taken without one.
    coming = cast("Coroutine[Any, Any, Message]", receive())
    try:
        waiting = coming.send(None)
    except StopIteration as here:
        message: Message = here.value
        if not message.get("more_body", False) and message["type"] == "http.request":
            body: bytes = message.get("body", b"")
            if len(body) > limit:
                raise _too_large(limit) from None
            budget.claim(len(body))
            return body
        first = None
    else:
        first = _resumed(coming, waiting)
    try:
        async with deadline(timeout):
            if first is not None:
                message = await first
            return await _rest(message, receive, limit, budget)
    except TimeoutError:
        what = f"the body did not arrive within {timeout:g} seconds"
        raise Refusal(408, "too_slow", what) from None


async def _rest(message: Message, receive: Receive, limit: int, budget: Budget) -> bytes:
    chunks: list[bytes] = []
    size = 0
    try:
        while True:
            if message["type"] != "http.request":
                raise ClientGoneError
            chunk: bytes = message.get("body", b"")
            if size + len(chunk) > limit:
                await _let_go(receive)
                raise _too_large(limit)
            budget.claim(len(chunk))
            size += len(chunk)
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)
            message = await receive()
    except BaseException:
        budget.release(size)
        raise


async def _let_go(receive: Receive) -> None:
    """Read on for a moment, and keep nothing."""
    try:
        async with deadline(LINGER_SECONDS):
            while (await receive()).get("more_body", False):
                await asyncio.sleep(0)  # a client that sends without pause must not hold the loop
    except TimeoutError:
        return


def _check_plain(coding: bytes) -> None:
    """Raises Refusal for a body that is not sent as it is."""
    if coding.strip().lower() not in (b"", b"identity"):
        what = f"content encoding {coding[:80].decode('latin-1')!r} is not read here; send none"
        only = ((b"accept-encoding", b"identity"),)
        raise Refusal(415, "unsupported_encoding", what, headers=only)


def _too_large(limit: int) -> Refusal:
    what = f"the body is larger than {limit:,} bytes, the most that this server takes"
    return Refusal(413, "too_large", what)


@types.coroutine
def _resumed(
    coroutine: Coroutine[Any, Any, Message], waiting: Any
) -> Generator[Any, None, Message]:
    """Await a coroutine that was started by hand and waits for a future."""
    try:
        yield waiting
    except BaseException:
        coroutine.close()
        raise
    message: Message = yield from coroutine
    return message
