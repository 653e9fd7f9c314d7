"""Processes that are known for sure: by number and start, and by the mark they were started with.

Numbers are used again. A process is therefore its number and the moment it started, and what the
stack started, directly or through its own children, carries the stack's mark in its environment.
Reads /proc, as Linux has it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from perennial.contracts.errors import InputError
from perennial.contracts.refs import Value

_PROC = Path("/proc")
_MARK = "PERENNIAL_STACK"
_POLL_SECONDS = 0.05


class Process(Value):
    """One process of this machine. ``started`` is its boot and the clock ticks since, so that no
    other process ever equals it."""

    pid: int
    started: str

    @property
    def alive(self) -> bool:
        """Whether it still runs. A zombie doesn't."""
        return find(self.pid) == self

    def send(self, number: signal.Signals) -> None:
        """Send a signal; to nobody when it has ended, whoever has its number now."""
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)
            try:
                if self.alive:  # then the handle is its own
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)

    def ask(self, number: signal.Signals) -> None:
        """Send a signal to one that may be halted: it goes on, to hear it."""
        self.send(number)
        self.send(signal.SIGCONT)


@dataclass(frozen=True, slots=True)
class Marked:
    """A process with a stack's mark. ``leads`` a session of its own."""

    process: Process
    parent: int
    leads: bool
    part: str


def require_linux() -> None:
    """Raise InputError where processes can't be told apart."""
    if not (_PROC / "self" / "stat").is_file() or not hasattr(os, "pidfd_open"):
        raise InputError(
            "perennial up needs /proc and pidfds (Linux 5.3 or later, WSL 2 and containers too); "
            "docs/stack.md says how to start the parts one by one"
        )


def find(pid: int) -> Process | None:
    """The process with this number, unless it has ended."""
    found = _stat(pid)
    return None if found is None else found[0]


def current() -> Process:
    found = find(os.getpid())
    assert found is not None
    return found


def mark(home: Path, part: str) -> dict[str, str]:
    """The environment variable that marks a part of the stack of a project's ``.perennial``."""
    return {_MARK: f"{part}:{home}"}


def marked(home: Path) -> list[Marked]:
    """All living processes that the stack of this ``.perennial`` started, and their children."""
    found = []
    for folder in _PROC.iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        part, place = _mark_of(folder)
        seen = _stat(int(folder.name)) if place == str(home) else None
        if seen is not None:
            process, parent, session = seen
            found.append(Marked(process, parent, session == process.pid, part))
    return found


def values_of(variable: str) -> set[str]:
    """What this environment variable is to the living processes of this user."""
    folders = (folder for folder in _PROC.iterdir() if folder.name.isdigit())
    return {_variable(folder, variable) for folder in folders if _stat(int(folder.name))} - {""}


def hidden(pid: int) -> bool:
    """Whether a process lives whose environment this user may not read."""
    try:
        (_PROC / str(pid) / "environ").read_bytes()
    except PermissionError:
        return _stat(pid) is not None
    except OSError:
        return False
    return False


def listens(process: Process, port: int) -> bool:
    """Whether it, or what it has started, listens at this TCP port."""
    import psutil  # every command imports this module, and one needs it

    if not process.alive:
        return False
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(process.pid)
        for one in (first, *first.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                sockets = one.net_connections(kind="tcp")
                if any(s.status == psutil.CONN_LISTEN and s.laddr.port == port for s in sockets):
                    return True
    return False


def wait(processes: Iterable[Process], seconds: float) -> list[Process]:
    """Wait until they have ended. Returns those that have not."""
    deadline = time.monotonic() + seconds
    left = [p for p in processes if p.alive]
    while left and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        left = [p for p in left if p.alive]
    return left


def end(processes: Sequence[Process], number: signal.Signals, seconds: float) -> list[Process]:
    """Ask them to end, kill those that have not after ``seconds``. Returns who had to be killed."""
    for process in processes:
        process.ask(number)
    stubborn = wait(processes, seconds)
    for process in stubborn:
        process.send(signal.SIGKILL)
    wait(stubborn, 5.0)
    return stubborn


def _mark_of(folder: Path) -> tuple[str, str]:
    """The part and the ``.perennial`` in a process's environment, "" without a mark."""
    part, _, place = _variable(folder, _MARK).partition(":")
    return part, place


def _variable(folder: Path, name: str) -> str:
    try:
        entries = (folder / "environ").read_bytes().split(b"\0")
    except OSError:  # another user's, or it has just ended
        return ""
    start = f"{name}=".encode()
    text = next((entry.removeprefix(start) for entry in entries if entry.startswith(start)), b"")
    return os.fsdecode(text)


def _stat(pid: int) -> tuple[Process, int, int] | None:
    """A living process, its parent's number and its session's."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold anything, parentheses too. See proc_pid_stat(5).
    fields = text[text.rindex(")") + 2 :].split()
    if fields[0] in "ZX":
        return None
    return Process(pid=pid, started=f"{_boot()}/{fields[19]}"), int(fields[1]), int(fields[3])


@cache
def _boot() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
