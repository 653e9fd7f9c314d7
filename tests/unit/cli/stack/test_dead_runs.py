"""Which runs are marked as dead before a worker starts."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any

import pytest

from perennial.cli.stack import runs
from perennial.cli.stack.runs import report_dead


def test_runs_whose_process_cannot_be_seen_from_here_are_not_marked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    here, somebodys = socket.gethostname(), 1
    found = {
        "never started": None,
        "ended": str(gone.pid),
        "ended, by a worker that tells its host": f"{here}:{gone.pid}",
        "elsewhere": f"another:{gone.pid}",
        "another user's": str(somebodys),
    }
    marked = []

    def answer(_method: str, url: str, _body: object, _seconds: float) -> Any:
        if url.endswith("/flow_runs/filter"):
            return [
                {"id": name, "state_type": "RUNNING", "infrastructure_pid": pid}
                for name, pid in found.items()
            ]
        marked.append(url.split("/")[-2])
        return None

    monkeypatch.setattr(runs, "call", answer)
    monkeypatch.setattr(runs, "hidden", lambda pid: pid == somebodys)
    assert report_dead(4200) == 3
    assert marked == list(found)[:3]
