"""A person's mistakes: one clear message, exit code 2, and nothing left behind."""

from __future__ import annotations

import json
from collections.abc import Callable

import pandas as pd
import pytest

from tests.workplace import Workplace, demand_rows

pytestmark = pytest.mark.xdist_group("server")


def _rows(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Workplace], None]:
    def spoil(project: Workplace) -> None:
        project.write_rows("2024-a.csv", change(demand_rows("2024-01-01", 90)))

    return spoil


def _duplicate_columns(project: Workplace) -> None:
    path = project.root / "data" / "2024-a.csv"
    text = path.read_text()
    path.write_text(text.replace("temperature", "shop", 1))


def _wrong_delimiter(project: Workplace) -> None:
    path = project.root / "data" / "2024-a.csv"
    path.write_text(path.read_text().replace(",", ";"))


def _empty_file(project: Workplace) -> None:
    (project.root / "data" / "2024-a.csv").write_text("")


def _no_file(project: Workplace) -> None:
    (project.root / "data" / "2024-a.csv").unlink()


CASES: dict[str, tuple[Callable[[Workplace], None], list[str]]] = {
    "no such file": (_no_file, ["data/*.csv"]),
    "empty file": (_empty_file, ["2024-a.csv", "empty"]),
    "wrong delimiter": (_wrong_delimiter, ["2024-a.csv", "delimiter"]),
    "missing label column": (_rows(lambda f: f.drop(columns="busy")), ["busy"]),
    "label of one class": (_rows(lambda f: f.assign(busy=1)), ["busy"]),
    "all-missing column": (_rows(lambda f: f.assign(temperature=None)), ["temperature", "empty"]),
    "duplicate column names": (_duplicate_columns, ["shop", "twice"]),
    "unparsable times": (_rows(lambda f: f.assign(at="yesterday")), ["at", "yesterday"]),
    "mixed types": (
        _rows(lambda f: f.assign(temperature=[("hot", 1)[i % 2] for i in range(len(f))])),
        ["temperature", "hot"],
    ),
    "unknown key": (lambda p: p.edit("objective:", "objectiv:"), ["objectiv", "objective"]),
    "features.py raises": (
        lambda p: p.edit("return temperature.clip(lower=0)", "return 1 / 0", "features.py"),
        ["features.py", "warm", "division"],
    ),
    "features.py of the wrong length": (
        lambda p: p.edit("clip(lower=0)", "clip(lower=0).head(3)", "features.py"),
        ["features.py", "warm"],
    ),
    "features.py that looks ahead": (
        lambda p: p.edit("clip(lower=0)", "shift(-1)", "features.py"),
        ["features.py", "warm", "@fitted"],
    ),
    "features.py that reads the label": (
        lambda p: p.edit("def warm(temperature: pd.Series)", "def warm(temperature, busy)", "features.py"),
        ["features.py", "warm", "busy"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_gets_one_message_and_leaves_nothing(flow_project: Workplace, case: str) -> None:
    spoil, expected = CASES[case]
    spoil(flow_project)
    process = flow_project.cli("train", "demand")
    assert process.returncode == 2, process.stdout + process.stderr
    for word in expected:
        assert word in process.stderr
    assert "Traceback" not in process.stderr
    assert process.stdout == ""
    home = flow_project.root / ".perennial"
    assert not (home / "tables" / "demand" / "_delta_log").exists() or "features.py" in case
    assert not (home / "bundles").exists()
    status = flow_project.cli("status", "demand", "--json")
    if case != "unknown key":
        assert json.loads(status.stdout)[0]["versions"] == 0


def test_a_corrupt_table_log_is_told(flow_project: Workplace) -> None:
    flow_project.run()
    log = flow_project.root / ".perennial" / "tables" / "demand" / "_delta_log"
    for entry in log.glob("*.json"):
        entry.write_text("{not json")
    process = flow_project.cli("train", "demand")
    assert process.returncode == 2
    assert "_delta_log" in process.stderr
    assert "Traceback" not in process.stderr


def test_a_tampered_champion_is_refused(flow_project: Workplace) -> None:
    first = flow_project.run()
    booster = next((flow_project.root / ".perennial" / "bundles").rglob("booster.ubj"))
    booster.write_bytes(booster.read_bytes()[:-1] + b"!")
    flow_project.edit("rounds: 60", "rounds: 50")
    process = flow_project.cli("train", "demand")
    assert process.returncode == 2
    assert "booster.ubj" in process.stderr
    assert first["bundle_digest"] in process.stderr
