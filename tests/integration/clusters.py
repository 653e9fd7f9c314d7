"""A Dask cluster of two processes, whose workers can be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distributed import Client, LocalCluster

from perennial.stores.compute import Cluster
from tests.waiting import until


@contextmanager
def two_workers(near: Path) -> Iterator[str]:
    """The address of a scheduler with two worker processes of one thread each; nannies replace
    those that die."""
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        memory_limit=0,
        local_directory=str(near),
    ) as cluster:
        yield cluster.scheduler_address


@contextmanager
def scheduler_of(near: Path, path: Path) -> Iterator[str]:
    """The address of a scheduler in a process of its own, which finds Python's packages below
    ``path`` first."""
    told = near / "scheduler.json"
    arguments = ["dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    with _process([*arguments, "--scheduler-file", str(told)], near, "scheduler", path):
        until(told.exists, 240)
        yield json.loads(told.read_text())["address"]


@contextmanager
def worker_of(
    address: str,
    near: Path,
    name: str,
    path: Path,
    threads: int = 1,
    environment: Mapping[str, str] = os.environ,
) -> Iterator[None]:
    """One more worker, which finds Python's packages below ``path`` first."""
    arguments = [
        "dask_worker", address, "--name", name, "--nthreads", str(threads), "--no-nanny",
        "--local-directory", str(near),
    ]  # fmt: skip
    with _process(arguments, near, name, path, environment):
        yield


@contextmanager
def _process(
    arguments: Sequence[str],
    near: Path,
    name: str,
    path: Path,
    environment: Mapping[str, str] = os.environ,
) -> Iterator[None]:
    module, *rest = arguments
    with (near / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{module}", *rest, "--no-dashboard"],
            env={
                **environment,
                "PYTHONPATH": f"{path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            },
            cwd=near,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def client_of(address: str) -> Iterator[Cluster]:
    with Client(address, set_as_default=False, timeout=240) as client:
        client.wait_for_workers(2, timeout=240)
        yield Cluster(client, address)


def processes(cluster: Cluster) -> list[int]:
    return sorted(cluster.client.run(os.getpid).values())


class Killer:
    """Kills a worker once ``begun`` says that the work is on its way."""

    def __init__(self, address: str, begun: Callable[[Any], bool]) -> None:
        self.killed: list[int] = []
        self._address, self._begun = address, begun
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._wait)

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(240)

    def _wait(self) -> None:
        with client_of(self._address) as cluster:
            victim = processes(cluster)[0]
            deadline = time.monotonic() + 240
            while not self._ended.is_set() and time.monotonic() < deadline:
                if self._begun(cluster.client):
                    os.kill(victim, signal.SIGKILL)
                    self.killed.append(victim)
                    return
                time.sleep(0.01)


def running(client: Any, name: str) -> bool:
    """Whether a worker runs a function of this name."""
    return any(name in str(key) for keys in client.processing().values() for key in keys)
