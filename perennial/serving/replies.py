"""Answers on the wire, and every error as one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import msgspec

from perennial.contracts.errors import InputError, Problem

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON = b"application/json"
ARROW = b"application/vnd.apache.arrow.stream"
_MAX_PROBLEMS = 20
_encode = msgspec.json.encode


@dataclass(slots=True)
class Request:
    """A request whose body has been read. ``received`` is ``perf_counter`` at its first byte,
    ``path`` the parameters in its path, ``span`` its trace's, if it has one.

    ``model`` and ``answered`` (versions with their arms) are filled in as they become known, for
    metrics, logs and traces.
    """

    id: str
    headers: Mapping[bytes, bytes]
    path: Mapping[str, str]
    body: bytes
    received: float
    span: Any = None
    model: str = ""
    answered: Sequence[tuple[int, str]] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer. ``kind`` is its content type."""

    body: bytes
    status: int = 200
    kind: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @classmethod
    def json(cls, document: object, status: int = 200) -> Self:
        return cls(_encode(document), status)

    async def send(self, send: Send, request_id: str) -> None:
        start = [
            (b"content-type", self.kind),
            (b"content-length", b"%d" % len(self.body)),
            (b"x-request-id", request_id.encode("ascii")),
            *self.headers,
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": start})
        await send({"type": "http.response.body", "body": self.body})


class Refusal(Exception):  # noqa: N818  # an answer, not a fault
    """A request that gets no prediction, and why, in words for who sent it.

    ``code`` is for programs and stays the same between releases.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        problems: Sequence[Problem] = (),
        retry_after: int | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.problems = tuple(problems)
        self.retry_after = retry_after
        self.headers = tuple(headers)


def wrong_rows(error: InputError) -> Refusal:
    """Rows that the model can't read."""
    first = error.problems[0]
    more = f" (and {len(error.problems) - 1} more)" if len(error.problems) > 1 else ""
    message = f"{first.where}: {first.what}{more}" if first.where else f"{first.what}{more}"
    return Refusal(422, "invalid_rows", message, error.problems)


def overloaded(message: str) -> Refusal:
    return Refusal(503, "overloaded", message, retry_after=1)


def error_reply(refusal: Refusal, request_id: str) -> Reply:
    """The error as the plain endpoints tell it."""
    problems = [
        {"where": p.where, "what": p.what, "fix": p.fix} for p in refusal.problems[:_MAX_PROBLEMS]
    ]
    document = {
        "error": {
            "code": refusal.code,
            "message": refusal.message,
            "problems": problems,
            "request_id": request_id,
        }
    }
    return Reply(_encode(document), refusal.status, JSON, _headers(refusal))


def error_reply_v2(refusal: Refusal, request_id: str) -> Reply:
    """The error as the Open Inference Protocol has it: one text."""
    text = f"{refusal.message} [request {request_id}]"
    return Reply(_encode({"error": text}), refusal.status, JSON, _headers(refusal))


def _headers(refusal: Refusal) -> tuple[tuple[bytes, bytes], ...]:
    if refusal.retry_after is None:
        return refusal.headers
    return (*refusal.headers, (b"retry-after", b"%d" % refusal.retry_after))
