"""A study in a process that is killed: the next process ends it as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from perennial.contracts.features import Feature, FeatureSchema
from perennial.learning.matrices import Matrices
from perennial.learning.tracking import StudyTracker
from perennial.learning.tuning import tune
from perennial.spec import parse_spec
from tests.contract import postgres

pytest_plugins = ["tests.contract.databases"]

SPEC = """\
name: small
objective: binary
source: {kind: csv, uri: small.csv, event_time: at}
label: {column: y}
columns: {a: {type: float}}
training: {rounds: 60}
tuning: {trials: 10, batch: 4}
"""


def study(url: str, directory: str, workers: str, stop: str) -> None:
    """What the other process runs: a line a trial, then its trials as JSON; or waits at ``stop``
    for its end, while the other trials of the round go on."""

    def tell(done: int, *_: object) -> None:
        print(done, flush=True)
        if done == int(stop):
            signal.pause()

    random = np.random.default_rng(3)
    x = random.normal(size=(6_000, 6)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] * x[:, 2] + random.normal(size=len(x)) > 0).astype(np.float32)
    schema = FeatureSchema(
        inputs=(), features=tuple(Feature(name=f"f{i}") for i in range(6)), classes=("0", "1")
    )
    result = tune(
        parse_spec(SPEC),
        Matrices(x[:4_000], y[:4_000], x[4_000:], y[4_000:], schema),
        study_name="s",
        storage_url=url,
        workers=int(workers),
        tracker=StudyTracker("small", Path(directory)),
        progress=tell,
    )
    records = [{**asdict(record), "seconds": 0.0} for record in result.records]
    print(json.dumps({"records": records, "importances": result.importances}))


def start(url: str, directory: Path, workers: int, stop: int = 0) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    return subprocess.Popen(
        [sys.executable, __file__, url, str(directory), str(workers), str(stop)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    return result


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The study in one process that nobody touches."""
    folder = tmp_path_factory.mktemp("calm")
    return finish(start(f"sqlite:///{folder}/studies.db", folder, 1))


def test_a_study_killed_twice_ends_as_if_it_had_not_been(
    registry_url: str, tmp_path: Path, calm: dict[str, Any]
) -> None:
    url = registry_url
    for trials in (3, 6):  # in the middle of the first round and of the second
        process = start(url, tmp_path, 2, stop=trials)
        assert process.stdout is not None
        while int(process.stdout.readline()) < trials:
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=240)
        assert process.returncode == -signal.SIGKILL
        kept = optuna.load_study(study_name="s", storage=url).trials
        assert len(kept) == trials
        assert all(trial.state.is_finished() for trial in kept), "nothing looks as if it ran"
        assert_gone(process.pid)

    assert finish(start(url, tmp_path, 1)) == calm
    numbers = [
        trial.user_attrs["perennial"]["number"]
        for trial in optuna.load_study(study_name="s", storage=url).trials
    ]
    assert numbers == list(range(10)), "every place is kept once"


@pytest.mark.parametrize(
    "registry_url", ["postgresql" if postgres.binaries() else "sqlite"], indirect=True
)
def test_two_processes_that_run_one_study_come_to_the_same_result(
    registry_url: str, tmp_path: Path, calm: dict[str, Any]
) -> None:
    url = registry_url
    both = [start(url, tmp_path / str(i), 1) for i in range(2)]
    assert [finish(process) for process in both] == [calm, calm]
    assert finish(start(url, tmp_path, 1)) == calm


def assert_gone(parent: int) -> None:
    """W&B's own process follows a killed one soon."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        processes = subprocess.run(
            ["ps", "-eo", "args"], capture_output=True, text=True, check=True
        )
        if f"--pid {parent}" not in processes.stdout:
            return
        time.sleep(0.2)
    pytest.fail(f"a process of the killed {parent} is still there after 30 s")


if __name__ == "__main__":
    study(*sys.argv[1:])
