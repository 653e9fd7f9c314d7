"""A training's tracker lives no longer than whoever asked for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from distributed import Client, LocalCluster

from perennial.stores import rendezvous
from tests.waiting import until

START = """
import sys, time
from distributed import Client
from perennial.stores import rendezvous

client = Client(sys.argv[1], set_as_default=False)
print(client.run_on_scheduler(rendezvous.start, 2, "127.0.0.1", client.id)[0], flush=True)
time.sleep(600)
"""


@contextmanager
def scheduler() -> Iterator[str]:
    """The address of one in this process, without workers."""
    with LocalCluster(
        n_workers=0, processes=False, protocol="tcp://", dashboard_address=None
    ) as place:
        yield place.scheduler_address


def tracker_of(name: str) -> psutil.Process:
    return psutil.Process(rendezvous._trackers[name].pid)


def test_a_tracker_ends_with_a_client_that_was_killed_and_no_other_does() -> None:
    with (
        scheduler() as address,
        scheduler() as elsewhere,
        Client(address, set_as_default=False) as beside,
        Client(elsewhere, set_as_default=False) as apart,
    ):
        lives = [
            client.run_on_scheduler(rendezvous.start, 2, "127.0.0.1", client.id)[0]
            for client in (beside, apart)
        ]
        with subprocess.Popen(
            [sys.executable, "-c", START, address], stdout=subprocess.PIPE, text=True
        ) as killed:
            assert killed.stdout is not None
            name = killed.stdout.readline().strip()
            tracker = tracker_of(name)
            assert tracker.is_running()
            killed.kill()
        until(lambda: not tracker.is_running(), 30)
        assert list(rendezvous._trackers) == lives
        assert all(tracker_of(name).status() != psutil.STATUS_ZOMBIE for name in lives)

        beside.run_on_scheduler(rendezvous.end, lives[0])
        assert list(rendezvous._trackers) == lives[1:]
        apart.run_on_scheduler(rendezvous.end, lives[1])
        until(lambda: not rendezvous._watching, 30)


def test_a_tracker_finds_perennial_where_its_scheduler_does_and_nothing_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "calendar.py").write_text("raise SystemExit(3)\n")
    monkeypatch.setattr(sys, "path", [str(Path(folder).resolve()) for folder in sys.path])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    tracker, found = rendezvous._started(1, "127.0.0.1")
    with tracker:
        tracker.kill()
    assert found["dmlc_tracker_port"]
