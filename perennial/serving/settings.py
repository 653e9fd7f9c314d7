"""How one server runs: what a command line or an environment may set, with its defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from perennial.contracts.refs import Value

Acknowledge = Literal["fast", "strict"]


class Fixed(Value):
    """A bundle that is served by itself, as this version of this model."""

    bundle: Path
    digest: str
    model: str
    version: int


class Settings(Value):
    """One server's settings. Sizes are in bytes, times in seconds.

    ``models`` empty: all that the registry routes. ``acknowledge``: *fast* answers when a
    prediction is in the log's file, which survives the end of the process however it ends; *strict*
    waits until the disk has it, which survives the machine's too.
    """

    project: Path
    models: tuple[str, ...] = ()
    fixed: Fixed | None = None
    """What is served instead of the registry's routes."""
    host: str = "127.0.0.1"
    port: int = 8080
    tokens: Path | None = None
    acknowledge: Acknowledge = "fast"
    access_log: bool = False
    certificate: Path | None = None
    key: Path | None = None
    max_body_bytes: int = 16 * 2**20
    max_rows: int = 10_000
    """Of one request."""
    max_waiting_bytes: int = 64 * 2**20
    """Of all requests' bodies at one moment; beyond it requests are told to come back. Read, JSON
    takes about ten times its bytes."""
    max_waiting_requests: int = 2_000
    timeout_seconds: float = 10.0
    """For reading a body, and for its answer."""
    drain_seconds: float = 20.0
    """How long requests that are under way may take when the server is told to stop."""
    poll_seconds: float = 0.5
    """How often the registry is asked for changed routes."""
    max_spool_bytes: int = 4 * 2**30
    """Of predictions that are not yet in their table; beyond it requests are refused."""
