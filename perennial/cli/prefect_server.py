"""A Prefect server as a process, and asking one by HTTP: this package must not import Prefect."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from perennial.cli.prefect_database import database_url
from perennial.contracts.errors import PerennialError

START_SECONDS = 120.0
"""A new database takes 7 to 16 s."""
LOOK_SECONDS = 5.0
"""How long an answer may take of a server that is asked again and again."""
_STOP_SECONDS = 10.0
_TRIES = 5
_OF_ANOTHER_SERVER = (
    "PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH",
)  # fmt: skip
DATABASE_PREFIXES = ("PREFECT_SERVER_DATABASE_", "PREFECT_API_DATABASE_")
"""Of settings that only a server needs; a password may be among them."""
_WHICH_DATABASE = tuple(
    prefix + what for prefix in DATABASE_PREFIXES for what in ("CONNECTION_URL", "DRIVER")
)


def server_command(port: int) -> list[str]:
    return [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]


def server_environment(environment: Mapping[str, str], home: Path, port: int) -> dict[str, str]:
    """The environment of a server whose files are in ``home``, and of its page.

    The page is told where the API is: by itself it asks at the usual port, whatever the server's.
    The server is told where its page is, for the links in alerts. Its database is a file in
    ``home`` unless the environment says otherwise.
    """
    kept = {name: value for name, value in environment.items() if name not in _OF_ANOTHER_SERVER}
    if not any(name in kept for name in _WHICH_DATABASE):
        kept["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database_url(home)
    return {
        **kept,
        "PREFECT_HOME": str(home),
        "PREFECT_UI_API_URL": api_url(port),
        "PREFECT_UI_URL": api_url(port).removesuffix("/api"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


def api_url(port: int) -> str:
    return f"http://127.0.0.1:{port}/api"


def free_port() -> int:
    """A loopback port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def is_free(port: int) -> bool:
    """Whether a server could listen at this loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def is_answered(port: int) -> bool:
    """Whether a program listens at this loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), LOOK_SECONDS).close()
    except OSError:
        return False
    return True


def healthy(url: str) -> bool:
    """Whether a Prefect API answers here, and is well."""
    try:
        return call("GET", f"{url}/health", seconds=LOOK_SECONDS) is True
    except (OSError, ValueError):
        return False


def call(method: str, url: str, body: Any = None, seconds: float = 30.0) -> Any:
    """Ask a Prefect API; its answer as JSON, None when it is empty. One whose database is locked
    just then (503) is asked again. Raises OSError (HTTPError for a refusal)."""
    headers = {"Content-Type": "application/json"}
    if secret := os.environ.get("PREFECT_API_AUTH_STRING"):
        headers["Authorization"] = f"Basic {base64.b64encode(secret.encode()).decode()}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    for left in reversed(range(_TRIES)):
        try:
            with urllib.request.urlopen(request, timeout=seconds) as answer:
                text = answer.read()
            break
        except HTTPError as error:
            if error.code != 503 or not left:
                raise
            time.sleep(0.5)
    return json.loads(text) if text else None


@contextmanager
def prefect_server(home: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """A Prefect server on a free loopback port, stopped at the end. Yields its API address."""
    port = free_port()
    home.mkdir(parents=True, exist_ok=True)
    path = home / "server.log"
    with path.open("wb") as log:
        server = subprocess.Popen(
            server_command(port),
            env=server_environment(environment, home, port),
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C reaches who started it, who then stops it
        )
    try:
        _wait_until_healthy(server, api_url(port), path)
        yield api_url(port)
    finally:
        server.terminate()
        try:
            server.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_until_healthy(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not healthy(url):
        if server.poll() is not None:  # one that died looks like a slow one
            raise PerennialError(f"the Prefect server ended with {server.returncode}; see {log}")
        if time.monotonic() > deadline:
            raise PerennialError(
                f"the Prefect server did not answer within {START_SECONDS:.0f} s; see {log}"
            )
        time.sleep(0.2)
