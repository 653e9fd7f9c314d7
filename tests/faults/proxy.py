"""A way through which clients reach a server, and which can be cut, slowed, and made to lie."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from typing import Literal

Mode = Literal["pass", "cut", "hang", "slow", "busy", "half"]
"""What happens to whoever connects, and to who is connected already:

- pass: all goes through.
- cut: every connection is reset, new ones too.
- hang: nothing goes through, and nobody is told.
- slow: a third of a second for each piece.
- busy: requests of HTTP get 503 with S3's word for it, without reaching the server.
- half: an answer ends after its first ``HALF_BYTES``.
"""
MODES: tuple[Mode, ...] = ("pass", "cut", "hang", "slow", "busy", "half")
HALF_BYTES = 100
_SLOW_SECONDS = 0.33
_BUSY_BODY = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>later</Message></Error>"
_BUSY = b"HTTP/1.1 503 Slow Down\r\ncontent-type: application/xml\r\nconnection: close\r\n" + (
    f"content-length: {len(_BUSY_BODY)}\r\n\r\n".encode() + _BUSY_BODY
)
_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Proxy:
    """Listens on a free port of 127.0.0.1, in a thread of its own, until ``close``.

    ``upstream`` opens a connection to the server; it may raise OSError while there is none.
    """

    def __init__(self, upstream: Callable[[], Awaitable[_Streams]]) -> None:
        self._upstream = upstream
        self._mode: Mode = "pass"
        self._changed = asyncio.Event()
        self._connected: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def mode(self) -> Mode:
        return self._mode

    def set(self, mode: Mode) -> None:
        """From now on. Connections that exist are reset, except by *hang*, *slow* and *pass*."""
        self._run(self._set(mode))

    def close(self) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work):  # type: ignore[no-untyped-def]
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _set(self, mode: Mode) -> None:
        self._mode = mode
        self._changed.set()
        self._changed = asyncio.Event()
        if mode in ("cut", "busy", "half"):
            for task in list(self._connected):
                task.cancel()

    async def _close(self) -> None:
        self._server.close()
        for task in list(self._connected):
            task.cancel()
        await asyncio.gather(*self._connected, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connected.add(task)
        try:
            await self._connection(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        except asyncio.CancelledError:  # a cut: the connection ends below, the task with it
            pass
        finally:
            self._connected.discard(task)
            _reset(writer)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode == "cut":
            return
        if self._mode == "busy":
            await _answer_busy(reader, writer)
            return
        up_reader, up_writer = await self._upstream()
        try:
            pumps = [
                asyncio.ensure_future(self._pump(reader, up_writer, answers=False)),
                asyncio.ensure_future(self._pump(up_reader, writer, answers=True)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            _reset(up_writer)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        while data := await reader.read(65_536):
            while self._mode == "hang":
                await self._changed.wait()
            if self._mode == "slow":
                await asyncio.sleep(_SLOW_SECONDS)
            if self._mode == "half" and answers:
                writer.write(data[:HALF_BYTES])
                await writer.drain()
                return
            writer.write(data)
            await writer.drain()


async def _answer_busy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            await reader.readexactly(int(value))
    writer.write(_BUSY)
    await writer.drain()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _reset(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


def to_port(port: Callable[[], int | None]) -> Callable[[], Awaitable[_Streams]]:
    """The way to a port of this machine, asked for anew each time."""

    async def connect() -> _Streams:
        found = port()
        if found is None:
            raise ConnectionRefusedError("nobody listens")
        return await asyncio.open_connection("127.0.0.1", found)

    return connect


def to_socket(path: str) -> Callable[[], Awaitable[_Streams]]:
    """The way to a socket in the file system."""

    async def connect() -> _Streams:
        return await asyncio.open_unix_connection(path)

    return connect
