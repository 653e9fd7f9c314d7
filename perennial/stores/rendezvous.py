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
from uuid import uuid4

from perennial.contracts.errors import UnavailableError

_LOOK_SECONDS = 1
"""How often is looked whether the client of a tracker is still there."""

_trackers: dict[str, subprocess.Popen[str]] = {}
"""Those of this process, by names that no other has: it may run more than one scheduler."""
_watching: set[asyncio.Task[None]] = set()


async def start(
    workers: int, host: str, client: str, dask_scheduler: Any
) -> tuple[str, dict[str, Any]]:
    """On a scheduler: the name of a new tracker, and what so many workers need to find each other
    by it. It ends with their training, with ``end``, with the client of this id, or with the
    scheduler.

    Raises UnavailableError when it does not start.
    """
    tracker, found = await asyncio.to_thread(_started, workers, host)
    name = uuid4().hex
    _trackers[name] = tracker
    watching = asyncio.create_task(_end_with(client, name, dask_scheduler))
    _watching.add(watching)
    watching.add_done_callback(_watching.discard)
    return name, found


async def end(name: str) -> int | None:
    """On a scheduler: end a tracker, whether its training is over or not. The exit code of one that
    had ended by itself: 0 unless it died."""
    tracker = _trackers.pop(name, None)
    if tracker is None:
        return None
    code = tracker.poll()
    tracker.kill()
    await asyncio.to_thread(tracker.wait)
    return code


async def _end_with(client: str, name: str, scheduler: Any) -> None:
    """A client that was killed ends nothing, and a worker that gathers waits for the others as long
    as the tracker is there."""
    while name in _trackers:
        if client not in scheduler.clients:
            await end(name)
        await asyncio.sleep(_LOOK_SECONDS)


def _started(workers: int, host: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    tracker = subprocess.Popen(
        # finds what this process finds: with -m alone, what lies in the working folder first
        [sys.executable, "-P", "-m", __name__, str(workers), host],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
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
