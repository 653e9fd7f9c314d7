"""What is measured inside a process, without sockets.

    python -m benchmarks.serving.in_process lone PROJECT BODIES.json
    python -m benchmarks.serving.in_process batches TABLE.arrow BUNDLE SECONDS

lone: the whole server but its socket, fed the bytes of one request after the other: from bytes in
to bytes out, HTTP parsed and predictions logged. batches: the bundle's Predictor on a table that is
in memory.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

_WARM_UP = 500
_REQUESTS = 5_000


def lone(root: Path, bodies: Path) -> dict[str, float]:
    """Milliseconds of a request that is alone, over some thousands of them."""
    import uvloop

    from benchmarks.serving.load import Job
    from benchmarks.serving.ours import PATH

    job = Job(0, PATH, "application/json", json.loads(bodies.read_text()), samples="")
    seconds = uvloop.run(_lone(root, job.requests()))
    p50, p90, p99 = (1e3 * np.percentile(seconds, [50, 90, 99])).tolist()
    return {"p50_ms": p50, "p90_ms": p90, "p99_ms": p99}


async def _lone(root: Path, requests: Sequence[bytes]) -> list[float]:
    import uvicorn
    from uvicorn.server import ServerState

    from perennial.serving.access import Access
    from perennial.serving.app import Application
    from perennial.serving.connections import Connection
    from perennial.serving.follower import Follower
    from perennial.serving.hardening import Guard
    from perennial.serving.metrics import Metrics
    from perennial.serving.service import Service
    from perennial.serving.settings import Settings
    from perennial.stores.predictions import Spool
    from perennial.stores.project import Project

    loop = asyncio.get_running_loop()
    spool = Spool(Project(root).home / "spool")
    service = Service(
        Settings(project=root), spool, Metrics(), tracing=None, shadow_wanted=lambda: None
    )
    follower = Follower(service, loop)
    follower.start()
    while not service.ready:
        await asyncio.sleep(0.01)
    guard = Guard(Application(service, None), Access(None), lambda _: None)
    gc.freeze()  # as the server does
    config = uvicorn.Config(
        guard, http=Connection, ws="none", lifespan="off", log_config=None, access_log=False
    )
    config.load()
    connection = Connection(config=config, server_state=ServerState(), app_state={}, _loop=loop)
    wire = _Wire(loop)
    connection.connection_made(wire)
    took = []
    try:
        for i in range(_WARM_UP + _REQUESTS):
            answer = wire.answer()
            started = time.perf_counter()
            connection.data_received(requests[i % len(requests)])
            status = await answer
            took.append(time.perf_counter() - started)
            if status != b"200":
                raise RuntimeError(f"request {i} was answered {status!r}")
    finally:
        connection.connection_lost(None)
        await asyncio.to_thread(follower.stop)
        service.close()
    return took[_WARM_UP:]


class _Wire(asyncio.Transport):
    """Stands for a socket: takes what is written to it, and tells when it is a whole answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self._loop = loop
        self._written = b""

    def answer(self) -> asyncio.Future[bytes]:
        """Its status, once it is complete."""
        self._written = b""
        self._answer: asyncio.Future[bytes] = self._loop.create_future()
        return self._answer

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._written += data
        head, found, body = self._written.partition(b"\r\n\r\n")
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if found and len(body) == int(length):
            self._answer.set_result(head[9:12])

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def close(self) -> None: ...


def batches(table: Path, bundle: Path, seconds: float) -> dict[str, Any]:
    """The seconds of each prediction of the table for so long, one after the other."""
    import pyarrow as pa

    from perennial.bundle.predictor import Predictor
    from perennial.bundle.read import open_bundle

    predictor = Predictor(open_bundle(bundle, bundle.name))
    with pa.ipc.open_stream(table.read_bytes()) as reader:
        rows = reader.read_all()
    took = []
    begin = time.perf_counter() + 0.5  # warm by then
    now = time.perf_counter()
    while now < begin + seconds:
        predictor.predict(rows)
        then, now = now, time.perf_counter()
        if then >= begin:
            took.append(now - then)
    return {"rows": len(rows), "seconds": took}


if __name__ == "__main__":
    what, first, *rest = sys.argv[1:]
    if what == "lone":
        print(json.dumps(lone(Path(first), Path(rest[0]))))
    else:
        print(json.dumps(batches(Path(first), Path(rest[0]), float(rest[1]))))
