"""Ending a stack: everything that has its mark and nothing else, the server last."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping

from perennial.cli.stack.parts import SERVER, WORKER, Part
from perennial.cli.stack.processes import Marked, Process, end, marked, wait
from perennial.contracts.errors import PerennialError
from perennial.stores.project import Project

_RUN_SECONDS = 10.0
_CHILD_SECONDS = 45.0

Say = Callable[[str], None]


def stop_all(project: Project, parts: Mapping[str, Part], say: Say) -> int:
    """End all processes of the stack; returns how many there were.

    First runs, then who else works, while the server still takes down what became of them, then
    the server. Each is asked as it likes to be asked, and killed when it doesn't end in its time.
    Raises PerennialError when something is left even so.
    """
    found = marked(project.home)
    leaders = [one for one in _outermost(found) if one.part in parts]
    for one in leaders:
        if one.part == WORKER:
            end_runs(project, one.process)
    _ask([one for one in leaders if one.part != SERVER], parts, say)
    # Runs that have outlived a worker before this one, and what runs have left behind.
    runs = [one.process for one in marked(project.home) if one.part == WORKER]
    end(runs, signal.SIGTERM, _RUN_SECONDS)
    # What stands beside the serving process ends with it, after the last predictions.
    wait([m.process for m in marked(project.home) if m.part != SERVER], _CHILD_SECONDS)
    _ask([one for one in leaders if one.part == SERVER], parts, say)
    end([one.process for one in marked(project.home)], signal.SIGKILL, 0.0)
    if left := marked(project.home):
        pids = ", ".join(str(one.process.pid) for one in left)
        raise PerennialError(f"processes that can't be ended, not even killed: {pids}")
    return len(found)


def end_runs(project: Project, worker: Process) -> None:
    """End the runs of a worker that is to end: each tells the server that it was stopped.

    A worker that ends kills its runs before they can say so. It is halted meanwhile, or it would
    begin what follows a run that died; it goes on when it is asked to end, or when this is
    interrupted.
    """
    worker.send(signal.SIGSTOP)
    try:
        runs = [one.process for one in marked(project.home) if one.parent == worker.pid]
        end(runs, signal.SIGTERM, _RUN_SECONDS)
    except BaseException:
        worker.send(signal.SIGCONT)
        raise


def end_strays(project: Project, known: set[Process]) -> None:
    """End parts that were started and never written down, as by a supervisor killed just then.

    Runs whose worker was killed are no strays: they go on to their end.
    """
    strays = [one.process for one in _outermost(marked(project.home)) if one.process not in known]
    end(strays, signal.SIGTERM, 5.0)


def _outermost(found: list[Marked]) -> list[Marked]:
    """Those that were started by the supervisor itself, and lead a session therefore."""
    pids = {one.process.pid for one in found}
    return [one for one in found if one.leads and one.parent not in pids]


def _ask(leaders: list[Marked], parts: Mapping[str, Part], say: Say) -> None:
    for one in leaders:
        one.process.ask(parts[one.part].stop_signal)
    for one in leaders:
        part = parts[one.part]
        if wait([one.process], part.stop_seconds):
            say(f"{part.title}: did not end within {part.stop_seconds:.0f} s, killed")
            end([one.process], signal.SIGKILL, 0.0)
