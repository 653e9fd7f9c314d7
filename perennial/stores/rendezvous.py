"""Where the workers of a training find each other: XGBoost's tracker, beside a Dask scheduler.

It has a process of its own: when a worker vanishes while the others gather, the tracker takes the
whole process that it runs in with it (it tells the workers of each other from threads of its own,
and nothing there catches that one is gone). A scheduler is not ours to lose.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any

from perennial.contracts.errors import UnavailableError

_trackers: dict[int, subprocess.Popen[str]] = {}
"""Those of this scheduler, by the ids of their processes."""


async def start(workers: int, host: str) -> tuple[int, dict[str, Any]]:
    """On a scheduler: the id of a new tracker's process, and what so many workers need to find each
    other by it. The process ends with their training, with ``end``, or with the scheduler's.

    Raises UnavailableError when it does not start.
    """
    for pid, earlier in list(_trackers.items()):
        if earlier.poll() is not None:
            _trackers.pop(pid, None)
    tracker, found = await asyncio.to_thread(_started, workers, host)
    _trackers[tracker.pid] = tracker
    return tracker.pid, found


async def end(pid: int) -> None:
    """On a scheduler: end a tracker, whether its training is over or not."""
    tracker = _trackers.pop(pid, None)
    if tracker is not None:
        tracker.kill()
        await asyncio.to_thread(tracker.wait)


def _started(workers: int, host: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    tracker = subprocess.Popen(
        [sys.executable, "-m", __name__, str(workers), host],
        stdin=subprocess.PIPE,  # ends when this process does
        stdout=subprocess.PIPE,
        text=True,
    )
    assert tracker.stdout is not None
    with tracker.stdout:
        told = tracker.stdout.readline()
    if not told:
        raise UnavailableError(
            f"XGBoost's tracker did not start beside the Dask scheduler (exit code "
            f"{tracker.wait()}); the scheduler's log says why"
        )
    return tracker, json.loads(told)


def _track(workers: int, host: str) -> None:
    from xgboost.core import XGBoostError
    from xgboost.tracker import RabitTracker

    try:
        tracker = RabitTracker(n_workers=workers, host_ip=host, sortby="task")
    except XGBoostError:  # behind another address than it is known by
        tracker = RabitTracker(n_workers=workers, host_ip=None, sortby="task")
    tracker.start()
    print(json.dumps(tracker.worker_args()), flush=True)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nobody reads on
    threading.Thread(target=_leave_with_the_scheduler, daemon=True).start()
    with suppress(XGBoostError):  # workers tell what went wrong
        tracker.wait_for()
    os._exit(0)


def _leave_with_the_scheduler() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    _track(int(sys.argv[1]), sys.argv[2])
