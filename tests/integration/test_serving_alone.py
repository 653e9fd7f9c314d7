"""Serving installs and runs without what only training needs."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from importlib.metadata import distribution, requires
from pathlib import Path

from packaging.requirements import Requirement

from tests.fuzz.served import ROW, make_project, serving

TRAINING_ONLY = ("prefect", "optuna", "evidently", "wandb", "scikit-learn", "duckdb", "pandera")


def closure(extra: str) -> set[str]:
    """The distributions that ``pip install perennial[extra]`` would bring."""
    found: set[str] = set()
    waiting = [("perennial", frozenset({extra}))]
    while waiting:
        name, extras = waiting.pop()
        for text in requires(name) or ():
            requirement = Requirement(text)
            marked = requirement.marker is None or any(
                requirement.marker.evaluate({"extra": one}) for one in (extras or {""})
            )
            key = requirement.name.lower().replace("_", "-")
            if marked and key not in found:
                found.add(key)
                waiting.append((key, frozenset(requirement.extras)))
    return found


def site_of(names: set[str], folder: Path) -> None:
    """A folder of packages with just these distributions, linked."""
    for name in names:
        for file in distribution(name).files or ():
            if file.parts[0] == "..":
                continue
            place = folder / file
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists():
                os.link(Path(str(file.locate())).resolve(), place)


def test_serving_needs_none_of_what_only_training_needs(tmp_path: Path) -> None:
    names = closure("serving")
    assert not names & set(TRAINING_ONLY)
    assert {"uvicorn", "xgboost", "deltalake"} <= names
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    release = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = tmp_path / "venv" / "lib" / release / "site-packages"
    site_of(names, site)
    (site / "perennial").symlink_to(Path(__file__).parents[2] / "perennial")
    metadata = Path(str(distribution("perennial").locate_file(""))).glob("perennial-*.dist-info")
    for folder in metadata:
        (site / folder.name).symlink_to(folder)
    for package in ("prefect", "optuna", "evidently", "wandb", "sklearn"):
        tried = subprocess.run(
            [python, "-c", f"import {package}"], capture_output=True, check=False
        )
        assert f"No module named '{package}'".encode() in tried.stderr
    make_project(tmp_path)
    with serving(tmp_path, python=python) as server:
        assert server.ask("POST", "/models/parcels/predict", json=ROW).status_code == 200
        assert server.ask("GET", "/").status_code == 200
    assert (tmp_path / ".perennial" / "predictions" / "parcels" / "_delta_log").is_dir()
