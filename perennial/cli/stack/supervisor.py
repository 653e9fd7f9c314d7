"""Starts the parts of a stack in order, starts again what dies, ends them all at the end."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime

from perennial.cli.prefect_server import free_port, is_free
from perennial.cli.stack import state as states
from perennial.cli.stack.care import Care
from perennial.cli.stack.deploying import deploy, set_up
from perennial.cli.stack.parts import SERVER, SERVING, WORKER, Part, ensure_work_pool, parts_of
from perennial.cli.stack.processes import current
from perennial.cli.stack.running import Running, trim
from perennial.cli.stack.runs import report_dead
from perennial.cli.stack.state import StackState
from perennial.cli.stack.stopping import end_runs, end_strays, stop_all
from perennial.contracts.errors import InputError, PerennialError, Problem
from perennial.stores.project import Project

_TICK_SECONDS = 1.0
_STARTING_TICK_SECONDS = 0.2
_TAKEN_OVER_SECONDS = 20.0
"""How long a part that was there already may take to answer, before it is started anew."""
_TRIM_SECONDS = 60.0
_CARE_SECONDS = 30.0

OPTIONS = {SERVER: "--port", SERVING: "--serve-port"}


def say(line: str) -> None:
    """Print what happens; whether anybody reads it is of no concern to what runs."""
    with suppress(OSError):
        print(line, flush=True)


class _EndedEarlyError(Exception):
    """Asked to end before all parts were running."""


class Supervisor:
    """One project's stack, from ``run`` to a signal."""

    def __init__(self, project: Project, wanted: Mapping[str, int]) -> None:
        """``wanted``: ports that must be these; without one the usual port is taken if it is free,
        else another."""
        self._project = project
        self._wanted = wanted
        self._stop = threading.Event()
        self._ports: dict[str, int] = {}
        self._parts = parts_of(project, self._ports)
        folder = states.logs(project)
        self._running = {name: Running(part, folder) for name, part in self._parts.items()}
        self._settled = False
        self._me = current()

    def run(self, settled: Callable[[StackState], None]) -> None:
        """Start or take over all parts, call ``settled``, and keep them running until SIGTERM,
        SIGINT or SIGHUP; then end them. Raises PerennialError when a part can't be started; what
        was running before stays then."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: self._stop.set())
        with states.lock(self._project) as mine:
            if not mine:
                raise PerennialError("another perennial up is at work for this project")
            states.logs(self._project).mkdir(parents=True, exist_ok=True)
            try:
                self._boot()
            except _EndedEarlyError:
                self._end()
                return
            except PerennialError:
                self._give_up()
                raise
            settled(self._write())
            self._watch()
            self._end()

    def _boot(self) -> None:
        before = states.read(self._project)
        for name, part in self._running.items():
            old = before.parts.get(name) if before else None
            if old is not None and old.process is not None and old.process.alive:
                part.adopt(old)
                say(f"{part.part.title}: runs already")
        self._write()
        end_strays(
            self._project,
            {part.state.process for part in self._running.values() if part.state.process},
        )
        self._choose_ports(before)
        self._start_if_absent(SERVER)
        self._start_if_absent(SERVING)
        self._await(SERVER)
        self._make_work_pool()
        self._start_if_absent(WORKER)
        deploy(self._project, self._ports)
        say("deployments: as prefect.yaml declares them")
        say(set_up(self._project, self._ports))
        self._await(WORKER)
        self._await(SERVING)
        self._settled = True

    def _choose_ports(self, before: StackState | None) -> None:
        last = {} if before is None else {name: part.port for name, part in before.parts.items()}
        for name, part in self._running.items():
            if part.part.usual_port is None:
                continue
            here = part.state.port if part.adopted else None
            self._ports[name] = here or self._free(part.part, last.get(name))
            wanted = self._wanted.get(name)
            if here is not None and wanted not in (None, 0, here):
                what = f"{wanted}, but {part.part.title} runs at {here} already"
                raise InputError(Problem(OPTIONS[name], what, "perennial down ends it"))
        worker = self._running[WORKER]
        if worker.adopted and last.get(SERVER) != self._ports[SERVER]:
            worker.drop()  # it asks at a port where the server is no more

    def _free(self, part: Part, last: int | None) -> int:
        wanted = self._wanted.get(part.name)
        if wanted:
            if not is_free(wanted):
                fix = "name another, or none: then a free one is taken"
                what = f"port {wanted} is taken by another program"
                raise InputError(Problem(OPTIONS[part.name], what, fix))
            return wanted
        if wanted != 0:
            for port in (last, part.usual_port):
                if port is not None and is_free(port):
                    return port
            say(f"{part.title}: port {last or part.usual_port} is taken, so another")
        return free_port()

    def _make_work_pool(self) -> None:
        try:
            ensure_work_pool(self._project, self._ports[SERVER])
        except OSError as error:
            log = self._running[SERVER].log
            raise PerennialError(
                f"the Prefect server does not make the work pool: {error}; see {log}"
            ) from None

    def _start_if_absent(self, name: str) -> None:
        if self._running[name].state.status == "waiting":
            self._start(self._running[name])
        self._write()

    def _start(self, part: Running) -> None:
        if part.part.name == WORKER:
            try:
                dead = report_dead(self._ports[SERVER])
            except OSError as error:  # they show as running for some minutes
                say(f"runs that died can't be told to the Prefect server: {error}")
            else:
                if dead:
                    say(f"runs that had died: {dead}")
        part.start()

    def _await(self, name: str) -> None:
        """Wait until a part is ready. Raises PerennialError when it ends or takes too long."""
        part = self._running[name]
        while part.state.status != "running":
            if self._stop.is_set():
                raise _EndedEarlyError
            if self._look():
                continue
            if part.displaced and not part.adopted:
                self._move(part)
            elif part.adopted and (part.ended or part.seconds > _TAKEN_OVER_SECONDS):
                say(f"{part.part.title}: does not answer, so it is started anew")
                part.drop()
                self._start_if_absent(name)
            elif part.ended:
                what = f"{part.part.title} {part.how_it_ended()}"
                raise PerennialError(f"{what}; see {part.log}")
            elif part.overdue:
                what = f"{part.part.title} did not answer within {part.part.ready_seconds:.0f} s"
                raise PerennialError(f"{what}; see {part.log}")
            else:
                self._stop.wait(_STARTING_TICK_SECONDS)

    def _move(self, part: Running) -> None:
        """Start a part anew at another port: its own, free when it was chosen, has been taken.
        Raises PerennialError when it must be that one."""
        name, port = part.part.name, self._ports[part.part.name]
        if self._wanted.get(name):
            fix = f"run again when it is free, or name another by {OPTIONS[name]}"
            raise PerennialError(
                f"{part.part.title}: port {port} was taken by another program meanwhile ({fix})"
            )
        say(f"{part.part.title}: port {port} was taken by another program meanwhile, so another")
        part.end()
        self._drop_after(part)
        self._ports[name] = free_port()
        self._start_if_absent(name)

    def _look(self) -> bool:
        """Ask all parts that are starting. Returns whether any has become ready."""
        ready = [part for part in self._running.values() if part.look()]
        for part in ready:
            where = f" at http://127.0.0.1:{part.state.port}" if part.state.port else ""
            say(f"{part.part.title}: ready after {part.seconds:.1f} s{where}")
        if ready:
            self._write()
        return bool(ready)

    def _watch(self) -> None:
        trimmed = time.monotonic()
        # In a thread: a registry that doesn't answer must not keep parts from being started again.
        threading.Thread(target=self._care_for_rollouts, daemon=True).start()
        while not self._stop.is_set():
            for part in self._running.values():
                self._keep(part)
            self._look()
            if time.monotonic() - trimmed > _TRIM_SECONDS:
                trimmed = time.monotonic()
                for log in states.logs(self._project).glob("*.log"):
                    trim(log)
            starting = any(part.state.status != "running" for part in self._running.values())
            self._stop.wait(_STARTING_TICK_SECONDS if starting else _TICK_SECONDS)

    def _care_for_rollouts(self) -> None:
        care, last = Care(self._project), ""
        while not self._stop.wait(_CARE_SECONDS):
            if self._running[SERVER].state.status != "running":
                continue
            try:
                for line in care.look(self._ports[SERVER], datetime.now(UTC)):
                    say(line)
                problem = ""
            except Exception as error:  # whatever it is, the next look may be better
                problem = f"rollouts can't be looked after: {error}"
            if problem and problem != last:
                say(problem)
            last = problem

    def _keep(self, part: Running) -> None:
        """Look after one part: note its end, start it again when it is time."""
        before = part.state
        title = part.part.title
        needed = part.part.after
        if (displaced := part.displaced) or part.ended or part.overdue:
            if displaced:
                what = f"port {part.state.port} was taken by another program"
            else:
                what = part.how_it_ended() if part.ended else "does not answer and is killed"
            part.kill()
            if displaced:
                self._drop_after(part)
            seconds = part.failed(f"{what}; see {part.log}")
            say(f"{title}: {what}, is started again in {seconds:.1f} s; see {part.log}")
        elif part.due and (needed is None or self._running[needed].state.status == "running"):
            self._start(part)
        if part.state != before:
            self._write()

    def _drop_after(self, part: Running) -> None:
        """End what speaks to a part at a port that is another program's now."""
        for other in self._running.values():
            if other.part.after == part.part.name and other.state.status != "waiting":
                other.drop()

    def _write(self) -> StackState:
        parts = {name: part.state for name, part in self._running.items()}
        state = StackState(supervisor=self._me, settled=self._settled, parts=parts)
        try:
            states.write(self._project, state)
        except (OSError, PerennialError) as error:  # a full disk must not end what runs
            say(f"the state of the stack can't be written: {error}")
        return state

    def _give_up(self) -> None:
        """End what this start has started. What ran before it goes on."""
        if not any(part.adopted for part in self._running.values()):
            stop_all(self._project, self._parts, say)
            states.remove(self._project)
            return
        for part in reversed(self._running.values()):  # the server last
            if part.adopted:
                continue
            if part.part.name == WORKER and part.state.process is not None:
                end_runs(self._project, part.state.process)
            part.end()
        self._write()

    def _end(self) -> None:
        say("stopping")
        stop_all(self._project, self._parts, say)
        states.remove(self._project)
        say("stopped")
