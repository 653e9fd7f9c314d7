"""The script that the flow is compared with does the same work; else the ratio says nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.flow import check_same
from benchmarks.harness import Measured
from tests.workplace import Workplace

AS_OF = "2024-03-31T00:00:00+00:00"


def test_the_script_and_the_flow_make_the_same_model_to_the_last_bit(
    flow_project: Workplace, tmp_path: Path
) -> None:
    summary = flow_project.run(as_of=AS_OF)

    command = [sys.executable, "-m", "benchmarks.bare_script", str(flow_project.model)]
    done = subprocess.run(
        [*command, str(tmp_path / "script"), AS_OF],
        env=flow_project.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    script = Measured(1.0, 1.0, done.stdout).result()

    check_same(summary, script)
    with pytest.raises(RuntimeError, match="not the same work"):
        check_same(summary, {**script, "rounds": script["rounds"] + 1})
