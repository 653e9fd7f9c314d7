"""Running a flow in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.waiting import until

COMMAND = """
import signal, sys, typer
from pathlib import Path
from perennial.cli.context import Context
from perennial.stores.project import Project
signal.signal(signal.SIGHUP, signal.Handlers(int(sys.argv[2])))
folder = Path(sys.argv[1])
del sys.argv[1:]
sys.executable = str(folder / "flow")
typer.run(lambda: print(Context(Project(folder), False).run_flow("any")))
"""
FLOW = """\
#!/bin/sh
echo $$ > "$(dirname "$0")/pid.new" && mv "$(dirname "$0")/pid.new" "$(dirname "$0")/pid"
exec sleep 60
"""


def started(folder: Path, hangup: signal.Handlers) -> tuple[subprocess.Popen[str], psutil.Process]:
    """A command whose flow runs, and the flow."""
    (folder / "flow").write_text(FLOW)
    (folder / "flow").chmod(0o755)
    command = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(folder), str(int(hangup))],
        stderr=subprocess.PIPE,
        text=True,
    )
    until((folder / "pid").exists)
    return command, psutil.Process(int((folder / "pid").read_text()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_a_command_ends_its_flow(tmp_path: Path, number: signal.Signals) -> None:
    command, flow = started(tmp_path, signal.SIG_DFL)
    command.send_signal(number)
    _, said = command.communicate(timeout=60)
    assert not flow.is_running()
    assert command.returncode == 128 + number
    assert said == f"ended by {number.name}; the same command goes on where this stopped\n"


def test_a_flow_under_nohup_outlives_its_terminal(tmp_path: Path) -> None:
    command, flow = started(tmp_path, signal.SIG_IGN)
    for process in (command, flow):
        process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        command.wait(1)
    assert flow.is_running()
    command.terminate()
    command.communicate(timeout=60)
    assert not flow.is_running()
