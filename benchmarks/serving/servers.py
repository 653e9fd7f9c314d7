"""Servers as processes on one core: started, waited for, weighed, stopped, with their children."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_START_SECONDS = 120


@cache
def cores() -> tuple[int, int]:
    """The server's core and the client's, of those this process had when it first asked.

    Raises RuntimeError on a machine with just one."""
    found = sorted(os.sched_getaffinity(0))
    if len(found) < 2:
        raise RuntimeError("needs two cores: one for the server, one for the client")
    return found[0], found[1]


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Processes started meanwhile, and their children, run on this core only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True)
class Memory:
    """MiB of a server's processes together. ``pss``: memory that processes share counts by equal
    parts, also with processes that are not the server's. ``alone``: what it would be were no other
    process on the machine: all its anonymous memory, and of each mapped file the most that one of
    its processes has touched."""

    pss: float
    alone: float


@dataclass
class Server:
    """A command that listens on ``port`` and answers ``ready`` with 200 once it can serve."""

    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    port: int
    ready: str
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self, core: int) -> float:
        """Start it on a core. Seconds from then to ready. Raises RuntimeError when it ends before,
        or isn't ready within two minutes."""
        started = time.perf_counter()
        with on_core(core), self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, env=self.environment, stdout=log, stderr=log
            )
        while not self._is_ready():
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.command}: {self.log.read_text()[-3000:]}")
            if time.perf_counter() - started > _START_SECONDS:
                self.stop()
                raise RuntimeError(f"{self.command}: not ready: {self.log.read_text()[-3000:]}")
            time.sleep(0.005)
        return time.perf_counter() - started

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", self.ready)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def post(self, path: str, content_type: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own: status, headers (lower case), body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("POST", path, body, {"Content-Type": content_type})
            answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, headers, answer.read()
        finally:
            connection.close()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """None of its processes runs meanwhile: idle servers take processor time too."""
        for pid in self.processes():
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in self.processes():
                os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        """Ask it to end, and end what is left of its processes after 20 seconds."""
        if self.process is None:
            return
        everybody = self.processes()
        with suppress(ProcessLookupError):
            self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        for pid in everybody:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def processes(self) -> list[int]:
        """The server's process and all that descend from it."""
        assert self.process is not None
        found = [self.process.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                with suppress(OSError):
                    found += [int(child) for child in task.read_text().split()]
        return found

    def cpu_seconds(self) -> float:
        """Processor time of its living processes so far."""
        return sum(_ticks(pid) for pid in self.processes()) / _TICKS

    def memory(self) -> Memory:
        pss = anonymous = 0
        files: dict[str, int] = {}
        for pid in self.processes():
            here: dict[str, int] = {}
            for name, values in _mappings(pid):
                pss += values["Pss"]
                anonymous += values["Anonymous"]
                if name.startswith("/"):
                    here[name] = here.get(name, 0) + values["Rss"] - values["Anonymous"]
            for name, kib in here.items():
                files[name] = max(files.get(name, 0), kib)
        return Memory(pss / 1024, (anonymous + sum(files.values())) / 1024)


def _ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def _mappings(pid: int) -> Iterator[tuple[str, dict[str, int]]]:
    """Each mapping of a process: its file ("" when it has none) and its figures in KiB."""
    name, values = "", dict[str, int]()
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            if values:
                yield name, values
            name, values = " ".join(rest[4:]), {}
        elif rest[-1:] == ["kB"]:
            values[first[:-1]] = int(rest[0])
    if values:
        yield name, values
