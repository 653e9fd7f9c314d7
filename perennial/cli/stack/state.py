"""What is known of a running stack: ``.perennial/stack.json``, and the lock of who writes it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from perennial.cli.stack.processes import Process
from perennial.contracts.refs import Value
from perennial.stores.folders import write_file
from perennial.stores.locks import taken
from perennial.stores.project import Project

_LOOK_SECONDS = 0.2
"""Somebody who only looks whether the lock is free has it for a moment."""


class PartState(Value):
    """One part. ``at`` is when it was started; ``problem`` why it is not running, "" when it is."""

    process: Process | None
    port: int | None
    at: datetime
    status: Literal["starting", "running", "waiting"]
    restarts: int = 0
    problem: str = ""


class StackState(Value):
    """Who supervises, and the parts by name. ``settled`` once all parts have been running."""

    supervisor: Process
    settled: bool
    parts: dict[str, PartState]

    @property
    def healthy(self) -> bool:
        return self.settled and all(part.status == "running" for part in self.parts.values())

    def url(self, part: str) -> str | None:
        """Where a part answers on this machine; None for one that has no port."""
        port = self.parts[part].port
        return None if port is None else f"http://127.0.0.1:{port}"


def logs(project: Project) -> Path:
    return project.home / "logs"


def read(project: Project) -> StackState | None:
    """The state, also of a stack that was killed; None when there is none or it can't be read."""
    try:
        return StackState.model_validate_json(_path(project).read_bytes())
    except (FileNotFoundError, ValidationError):
        # Unreadable is as good as absent: what runs is found by its mark.
        return None


def write(project: Project, state: StackState) -> None:
    write_file(_path(project), state.model_dump_json(indent=2) + "\n")


def remove(project: Project) -> None:
    _path(project).unlink(missing_ok=True)


@contextmanager
def lock(project: Project) -> Iterator[bool]:
    """Be the one who starts and stops this project's parts. Yields whether that is so.

    Held by the supervisor as long as it lives, however it ends.
    """
    project.home.mkdir(parents=True, exist_ok=True)
    handle = os.open(project.home / "stack.lock", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        deadline = time.monotonic() + _LOOK_SECONDS
        while not (mine := taken(handle)) and time.monotonic() < deadline:
            time.sleep(0.02)
        yield mine
    finally:
        os.close(handle)


def supervised(project: Project) -> bool:
    """Whether a supervisor lives."""
    with lock(project) as free:
        return not free


def _path(project: Project) -> Path:
    return project.home / "stack.json"
