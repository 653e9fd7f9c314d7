"""From a data file to a version that serves, with the commands of the README and nothing else."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris

from tests.fuzz.served import serving
from tests.workplace import Workplace

ROOT = Path(__file__).parents[2]
FLIGHTS = ROOT / "models" / "flight_delay" / "data.py"


def _tumours(folder: Path) -> list[str]:
    load_breast_cancer(as_frame=True).frame.to_csv(folder / "tumours.csv", index=False)
    return ["--data", "tumours.csv", "--label", "target"]


def _species(folder: Path) -> list[str]:
    load_iris(as_frame=True).frame.to_parquet(folder / "species.parquet", index=False)
    return ["--data", "species.parquet", "--label", "target"]


def _progress(folder: Path) -> list[str]:
    frame = load_diabetes(as_frame=True, scaled=False).frame
    frame.to_csv(folder / "progress.csv", index=False, sep=";")
    return ["--data", "progress.csv", "--label", "target"]


def _flights(folder: Path) -> list[str]:
    january = runpy.run_path(str(FLIGHTS))["write"](folder / "flights")[0]
    january.rename(folder / "january.csv")
    return ["--data", "january.csv", "--label", "delayed", "--time", "time_hour"]


@pytest.fixture
def fresh(flow_project: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """An empty folder to work in; no variable names the project."""
    environment = dict(flow_project.environment)
    for ours in ("PERENNIAL_PROJECT", "WANDB_MODE"):
        del environment[ours]
    root = tmp_path_factory.mktemp("fresh")
    environment["PREFECT_LOCAL_STORAGE_PATH"] = str(root / ".perennial" / "results")
    return Workplace(root, environment)


def done(place: Workplace, *arguments: str) -> str:
    """What a command that must succeed prints."""
    process = place.cli(*arguments)
    assert (process.returncode, process.stderr) == (0, ""), process.stdout + process.stderr
    return process.stdout


def read(place: Workplace, *arguments: str) -> Any:
    process = place.command(*arguments, "--json")
    assert (process.returncode, process.stderr) == (0, "")
    return json.loads(process.stdout)


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize("data", [_tumours, _species, _progress], ids=lambda d: d.__name__[1:])
def test_a_data_file_becomes_a_version_that_serves_in_three_commands(
    fresh: Workplace, data: Callable[[Path], list[str]]
) -> None:
    done(fresh, "init", "first", *data(fresh.root))
    assert "features: computed for" in done(fresh, "check")
    summary = read(fresh, "train", "first")
    assert (summary["decision"]["action"], summary["champion"]["version"]) == ("promoted", 1)
    assert all(Path(summary[key]).exists() for key in ("bundle_uri", "report_uri"))

    (status,) = read(fresh, "status")
    assert status["champion"]["digest"] == summary["bundle_digest"]
    (version,) = read(fresh, "versions", "first")
    assert version["champion"]
    shown = read(fresh, "show", "first@1")
    assert shown["lineage"]["dataset"]["rows"] == sum(shown["lineage"]["rows"].values())
    assert read(fresh, "quarantine", "first") == {"count": 0, "rows": []}


def test_a_file_with_times_becomes_a_version_that_can_be_made_again(fresh: Workplace) -> None:
    done(fresh, "init", "delays", *_flights(fresh.root))
    model, january = fresh.root / "models" / "delays" / "model.yaml", fresh.root / "january.csv"
    _edit(model, "trials: 30", "trials: 4")
    _edit(january, ",JFK,MIA,540,850,1089,", ",JFK,MIA,540,850,-1089,")
    said = done(fresh, "check", "delays")
    assert "1 row for quarantine" in said

    printed = done(fresh, "train", "delays", "--reason", "first try")
    assert "promoted: version 1" in printed
    assert "\x1b" not in printed
    found = read(fresh, "quarantine", "delays")
    assert found["count"] == 1
    assert "distance" in found["rows"][0]["reason"]
    _edit(model, "distance: {type: integer, min: 0", "distance: {type: integer, min: -9999")
    back = read(fresh, "quarantine", "delays", "--put-back")
    assert (back["checked"], back["put_back"]) == (1, 1)
    assert read(fresh, "quarantine", "delays")["count"] == 0

    assert "version 2 holds the" in done(fresh, "data", "delays", "restore", "0")
    again = read(fresh, "reproduce", "delays@1")
    assert (again["identical"], again["differences"]) == (True, [])


def _customers(path: Path) -> None:
    """What the README's customers.csv would have, every value of every row."""
    random, rows = np.random.default_rng(1), 2000
    age, plan = random.integers(18, 80, rows), random.choice(["basic", "plus", "pro"], rows)
    chance = 1 / (1 + np.exp((age - 40) / 10 - (plan == "basic")))
    frame = {
        "signed_up": pd.date_range("2025-03-01", periods=rows, freq="4h"),
        "plan": plan,
        "age": age,
        "churned": np.where(random.random(rows) < chance, "yes", "no"),
    }
    pd.DataFrame(frame).to_csv(path, index=False)


def _told(head: str) -> list[str]:
    """The words of the README's command that begins so."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(rf"^\$ ({head}\b.*)$", readme, re.MULTILINE)
    return shlex.split(line, comments=True)


def test_the_model_that_the_readme_makes_answers_the_request_that_it_shows(
    fresh: Workplace,
) -> None:
    _customers(fresh.root / "customers.csv")
    done(fresh, *_told("perennial init churn")[1:])
    _edit(fresh.root / "models" / "churn" / "model.yaml", "trials: 30", "trials: 4")
    done(fresh, *_told("perennial train churn")[1:])

    *_, address, _, row = _told("curl -s localhost:8080/models/churn/predict")
    path = address.removeprefix("localhost:8080")
    with serving(fresh.root, wait_for=["churn"]) as server:
        columns = server.ask("GET", path.removesuffix("/predict")).json()["columns"]
        answer = server.ask("POST", path, json=json.loads(row))

    assert [c["name"] for c in columns if c["required"]] == list(json.loads(row))
    assert (answer.status_code, answer.json()["version"]) == (200, 1), answer.text
