"""Telling the stack's Prefect server what prefect.yaml declares, and what it can't."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from perennial.cli.stack.parts import Ports, client_environment
from perennial.cli.stack.state import logs
from perennial.contracts.errors import PerennialError
from perennial.spec.deployment import is_ours, prefect_yaml
from perennial.spec.places import FILE_NAME
from perennial.stores.folders import write_file
from perennial.stores.project import Project

_SECONDS = 120.0
_EACH_SECONDS = 5.0
"""More for each deployment: one takes a third of a second, and several where much else runs."""
_SHOWN_LINES = 12


def deploy(project: Project, ports: Ports) -> None:
    """Declare all deployments; what is declared already stays as it is. Raises PerennialError.

    Here they go to the stack's own worker, also where deploy.yaml sends them elsewhere.
    """
    declared, digest = _declared(project), _digest(project)
    deploying = ["-m", "prefect", "--no-prompt", "deploy", "--all"]
    elsewhere = (project.root / FILE_NAME).is_file()
    if elsewhere and is_ours(_prefect_yaml(project).read_text(encoding="utf-8")):
        here = project.home / "prefect" / "prefect.yaml"
        write_file(here, prefect_yaml(project.specs()))
        deploying += ["--prefect-file", str(here)]
    _run(project, ports, "prefect deploy --all", deploying, "deploy.log", declared)
    write_file(_note(project), digest)


def set_up(project: Project, ports: Ports) -> str:
    """Declare automations and alerts, as ``perennial setup`` does. Returns a line on them. Raises
    PerennialError."""
    # Whatever folders the project has, this module is the installed one.
    declaring = ["-P", "-m", "deployments"]
    printed = _run(project, ports, "perennial setup", declaring, "setup.log")
    return f"automations: as declared; {printed.splitlines()[-1]}"


def _run(
    project: Project,
    ports: Ports,
    command: str,
    arguments: Sequence[str],
    log_name: str,
    deployments: int = 0,
) -> str:
    """Run a Python program that speaks to the server. Returns what it printed, as its log does."""
    seconds = _SECONDS + _EACH_SECONDS * deployments
    log = logs(project) / log_name
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        try:
            done = subprocess.run(
                [sys.executable, *arguments],
                cwd=project.root,
                env={**client_environment(project, ports), "COLUMNS": "100"},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                timeout=seconds,
                start_new_session=True,  # Ctrl-C is for the supervisor
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise PerennialError(
                f"{command} was not done within {seconds:.0f} s; see {log}"
            ) from None
    if done.returncode:
        said = "\n".join(f"  {line}" for line in _last_lines(log))
        raise PerennialError(f"{command} failed; see {log}\n{said}")
    return log.read_text(encoding="utf-8", errors="replace").strip()


def deployed(project: Project) -> bool:
    """Whether prefect.yaml is the one that was deployed last."""
    note = _note(project)
    return note.is_file() and note.read_text(encoding="utf-8") == _digest(project)


def _last_lines(log: Path) -> list[str]:
    text = log.read_text(encoding="utf-8", errors="replace")
    return [line.rstrip() for line in text.splitlines() if line.strip()][-_SHOWN_LINES:]


def _note(project: Project) -> Path:
    return project.home / "prefect" / "deployed"


def _declared(project: Project) -> int:
    """How many deployments prefect.yaml has."""
    document = yaml.safe_load((project.root / "prefect.yaml").read_bytes())
    found = document.get("deployments") if isinstance(document, dict) else None
    return len(found) if isinstance(found, list) else 0


def _digest(project: Project) -> str:
    return hashlib.sha256(_prefect_yaml(project).read_bytes()).hexdigest()


def _prefect_yaml(project: Project) -> Path:
    return project.root / "prefect.yaml"
