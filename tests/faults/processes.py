"""Processes of a world: started, started again when they die, stopped, starved and set to another
time. What they start in turn is found by a mark in their environment."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

MARK = "PERENNIAL_FAULTS_PART"
_AGAIN_SECONDS = 0.5
_CLOCK = Path(__file__).with_name("clock.c")


def clock_library(folder: Path) -> Path | None:
    """The library that lets a process see another time, compiled; None without a C compiler."""
    compiler = shutil.which("cc") if sys.platform == "linux" else None
    if compiler is None:
        return None
    made = folder / "clock.so"
    command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(made), str(_CLOCK), "-ldl"]
    done = subprocess.run(command, capture_output=True, check=False)
    return made if done.returncode == 0 else None


@dataclass
class Part:
    """A process of the world, and whatever it starts. ``journal`` is told of its ends."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    journal: Callable[[str], None]
    library: Path | None = None
    """For a clock of its own."""
    again: bool = True
    """Whether it is started again when it ends, as a supervisor would."""
    address: str | None = None
    """Where it listens, by its first line on standard output."""
    ended: list[int] = field(default_factory=list)
    """The codes with which it ended, without being asked."""
    _process: subprocess.Popen[bytes] | None = None
    _not_before: float = 0.0

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def clock(self) -> Path:
        return self.folder / f"{self.name}.clock"

    @property
    def pid(self) -> int | None:
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def start(self) -> None:
        environment = {**self.environment, MARK: f"{self.folder}:{self.name}"}
        if self.library is not None:
            if not self.clock.exists():
                self.jump(0)
            environment |= {
                "LD_PRELOAD": str(self.library), "PERENNIAL_FAULTS_CLOCK": str(self.clock)
            }  # fmt: skip
        self.address = None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, env=environment, cwd=self.folder, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()

    def jump(self, seconds: int) -> None:
        """From now on its clock is off by so much, and that of what it starts."""
        with self.clock.open("r+b" if self.clock.exists() else "wb") as file:
            file.write(seconds.to_bytes(8, sys.byteorder, signed=True))

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(b"listening at ") and process is self._process:
                self.address = line.decode().split()[-1]

    def tend(self) -> None:
        """Start it again if it has ended."""
        if self._process is None or self._process.poll() is None:
            return
        code = self._process.returncode
        if self._not_before == 0.0:
            self.ended.append(code)
            self.journal(f"{self.name} ended with {code}")
            self._not_before = time.monotonic() + _AGAIN_SECONDS
        if self.again and time.monotonic() >= self._not_before:
            self._not_before = 0.0
            self.start()

    def stop(self, seconds: float = 240.0) -> int:
        """Ask it to end, and wait; returns its code. One that doesn't is killed."""
        self.again = False
        process = self._process
        if process is None:
            return 0
        process.terminate()
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def members(self) -> dict[str, list[int]]:
        """The processes of this part by what they are: ``main``, ``keeper``,
        ``shadow``, ``flow``."""
        found: dict[str, list[int]] = {}
        for pid in marked(f"{self.folder}:{self.name}"):
            what = "main" if pid == self.pid else _what(pid)
            if what:
                found.setdefault(what, []).append(pid)
        return found


def marked(mark: str) -> list[int]:
    """The living processes whose mark begins so: what a world started, and what that started."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if wanted in Path(entry.path, "environ").read_bytes():
                    found.append(int(entry.name))
    return sorted(found)


def _what(pid: int) -> str:
    with contextlib.suppress(psutil.Error):
        words = psutil.Process(pid).cmdline()
        for name in ("keeper", "shadow"):
            if f"perennial.serving.{name}" in words:
                return name
        if "continuous_training" in words:
            return "flow"
    return ""


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def pause(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)


def resume(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def starve(pid: int, most_file_bytes: int) -> None:
    """No file of this process may grow beyond that: writing fails as on a full disk."""
    with contextlib.suppress(ProcessLookupError):
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most_file_bytes, hard))


def feed(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
