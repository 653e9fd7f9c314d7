"""Prefect's own engine asks what is worth trying again."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.workplace import Workplace

_PROGRAM = """
import json, sys
from prefect import task
from perennial.contracts import errors
from tasks._running import RETRIES

tries = 0

@task(**{**RETRIES, "retry_delay_seconds": [0.01, 0.01, 0.01]})
def work(kind, failures):
    global tries
    tries += 1
    if tries <= failures:
        raise getattr(errors, kind)("told to fail")
    return "done"

try:
    result = work(sys.argv[1], int(sys.argv[2]))
except errors.PerennialError as error:
    result = type(error).__name__
print(json.dumps([tries, result]))
"""


@pytest.mark.parametrize(
    ("kind", "failures", "came"),
    [
        ("UnavailableError", 2, [3, "done"]),
        ("UnavailableError", 9, [4, "UnavailableError"]),
        ("InputError", 1, [1, "InputError"]),
    ],
)
def test_a_task_is_tried_again_only_for_what_may_pass_by_itself(
    flow_project: Workplace, kind: str, failures: int, came: list[object]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, kind, str(failures)],
        env={**flow_project.environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == came
