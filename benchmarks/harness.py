"""What the benchmarks share: a project of flights, a Prefect server, measured processes, tables."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from perennial.cli import prefect_server as server
from perennial.spec.documents import document_text, read_document
from perennial.stores.project import PROJECT_VARIABLE

MODEL = "flight-delay"
EXAMPLE = Path(__file__).parents[1] / "models" / "flight_delay"
LIBRARIES = ("prefect", "xgboost", "optuna", "wandb", "deltalake", "duckdb", "pandas", "numpy")

console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)


@dataclass(frozen=True, slots=True)
class Measured:
    """A process that ended well: wall clock, processor time (its children's too), and output."""

    seconds: float
    cpu_seconds: float
    output: str

    def result(self) -> dict[str, Any]:
        """The JSON object in the last line of its output."""
        found: dict[str, Any] = json.loads(self.output.strip().splitlines()[-1])
        return found


def run(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Measured:
    """Run Python with arguments in a folder, from before its start to after its end."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *command], cwd=folder, env=environment, stdout=out, stderr=err
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        if process.returncode:
            err.seek(0)
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {err.read()}")
        return Measured(seconds, usage.ru_utime + usage.ru_stime, out.read())


def run_flow(root: Path, environment: Mapping[str, str], as_of: str) -> Measured:
    """Continuous training as the command line starts it."""
    parameters = json.dumps({"model": MODEL, "as_of": as_of})
    command = ["-m", "flows", "continuous_training", parameters]
    return run(command, root, flow_environment(root, environment))


def flow_environment(root: Path, environment: Mapping[str, str]) -> dict[str, str]:
    return {
        **environment,
        "PREFECT_LOCAL_STORAGE_PATH": str(root / ".perennial" / "results"),
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        PROJECT_VARIABLE: str(root),
    }


def environment() -> dict[str, str]:
    """This one's, without settings of its own for what is measured.

    Threads that wait sleep, as the flow has it, on every side: otherwise what else runs on the
    machine would decide (see ``flows/__init__.py``).
    """
    own = ("PREFECT_", "WANDB_", "PERENNIAL_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    return {
        **kept,
        "OMP_WAIT_POLICY": "passive",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "WANDB_MODE": "offline",
    }


def write_project(
    root: Path, data: Sequence[Path], changes: Mapping[str, Mapping[str, Any]]
) -> None:
    """A project with the model of flights on these files; ``changes`` are keys of its sections."""
    folder = root / "models" / EXAMPLE.name
    (folder / "data").mkdir(parents=True)
    shutil.copy(EXAMPLE / "features.py", folder)
    document = read_document((EXAMPLE / "model.yaml").read_text(encoding="utf-8"), "model.yaml")
    for section, keys in changes.items():
        document[section] = {**document.get(section, {}), **keys}
    (folder / "model.yaml").write_text(document_text(document), encoding="utf-8")
    for path in data:
        (folder / "data" / path.name).symlink_to(path.resolve())


def write_flights(folder: Path) -> list[Path]:
    """The CSV files of the flights of 2013."""
    command = [sys.executable, str(EXAMPLE / "data.py"), str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return sorted(folder.glob("*.csv"))


@contextmanager
def prefect_server(home: Path) -> Iterator[dict[str, str]]:
    """A Prefect server on a free loopback port; yields the environment of its users."""
    users = {**environment(), "PREFECT_HOME": str(home)}
    quiet = {**users, "PREFECT_SERVER_LOGGING_LEVEL": "ERROR"}
    with server.prefect_server(home, quiet) as url:
        yield {**users, "PREFECT_API_URL": url}


def machine() -> str:
    """Cores, memory, load, Python and the versions of what is measured, in two lines."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[1]
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return (
        f"{platform.system()} {platform.machine()}, {cores} cores, {memory:.0f} GiB, "
        f"load {load:.1f} (5 minutes), Python {platform.python_version()}\n{versions}"
    )


def show(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column to the left, the others to the right."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)
