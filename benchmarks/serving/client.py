"""The client: some connections, each always waiting for one answer.

    python -m benchmarks.serving.client < job.json

In a process of its own, on a core of its own. Requests are built before the clock starts, each
connection cycles through all of them from another place, and an answer is parsed no further than
its status, its length and (``mark``) the few bytes that tell which version gave it. So the client
costs a fraction of the fastest server it measures; ``busy`` says how large a one.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from array import array
from dataclasses import asdict
from typing import cast

import numpy as np
import uvloop

from benchmarks.serving.load import Job, Outcome

_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = b"content-length:"


class _Run:
    """What the connections of one run share."""

    def __init__(self, job: Job) -> None:
        self.requests = job.requests()
        self.mark = re.compile(re.escape(job.mark).encode() + rb"(\d+)") if job.mark else None
        self.begin = time.monotonic() + job.warm_up_seconds
        self.end = self.begin + job.seconds
        self.ended, self.took = array("d"), array("d")
        self.outcome = Outcome()
        self.marked = b""

    def watch(self, answer: bytes, now: float) -> None:
        """Note when another version begins to answer."""
        found = self.mark.search(answer) if self.mark else None
        if found is not None and found[1] != self.marked:
            self.marked = found[1]
            self.outcome.marks.append((now, found[1].decode()))


class _Connection(asyncio.Protocol):
    def __init__(self, run: _Run, first: int, done: asyncio.Future[None]) -> None:
        self._run, self._done = run, done
        self._next = first
        self._buffer = b""
        self._sent = 0.0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def _send(self) -> None:
        requests = self._run.requests
        self._next = (self._next + 1) % len(requests)
        self._sent = time.monotonic()
        self._transport.write(requests[self._next])

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        head = data.find(_END_OF_HEAD)
        if head < 0:
            self._buffer = data
            return
        at = data.find(_LENGTH, 0, head)
        if at < 0:
            at = data[:head].lower().find(_LENGTH)
        if at < 0:
            self._run.outcome.fail(f"an answer without a length: {data[:head]!r}")
            self._transport.close()
            return
        body = head + len(_END_OF_HEAD)
        length = int(data[at + len(_LENGTH) : data.find(b"\r\n", at)])
        if len(data) < body + length:
            self._buffer = data
            return
        self._buffer = b""
        self._answered(data)

    def _answered(self, data: bytes) -> None:
        run, now = self._run, time.monotonic()
        if data[9:12] != b"200":
            run.outcome.fail(repr(data[:500]))
        elif self._sent >= run.begin:
            run.ended.append(now)
            run.took.append(now - self._sent)
        else:
            run.outcome.warm_up_answers += 1
        if run.mark:
            run.watch(data, now)
        if now < run.end:
            self._send()
        else:
            self._finish()
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._run.outcome.fail(f"connection lost: {exc!r}")
            self._finish()

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(None)


async def drive(job: Job) -> Outcome:
    """Carry a job out, and write its samples."""
    loop = asyncio.get_running_loop()
    run = _Run(job)
    done: list[asyncio.Future[None]] = [loop.create_future() for _ in range(job.connections)]
    cpu = time.process_time()
    started = time.monotonic()
    for i, future in enumerate(done):
        first = i * len(run.requests) // job.connections
        await loop.create_connection(
            lambda first=first, future=future: _Connection(run, first, future),  # type: ignore[misc]
            "127.0.0.1",
            job.port,
        )
    await asyncio.wait(done, timeout=job.warm_up_seconds + job.seconds + 60)
    outcome = run.outcome
    for future in done:
        if not future.done():
            outcome.fail("no answer within a minute")
    outcome.busy = (time.process_time() - cpu) / (time.monotonic() - started)
    outcome.answers = len(run.ended)
    outcome.seconds = (max(run.ended) if run.ended else run.end) - run.begin
    np.save(job.samples, np.column_stack([run.ended, run.took]))
    return outcome


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(drive(Job(**json.load(sys.stdin)))))))
