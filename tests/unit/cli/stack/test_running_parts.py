"""One part under supervision, with small real processes."""

from __future__ import annotations

import shlex
import signal
import socket
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from perennial.cli.prefect_server import free_port, is_answered
from perennial.cli.stack import running as running_module
from perennial.cli.stack.parts import Part, Worker, parts_of, runs_at_once
from perennial.cli.stack.processes import find
from perennial.cli.stack.running import Running
from perennial.stores.project import Project
from tests.waiting import until


class Sleeper(Part):
    """Ready as soon as it has written a line."""

    name = "sleeper"
    title = "sleeper"
    ready_seconds = 60.0
    stop_seconds = 5.0
    script = "echo ready; exec sleep 60"

    def command(self) -> list[str]:
        return ["sh", "-c", self.script]

    def environment(self) -> dict[str, str]:
        return {"PATH": "/usr/bin:/bin"}

    def ready(self, _at: datetime) -> bool:
        return "ready" in (self.project.root / "sleeper.log").read_text()


class Failing(Sleeper):
    script = "exit 3"


@pytest.fixture
def part(tmp_path: Path) -> Iterator[Running]:
    found = Running(Sleeper(Project(tmp_path), {}), tmp_path)
    yield found
    found.kill()


def until_ready(part: Running) -> None:
    deadline = time.monotonic() + 240
    while not part.look():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kill(part: Running) -> None:
    assert part.state.process is not None
    part.state.process.send(signal.SIGKILL)
    deadline = time.monotonic() + 240
    while not part.ended:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_part_waits_then_starts_then_runs(part: Running) -> None:
    assert (part.state.status, part.due, part.ended) == ("waiting", True, False)
    part.start()
    assert part.state.status == "starting"
    until_ready(part)
    assert (part.state.status, part.ended) == ("running", False)
    assert not part.look()  # it has become so once


def test_a_part_that_was_killed_says_how_and_waits_longer_each_time(part: Running) -> None:
    waits = []
    for _ in range(8):
        part.start()
        kill(part)
        assert part.how_it_ended() == "ended by SIGKILL"
        waits.append(part.failed("killed"))
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert (part.state.status, part.state.process, part.state.restarts) == ("waiting", None, 8)
    assert part.state.problem == "killed"
    assert not part.due


def test_a_part_that_ran_for_a_while_is_soon_started_again(
    part: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_module, "_SETTLED_SECONDS", 0.0)
    waits = []
    for _ in range(3):
        part.start()
        until_ready(part)
        kill(part)
        waits.append(part.failed("killed"))
    assert waits == [0.5, 0.5, 0.5]


def test_a_part_is_taken_over_and_ended_as_it_likes(part: Running, tmp_path: Path) -> None:
    part.start()
    until_ready(part)
    other = Running(part.part, tmp_path)
    other.adopt(part.state)
    assert (other.state.status, other.adopted, other.ended) == ("starting", True, False)
    until_ready(other)
    other.end()
    assert part.ended
    assert part.how_it_ended() == "ended by SIGTERM"


def test_a_part_that_was_left_halted_goes_on_when_it_is_taken_over(
    part: Running, tmp_path: Path
) -> None:
    part.start()
    until_ready(part)
    process = part.state.process
    assert process is not None
    process.send(signal.SIGSTOP)
    until(lambda: run_state(process.pid) == "T")
    Running(part.part, tmp_path).adopt(part.state)
    until(lambda: run_state(process.pid) != "T")
    assert process.alive


def run_state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


class Listening(Sleeper):
    """Ready when anybody answers at its port. Its process listens there itself, by a child."""

    code = "import socket, time; s = socket.create_server(('127.0.0.1', {})); time.sleep(60)"

    def command(self) -> list[str]:
        python = shlex.join([sys.executable, "-c", self.code.format(self.ports[self.name])])
        return ["sh", "-c", f"{python} & wait"]

    def ready(self, _at: datetime) -> bool:
        return is_answered(self.ports[self.name])


class Slow(Listening):
    code = "import time; time.sleep(60)  # {}"


def test_a_part_whose_process_listens_has_its_port(tmp_path: Path) -> None:
    part = Running(Listening(Project(tmp_path), {"sleeper": free_port()}), tmp_path)
    part.start()
    try:
        assert not part.displaced
        until_ready(part)
        assert not part.displaced
    finally:
        part.end()


@pytest.mark.parametrize("kind", [Slow, Listening])
def test_what_else_answers_at_its_port_is_not_taken_for_a_part(
    tmp_path: Path, kind: type[Listening]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        part = Running(kind(Project(tmp_path), {"sleeper": other.getsockname()[1]}), tmp_path)
        assert not part.displaced  # before it is started
        part.start()
        try:
            assert part.part.ready(part.state.at)
            assert not part.look()
            assert part.displaced
            if kind is Listening:  # which can't, and ends
                until(lambda: part.ended)
                assert part.displaced
        finally:
            part.kill()
    assert not part.displaced


class Beating(Sleeper):
    """Ready as a worker is: by a sign of life since it was started or taken over."""

    beat: datetime

    def ready(self, at: datetime) -> bool:
        return self.beat >= at


def test_what_a_part_did_before_it_was_taken_over_does_not_make_it_ready(tmp_path: Path) -> None:
    beating = Beating(Project(tmp_path), {})
    part, other = Running(beating, tmp_path), Running(beating, tmp_path)
    part.start()
    try:
        beating.beat = datetime.now(UTC)
        assert part.look()
        other.adopt(part.state)
        assert not other.look()
        assert other.state.at == part.state.at  # when it was started
        beating.beat = datetime.now(UTC)
        assert other.look()
    finally:
        part.kill()


def test_a_part_that_ends_at_once_has_ended(tmp_path: Path) -> None:
    part = Running(Failing(Project(tmp_path), {}), tmp_path)
    part.start()
    deadline = time.monotonic() + 240
    while not part.ended:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert part.how_it_ended() == "ended with exit code 3"
    assert not part.look()


def test_a_log_that_grew_is_cut_while_its_writer_goes_on(
    part: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_module, "_LOG_BYTES", 3)
    part.start()
    until_ready(part)
    running_module.trim(part.log)
    assert part.log.read_text() == ""
    assert (tmp_path / "sleeper.log.1").read_text() == "ready\n"
    assert part.state.process is not None
    assert find(part.state.process.pid) == part.state.process


def test_the_servers_database_is_told_to_the_server_and_to_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "postgresql+asyncpg://prefect:secret@db.example.com/prefect"
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", address)
    monkeypatch.setenv("PERENNIAL_REGISTRY_URL", "postgresql://app@db.example.com/perennial")
    project, ports = Project(tmp_path), {"server": 4200, "serving": 8080}
    parts = parts_of(project, ports)
    given = {name: part.environment() for name, part in parts.items()}
    assert given["server"]["PREFECT_SERVER_DATABASE_CONNECTION_URL"] == address
    assert "secret" not in str(given["worker"])
    for name in ("worker", "serving"):
        assert given[name]["PERENNIAL_REGISTRY_URL"].endswith("/perennial")


@pytest.mark.parametrize(("gib", "runs"), [(1, 4), (3, 4), (8, 10), (24, 32), (256, 341)])
def test_a_worker_has_no_more_runs_at_once_than_there_is_memory_for(gib: int, runs: int) -> None:
    assert runs_at_once(gib * 2**30) == runs


def test_the_worker_is_told_its_limit(tmp_path: Path) -> None:
    command = Worker(Project(tmp_path), {}).command()
    assert int(command[command.index("--limit") + 1]) >= 4
