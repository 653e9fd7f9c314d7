"""Ending what a worker runs, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from perennial.cli.stack import stopping
from perennial.cli.stack.processes import Process, find, mark
from perennial.stores.project import Project
from tests.waiting import until


def halted(process: Process | None) -> bool:
    assert process is not None
    stat = Path(f"/proc/{process.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "T"


def test_a_worker_is_not_left_halted_when_the_end_of_its_runs_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path)
    seen: list[bool] = []

    def interrupted(*_: object) -> Sequence[Process]:
        until(lambda: halted(worker))
        seen.append(halted(worker))
        raise KeyboardInterrupt

    monkeypatch.setattr(stopping, "end", interrupted)
    environment = {**os.environ, **mark(project.home, "worker")}
    with subprocess.Popen(["sleep", "60"], env=environment, start_new_session=True) as child:
        try:
            worker = find(child.pid)
            assert worker is not None
            with pytest.raises(KeyboardInterrupt):
                stopping.end_runs(project, worker)
            assert seen == [True]
            until(lambda: not halted(worker))
        finally:
            child.send_signal(signal.SIGKILL)
