"""The benchmark's client counts what it should: its figures are no better than its reading."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.serving.client import drive
from benchmarks.serving.load import Job, Outcome

_PIECES = [
    b"HTTP/1.1 200 OK\r\nContent-Len",
    b"gth: 13\r\n\r\n{",
    b'"version":2',
    b"}",
]


def _run(
    tmp_path: Path, answers: Sequence[Sequence[bytes]], **job: object
) -> tuple[Outcome, np.ndarray]:
    """Drive a server that gives these answers in turn, each in pieces, for ever. One that ends
    with an empty piece hangs up after it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        while await reader.readuntil(b"body"):
            for piece in answers[number % len(answers)]:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
                if not piece:
                    writer.close()
                    return
            number += 1

    async def both() -> tuple[Outcome, np.ndarray]:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            samples = tmp_path / "samples.npy"
            outcome = await drive(
                Job(port, "/", "text/plain", ["body"], str(samples), **settings)  # type: ignore[arg-type]
            )
            return outcome, np.load(samples)

    settings = {"connections": 3, "warm_up_seconds": 0.0, "seconds": 0.2, **job}
    return asyncio.run(both())


def test_an_answer_in_pieces_is_one_answer(tmp_path: Path) -> None:
    outcome, samples = _run(tmp_path, [_PIECES])
    assert outcome.failed == 0
    assert outcome.answers == len(samples) > 3
    assert (samples[:, 1] > 0).all()
    assert outcome.seconds >= 0.2


def test_what_is_not_a_200_is_a_failure_and_no_sample(tmp_path: Path) -> None:
    refusal = [b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"]
    outcome, samples = _run(tmp_path, [_PIECES, refusal], connections=1)
    assert outcome.answers == len(samples)
    assert abs(outcome.failed - outcome.answers) <= 1
    assert outcome.failures[0].startswith("b'HTTP/1.1 503 Busy")


def test_a_connection_that_is_lost_is_a_failure_at_once(tmp_path: Path) -> None:
    outcome, _ = _run(tmp_path, [[_PIECES[0], b""]])
    assert (outcome.answers, outcome.failed) == (0, 3)
    assert outcome.failures == ["connection lost: None"] * 3


def test_the_moment_another_version_answers_is_marked_once(tmp_path: Path) -> None:
    other = [b'HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{"version":3}']
    outcome, samples = _run(tmp_path, [_PIECES] * 3 + [other] * 10_000, connections=1, mark='on":')
    assert [version for _, version in outcome.marks] == ["2", "3"]
    assert outcome.marks[1][0] == samples[3, 0]


def test_answers_of_requests_made_while_warming_up_are_left_out(tmp_path: Path) -> None:
    outcome, samples = _run(tmp_path, [_PIECES], warm_up_seconds=0.2)
    ended, took = samples.T
    assert (ended - took).max() - (ended - took).min() <= 0.2
    assert outcome.answers == len(samples)
