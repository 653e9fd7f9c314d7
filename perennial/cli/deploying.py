"""prefect.yaml beside the models, from them and deploy.yaml: written, compared, and never written
over somebody's own."""

from __future__ import annotations

from pathlib import Path

from perennial.contracts.errors import InputError, Problem
from perennial.spec.deployment import is_ours, prefect_yaml
from perennial.spec.places import FILE_NAME, load_deploy
from perennial.stores.folders import write_file
from perennial.stores.project import Project

_HOW = "perennial check --write writes it"


def write_prefect_yaml(project: Project) -> str:
    """Write it for all models, and say so. Raises InputError for one that somebody else wrote."""
    path, there = _there(project)
    if there is not None and not is_ours(there):
        fix = "keep your own deployments in a file of another name; prefect deploy --prefect-file"
        raise InputError(Problem(str(path), "was not written by Perennial, so it was kept", fix))
    text = _text(project)
    if there != text:
        write_file(path, text)
        return f"wrote {path}"
    return f"{path.name}: in step with the models"


def compare_prefect_yaml(project: Project) -> str:
    """What there is to say of it. Raises InputError when it is Perennial's and out of date."""
    path, there = _there(project)
    if there is None:
        return f"{path.name}: none, needed for deployments only; {_HOW}"
    if not is_ours(there):
        return f"{path.name}: not written by Perennial, not compared"
    if there != _text(project):
        raise InputError(Problem(str(path), "differs from what the models say", _HOW))
    return f"{path.name}: in step with the models"


def _text(project: Project) -> str:
    return prefect_yaml(project.specs(), load_deploy(project.root / FILE_NAME))


def _there(project: Project) -> tuple[Path, str | None]:
    path = project.root / "prefect.yaml"
    return path, path.read_text(encoding="utf-8") if path.is_file() else None
