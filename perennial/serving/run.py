"""One server from its start to its end: the socket, the loop, the processes beside it, signals."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from logging import getLogger
from typing import Any

import uvicorn
import uvloop

from perennial.contracts.errors import InputError, Problem
from perennial.serving import fixed, logs
from perennial.serving.access import Access, is_loopback, must_be_loopback
from perennial.serving.app import Application
from perennial.serving.children import Child
from perennial.serving.connections import HEADER_SECONDS, Connection
from perennial.serving.follower import Follower
from perennial.serving.hardening import Guard
from perennial.serving.keeper import KeeperSettings
from perennial.serving.metrics import Metrics
from perennial.serving.overtime import Overtime
from perennial.serving.service import Service
from perennial.serving.settings import Settings
from perennial.serving.shadow import ShadowSettings
from perennial.serving.tls import Tls
from perennial.serving.tracing import from_environment
from perennial.stores.predictions import Spool
from perennial.stores.predictions.waiting import waiting
from perennial.stores.project import Project

_log = getLogger("perennial.serving")

_SWITCH_SECONDS = 0.001
"""How long a thread (one that loads a version, say) may keep the loop from Python's lock."""
_BACKLOG = 2048
_CHILD_SECONDS = 20.0
"""How long each process beside the server may take for the last segments; the next start commits
what is left."""


def serve(settings: Settings, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is under way, and end.

    ``ready`` is called with the server's address when it listens. Raises InputError when it can't
    listen there, or must not, when its certificate or the settings of its traces can't be used,
    or when the prediction log has no place.
    """
    if settings.tokens is None:
        must_be_loopback(settings.host)
    access = Access(settings.tokens)
    tls = None
    if settings.certificate is not None and settings.key is not None:
        tls = Tls(settings.certificate, settings.key)
    logs.configure()
    if tls is None and not is_loopback(settings.host):
        _log.warning(
            "no TLS at an address that others reach: tokens and rows can be read on the way unless "
            "what stands in front of this server sees to it; --certificate and --key turn it on"
        )
    sys.setswitchinterval(_SWITCH_SECONDS)
    listening = _listen(settings)
    uvloop.run(_serve(settings, access, tls, listening, ready), loop_factory=_Loop)


class _Loop(uvloop.Loop):
    """uvloop's, with an end to TLS handshakes that never end: uvicorn passes no such limit on, and
    until its handshake is done a connection is not counted by ``Connection``."""

    async def create_server(  # type: ignore[override]  # whatever uvicorn asks for
        self, *arguments: Any, **options: Any
    ) -> asyncio.AbstractServer:
        if options.get("ssl") is not None:
            options |= {
                "ssl_handshake_timeout": HEADER_SECONDS, "ssl_shutdown_timeout": HEADER_SECONDS
            }  # fmt: skip
        server: asyncio.AbstractServer = await super().create_server(*arguments, **options)
        return server


async def _serve(
    settings: Settings,
    access: Access,
    tls: Tls | None,
    listening: socket.socket,
    ready: Callable[[str], None],
) -> None:
    tracing = from_environment()
    home = Project(settings.project).home
    spool = Spool(
        home / "spool", acknowledge=settings.acknowledge, max_bytes=settings.max_spool_bytes
    )
    metrics = Metrics()
    keeper = Child("keeper", _keeper_settings(settings).command())
    shadow = Child("shadow", _shadow_settings(settings).command())
    service = Service(settings, spool, metrics, tracing, shadow.ensure, Overtime())
    follower = None
    if settings.fixed is None:
        follower = Follower(service, asyncio.get_running_loop())
    else:
        fixed.adopt(service, settings.fixed)
    guard = Guard(
        Application(service, tracing),
        access,
        lambda status: metrics.refused("guard", status),
    )
    server = uvicorn.Server(
        uvicorn.Config(
            guard,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_graceful_shutdown=int(settings.drain_seconds),
            ssl_context_factory=None if tls is None else lambda *_: tls.context,
        )
    )
    # uvicorn finishes its requests at a signal and then raises it again, for whoever is next; one
    # that comes before uvicorn listens to signals ends it as soon as it does.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    if follower is not None:
        follower.start()
    keeper.ensure()
    if waiting(spool.folder, "shadow"):  # left by a server that was here before
        shadow.ensure()
    gc.freeze()  # what lives as long as the server need not be looked through again and again
    listening.listen(_BACKLOG)  # whoever is told the address may ask, and is answered in a moment
    host, port = listening.getsockname()[:2]
    scheme = "http" if tls is None else "https"
    following = None if tls is None else asyncio.create_task(tls.follow(metrics.certificate))
    ready(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")
    try:
        await server.serve(sockets=[listening])
    finally:
        service.draining = True
        if following is not None:
            following.cancel()
        if follower is not None:
            await asyncio.to_thread(follower.stop)
        await asyncio.to_thread(service.close)
        await asyncio.to_thread(shadow.stop, _CHILD_SECONDS)
        await asyncio.to_thread(keeper.stop, _CHILD_SECONDS)
        if tracing is not None:
            await asyncio.to_thread(tracing.close)
        _log.info("stopped")


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        where = f"{settings.host}:{settings.port}"
        raise InputError(Problem(where, f"can't listen: {reason}", "use another --port")) from None
    return listening


def _shadow_settings(settings: Settings) -> ShadowSettings:
    project = Project(settings.project)
    return ShadowSettings(
        project=str(project.root),
        spool=str(project.home / "spool"),
        tables=project.storage,
        state=str(project.home / "serving" / "shadow.json"),
        parent=os.getpid(),
        started=time.monotonic(),
    )


def _keeper_settings(settings: Settings) -> KeeperSettings:
    project = Project(settings.project)
    return KeeperSettings(
        project=str(project.root),
        spool=str(project.home / "spool"),
        tables=project.storage,
        state=str(project.home / "serving" / "keeper.json"),
        parent=os.getpid(),
    )
