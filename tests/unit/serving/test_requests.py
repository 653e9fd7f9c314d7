"""Bodies and ids of requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from perennial.serving import requests as module
from perennial.serving.replies import Refusal
from perennial.serving.requests import Budget, ClientGoneError, read_body, request_id

Step = bytes | float | None
"""A piece of the body; a pause in seconds; the client hangs up."""


class Client:
    """Sends the steps, then stays silent; the last piece ends the body when ``ends``."""

    def __init__(self, *steps: Step, ends: bool = True) -> None:
        self._steps = list(steps)
        self._ends = ends
        self.sent = 0

    async def receive(self) -> dict[str, Any]:
        while self._steps:
            step = self._steps.pop(0)
            if step is None:
                return {"type": "http.disconnect"}
            if isinstance(step, float):
                await asyncio.sleep(step)
                continue
            self.sent += len(step)
            more = bool(self._steps) or not self._ends
            return {"type": "http.request", "body": step, "more_body": more}
        await asyncio.Event().wait()
        raise AssertionError


def _read(
    client: Client, headers: dict[bytes, bytes] | None = None, *, budget: Budget, timeout: float = 5
) -> bytes:
    body: Callable[[], Awaitable[bytes]] = lambda: read_body(  # noqa: E731
        client.receive, headers or {}, limit=100, timeout=timeout, budget=budget
    )
    return asyncio.run(_awaited(body))


async def _awaited(body: Callable[[], Awaitable[bytes]]) -> bytes:
    return await body()


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.1)


@pytest.fixture
def budget() -> Budget:
    return Budget(150)


@pytest.mark.parametrize(
    "steps",
    [(b"abcdef",), (b"abc", b"def"), (0.01, b"abcdef"), (b"", b"abc", 0.01, b"", b"def"),
     (0.01, 0.01, b"abc", b"def")],
)  # fmt: skip
def test_a_body_is_read_however_it_comes(steps: tuple[Step, ...], budget: Budget) -> None:
    assert _read(Client(*steps), budget=budget) == b"abcdef"
    assert budget.held == 6


def test_a_request_without_a_body_has_an_empty_one(budget: Budget) -> None:
    assert _read(Client(b""), budget=budget) == b""


def test_the_limit_itself_is_allowed(budget: Budget) -> None:
    assert _read(Client(b"x" * 60, b"x" * 40), {b"content-length": b"100"}, budget=budget)


@pytest.mark.parametrize(
    ("steps", "declared"),
    [((b"x" * 101,), None), ((b"x" * 60, b"x" * 41), None), ((b"x" * 60, b"x" * 41), b"50"),
     ((b"x" * 101,), b"101"), ((b"x" * 101,), b"9" * 19), ((0.01, b"x" * 101), b"-1")],
)  # fmt: skip
def test_a_larger_body_is_refused_whatever_its_headers_say(
    steps: tuple[Step, ...], declared: bytes | None, budget: Budget
) -> None:
    headers = {} if declared is None else {b"content-length": declared}

    with pytest.raises(Refusal) as refusal:
        _read(Client(*steps), headers, budget=budget)

    assert (refusal.value.status, refusal.value.code) == (413, "too_large")
    assert refusal.value.message == (
        "the body is larger than 100 bytes, the most that this server takes"
    )
    assert budget.held == 0


def test_the_rest_of_a_large_body_is_let_go_so_that_the_client_hears_the_answer(
    budget: Budget,
) -> None:
    client = Client(*[b"x" * 90] * 50)

    with pytest.raises(Refusal):
        _read(client, budget=budget)

    assert client.sent == 50 * 90


def test_a_client_that_asks_first_is_told_before_it_sends(budget: Budget) -> None:
    client = Client(b"x" * 101)

    with pytest.raises(Refusal):
        _read(client, {b"content-length": b"101", b"expect": b"100-continue"}, budget=budget)

    assert client.sent == 0


def test_a_body_without_end_is_not_listened_to_for_ever(
    budget: Budget,
) -> None:
    with pytest.raises(Refusal) as refusal:
        _read(Client(b"x" * 101, ends=False), budget=budget)

    assert refusal.value.status == 413


@pytest.mark.parametrize("size", [{b"content-length": b"6"}, {b"transfer-encoding": b"chunked"}])
@pytest.mark.parametrize("coding", [b"gzip", b"GZIP", b"br", b"identity, gzip", b"\xe9" * 200])
def test_a_compressed_body_is_refused_by_the_name_of_its_encoding(
    coding: bytes, size: dict[bytes, bytes], budget: Budget
) -> None:
    client = Client(b"abcdef")

    with pytest.raises(Refusal) as refusal:
        _read(client, {b"content-encoding": coding, **size}, budget=budget)

    assert (refusal.value.status, refusal.value.code) == (415, "unsupported_encoding")
    name = coding[:80].decode("latin-1")
    assert refusal.value.message == f"content encoding {name!r} is not read here; send none"
    assert refusal.value.headers == ((b"accept-encoding", b"identity"),)
    assert (client.sent, budget.held) == (0, 0)


@pytest.mark.parametrize("coding", [b"identity", b" Identity ", b""])
def test_a_body_that_says_it_is_sent_as_it_is_is_read(coding: bytes, budget: Budget) -> None:
    headers = {b"content-encoding": coding, b"content-length": b"6"}

    assert _read(Client(b"abcdef"), headers, budget=budget) == b"abcdef"


def test_an_encoding_without_a_body_is_no_mistake(budget: Budget) -> None:
    assert _read(Client(b""), {b"content-encoding": b"gzip"}, budget=budget) == b""


@pytest.mark.parametrize("steps", [(), (b"abc",), (b"a", 0.01, b"b", 0.01, b"c")])
def test_a_body_that_comes_too_slowly_is_refused(steps: tuple[Step, ...], budget: Budget) -> None:
    with pytest.raises(Refusal) as refusal:
        _read(Client(*steps, ends=False), budget=budget, timeout=0.1)

    assert (refusal.value.status, refusal.value.code) == (408, "too_slow")
    assert refusal.value.message == "the body did not arrive within 0.1 seconds"
    assert budget.held == 0


@pytest.mark.parametrize("steps", [(None,), (b"abc", None), (0.01, None), (b"abc", 0.01, None)])
def test_a_client_that_hangs_up_is_not_answered(steps: tuple[Step, ...], budget: Budget) -> None:
    with pytest.raises(ClientGoneError):
        _read(Client(*steps), budget=budget)

    assert budget.held == 0


@pytest.mark.parametrize("steps", [(b"x" * 60,), (b"x" * 30, b"x" * 30)])
def test_a_body_that_does_not_fit_beside_the_others_is_told_to_come_back(
    steps: tuple[Step, ...], budget: Budget
) -> None:
    budget.claim(100)

    with pytest.raises(Refusal) as refusal:
        _read(Client(*steps), budget=budget)

    assert (refusal.value.status, refusal.value.retry_after) == (503, 1)
    assert budget.held == 100


def test_a_reading_that_is_given_up_gives_its_share_back(budget: Budget) -> None:
    async def given_up() -> None:
        client = Client(b"abc", ends=False)
        reading = asyncio.ensure_future(
            read_body(client.receive, {}, limit=100, timeout=5, budget=budget)
        )
        await asyncio.sleep(0.02)
        assert budget.held == 3
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    asyncio.run(given_up())

    assert budget.held == 0


@pytest.mark.parametrize("given", ["a", "~" * 128, "0f-9_Z:/!"])
def test_a_clients_id_is_kept(given: str) -> None:
    assert request_id({b"x-request-id": given.encode()}) == given


@pytest.mark.parametrize("given", [b"", b"a b", b"a\tb", b"\xe9", b"~" * 129, b"a\n"])
def test_an_id_that_a_log_could_not_show_is_replaced(given: bytes) -> None:
    made = request_id({b"x-request-id": given})

    assert len(made) == 32
    assert int(made, 16) >= 0
    assert made != request_id({})
