"""What the stack below the service can do: one answer, always the same bytes.

    python -m benchmarks.serving.limit PORT answer.json

Uvicorn on uvloop and httptools with the service's own settings and connections, Starlette's
routing, and an endpoint that reads the body and answers: no checks, no prediction, no log.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import uvicorn
from starlette.routing import Route, Router

from perennial.serving.connections import Connection


class _Answer:
    def __init__(self, headers: dict[str, str], body: str) -> None:
        self._body = body.encode()
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, _: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body", False):
            pass
        start = {"type": "http.response.start", "status": 200, "headers": self._headers}
        await send(start)
        await send({"type": "http.response.body", "body": self._body})


def main(port: int, answer: Path) -> None:
    endpoint = _Answer(**json.loads(answer.read_text()))
    routes = [
        Route("/models/{name}/predict", endpoint, methods=["POST"]),
        Route("/", endpoint, methods=["GET"]),
    ]
    uvicorn.run(
        Router(routes),
        port=port,
        loop="uvloop",
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
