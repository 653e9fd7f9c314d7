"""The prediction log under ``kill -9``: what was acknowledged is in the table, once."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from deltalake import DeltaTable

from perennial.serving.keeper import KeeperSettings
from perennial.stores.predictions.reading import predictions
from perennial.stores.predictions.waiting import segments
from tests.logged import prediction_rows, seal
from tests.waiting import until

# Appends as fast as it can, two models in turn; a line for each acknowledgement.
SERVER = """
import sys
from pathlib import Path
from perennial.stores.predictions import Spool
from tests.logged import prediction_rows

folder, name, acknowledge = sys.argv[1:]
spool = Spool(
    Path(folder), acknowledge=acknowledge, seal_bytes=200_000, seal_seconds=0.1, max_bytes=2**40
)
n = 0
while True:
    batch = prediction_rows([f"{name}-{n}-{i}" for i in range(3)], {"x": [1.0, 2.0, None]})
    written = spool.append("mn"[n % 2], "predictions", batch, {"shadow": []})
    if written is not None:
        written.result()
    sys.stdout.write(f"{n}\\n")
    sys.stdout.flush()
    n += 1
"""
# A server that starts its keeper, and then waits.
PARENT = """
import os, subprocess, sys, time
from pathlib import Path
from perennial.serving.keeper import KeeperSettings
from perennial.stores.predictions import Spool
from tests.logged import prediction_rows

home = Path(sys.argv[1])
spool = Spool(home / "spool", seal_seconds=600)
spool.append("m", "predictions", prediction_rows(["a"]), {})
settings = KeeperSettings(
    str(home), str(home / "spool"), str(home), str(home / "keeper.json"), os.getpid(),
    poll_seconds=0.05,
)
keeper = subprocess.Popen(settings.command())
print(keeper.pid, flush=True)
time.sleep(600)
"""

DEFINITION = """
name: {}
objective: binary
source: {{kind: csv, uri: x.csv, event_time: t}}
label: {{column: y}}
columns: {{x: {{type: float}}}}
log: {{keep: 36500d, compact_files: 5}}
"""


class Keepers:
    """A keeper that is killed at random moments, most of them in the middle of a commit."""

    def __init__(self, settings: KeeperSettings, seed: int) -> None:
        self._settings = settings
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.killed = 0

    def __enter__(self) -> Keepers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.is_set():
            began = time.time()
            process = subprocess.Popen(self._settings.command(), stderr=subprocess.DEVNULL)
            until(partial(self._has_worked_since, began))
            self._stop.wait(self._random.uniform(0.0, 0.4))
            process.kill()
            process.wait()
            self.killed += 1

    def _has_worked_since(self, began: float) -> bool:
        state = Path(self._settings.state)
        return self._stop.is_set() or (state.exists() and state.stat().st_mtime > began)


def serve(spool: Path, name: str, acknowledge: str, seconds: float) -> int:
    """Run a server, kill it after some seconds of work; how many records it acknowledged."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(spool), name, acknowledge],
        stdout=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        assert server.stdout is not None
        acknowledged = int(server.stdout.readline()) + 1
        threading.Timer(seconds, server.kill).start()
        for line in server.stdout:
            if line.endswith("\n"):  # the pipe's last line may be cut
                acknowledged = int(line) + 1
    return acknowledged


def logged(home: Path) -> Counter[str]:
    found: Counter[str] = Counter()
    for model in "mn":
        for batch in predictions(str(home / "predictions" / model), columns=["_id"]):
            found.update(batch["_id"].to_pylist())
    return found


def gone(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    return True


@pytest.mark.parametrize("acknowledge", ["fast", "strict"])
def test_servers_and_keepers_killed_under_load_lose_and_repeat_nothing(
    tmp_path: Path, acknowledge: str
) -> None:
    for model in "mn":
        definition = tmp_path / "models" / model / "model.yaml"
        definition.parent.mkdir(parents=True)
        definition.write_text(DEFINITION.format(model))
    settings = KeeperSettings(
        project=str(tmp_path),
        spool=str(tmp_path / "spool"),
        tables=str(tmp_path),
        state=str(tmp_path / "keeper.json"),
        parent=os.getpid(),
        poll_seconds=0.01,
        tidy_seconds=0.2,
    )
    pause = random.Random(7)
    acknowledged: dict[str, int] = {}
    with Keepers(settings, seed=11) as keepers:
        while len(acknowledged) < 4 or keepers.killed < 4:
            name = f"s{len(acknowledged)}"
            seconds = pause.uniform(0.2, 0.8)
            acknowledged[name] = serve(tmp_path / "spool", name, acknowledge, seconds)
    last = subprocess.Popen(settings.command())
    until(lambda: not list(segments(tmp_path / "spool")))
    last.terminate()
    assert last.wait(240) == 0

    assert sum(acknowledged.values()) > 100
    found = logged(tmp_path)
    assert set(found.values()) == {1}, "a row is in the table more than once"
    for name, count in acknowledged.items():
        numbers = {int(id.split("-")[1]) for id in found if id.startswith(f"{name}-")}
        assert numbers == set(range(len(numbers))), "something else was logged"
        assert len(numbers) >= count, "an acknowledged record is missing"
        rows = sum(id.startswith(f"{name}-") for id in found)
        assert rows == 3 * len(numbers), "a part of a record is missing"
    assert json.loads(Path(settings.state).read_text())["problems"] == []


def test_a_keeper_whose_server_was_killed_commits_what_it_left_and_ends(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        keeper = int(server.stdout.readline())
        until((tmp_path / "keeper.json").exists)
        assert os.getpriority(os.PRIO_PROCESS, keeper) == 10
        assert not (tmp_path / "predictions").exists()
        server.kill()
    until(lambda: gone(keeper))
    assert logged(tmp_path) == Counter(["a"])


def test_a_keeper_told_to_end_commits_what_is_sealed_first(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        keeper = int(server.stdout.readline())
        until((tmp_path / "keeper.json").exists)
        os.kill(keeper, signal.SIGSTOP)
        seal(tmp_path / "spool", prediction_rows(["b"]))
        os.kill(keeper, signal.SIGTERM)
        os.kill(keeper, signal.SIGCONT)
        until(lambda: gone(keeper))
        server.kill()
    assert logged(tmp_path) == Counter(["b"])
    assert DeltaTable(str(tmp_path / "predictions" / "m")).version() == 0
