"""Flow runs that the stack's Prefect server has not heard the end of."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from perennial.cli.prefect_server import LOOK_SECONDS, api_url, call
from perennial.cli.stack.processes import hidden, values_of
from perennial.spec.places import WORK_POOL

_OF_A_RUN = "PREFECT__FLOW_RUN_ID"
_BECOMES = {"PENDING": "CRASHED", "RUNNING": "CRASHED", "CANCELLING": "CANCELLED"}
_WHY = "Its process is gone, and so is the worker that would have said so."


def report_dead(port: int) -> int:
    """Tell the server which runs of the work pool have no process any more; returns how many.

    For when no worker lives: one that does reports its runs itself, and one that has just taken a
    run has no process for it yet. What may be a process that can't be seen from here is left as it
    is. Raises OSError.
    """
    url = f"{api_url(port)}/flow_runs"
    asked = {
        "work_pools": {"name": {"any_": [WORK_POOL]}},
        "flow_runs": {"state": {"type": {"any_": list(_BECOMES)}}},
    }
    found = call("POST", f"{url}/filter", asked, LOOK_SECONDS)
    living = values_of(_OF_A_RUN)
    dead = [run for run in found if run["id"] not in living and not _unseen(run)]
    for run in dead:
        state = {"type": _BECOMES[run["state_type"]], "message": _WHY}
        call("POST", f"{url}/{run['id']}/set_state", {"state": state}, LOOK_SECONDS)
    return len(dead)


def _unseen(run: Mapping[str, Any]) -> bool:
    """Whether its process may live on another machine or as another user's. Workers tell its
    number, some also where: "host:number"."""
    host, _, pid = str(run.get("infrastructure_pid") or "").rpartition(":")
    return host not in ("", socket.gethostname()) or (pid.isdecimal() and hidden(int(pid)))
