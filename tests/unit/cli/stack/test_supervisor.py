"""The supervisor, with small processes as parts."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from perennial.cli.prefect_server import free_port, is_answered
from perennial.cli.stack import supervisor
from perennial.cli.stack.parts import SERVER, SERVING, WORKER, Part, Ports, Server, Serving, Worker
from perennial.cli.stack.processes import marked
from perennial.cli.stack.supervisor import Supervisor
from perennial.contracts.errors import PerennialError
from perennial.stores.project import Project
from tests.waiting import until

LISTEN = "import socket, time; s = socket.create_server(('127.0.0.1', {})); time.sleep(60)"


class Raced(Server):
    """Another program takes its first port just when it is started."""

    others: ExitStack
    tried: list[int]

    def command(self) -> list[str]:
        port = self.ports[SERVER]
        self.tried.append(port)
        if len(self.tried) > 1:
            return [sys.executable, "-c", LISTEN.format(port)]
        self.others.enter_context(socket.create_server(("127.0.0.1", port)))
        return ["sleep", "60"]

    def ready(self, _at: object) -> bool:
        return is_answered(self.ports[SERVER])


class Idle(Serving):
    def command(self) -> list[str]:
        return ["sleep", "60"]


@pytest.fixture
def raced(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Raced]]:
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}

    def parts_of(project: Project, ports: Ports) -> dict[str, Part]:
        kinds: dict[str, type[Part]] = {SERVER: Raced, SERVING: Idle, WORKER: Worker}
        return {name: kind(project, ports) for name, kind in kinds.items()}

    monkeypatch.setattr(supervisor, "parts_of", parts_of)
    Raced.tried = []
    with ExitStack() as Raced.others:
        yield Raced
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ports of the servers that were to make a work pool; none can."""
    ports = []

    def refuse(_project: Project, port: int) -> None:
        ports.append(port)
        raise OSError("no")

    monkeypatch.setattr(supervisor, "ensure_work_pool", refuse)
    return ports


def test_a_port_that_was_asked_for_and_taken_meanwhile_ends_the_start(
    raced: type[Raced], asked: list[int], tmp_path: Path
) -> None:
    project, port = Project(tmp_path), free_port()
    with pytest.raises(PerennialError, match=f"port {port} was taken by another .* --port"):
        Supervisor(project, {SERVER: port, SERVING: 0}).run(lambda _: None)
    assert (raced.tried, asked) == ([port], [])
    until(lambda: not marked(project.home))


def test_another_port_is_found_when_the_first_is_taken_meanwhile(
    raced: type[Raced], asked: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(PerennialError, match="does not make the work pool"):
        Supervisor(Project(tmp_path), {SERVER: 0, SERVING: 0}).run(lambda _: None)
    first, second = raced.tried
    assert asked == [second]
    said = capsys.readouterr().out
    assert (
        f"Prefect server: port {first} was taken by another program meanwhile, so another" in said
    )
