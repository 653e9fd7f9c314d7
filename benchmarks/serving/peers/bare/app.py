"""The least that predicts: a handler on the wire that calls inplace_predict on every request.

``asgi`` for uvicorn, ``rsgi`` for granian. A request is a JSON array, the booster's features.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec
import numpy as np
import xgboost as xgb

_booster = xgb.Booster(model_file=os.environ["BOOSTER"])
_booster.set_param({"nthread": 1})
_decode = msgspec.json.Decoder(list[float | None]).decode
_encode = msgspec.json.encode


def _answer(body: bytes) -> bytes:
    row = np.array([_decode(body)], dtype=np.float32)
    return _encode({"prediction": float(_booster.inplace_predict(row, missing=np.nan)[0])})


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = b""
    more = scope["method"] == "POST"
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    answer = _answer(body) if body else b"{}"
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def rsgi(scope: Any, protocol: Any) -> None:
    body = await protocol()
    answer = _answer(body) if scope.method == "POST" else b"{}"
    headers = [("content-type", "application/json"), ("content-length", str(len(answer)))]
    protocol.response_bytes(200, headers, answer)
