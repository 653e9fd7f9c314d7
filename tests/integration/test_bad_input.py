"""A person's mistakes: one clear message, exit code 2, and nothing left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import pandas as pd
import pytest

from tests.workplace import Workplace, demand_rows

Spoil = Callable[[Workplace], object]

ROWS_LEFT = "mend the source or the rules of these columns; the rows, as Parquet: "
OWN_ROW = (
    "use this row's columns only; what is learnt from other rows belongs in a function with @fitted"
)


def _rows(change: Callable[[pd.DataFrame], pd.DataFrame], project: Workplace) -> None:
    project.write_rows("2024-a.csv", change(demand_rows("2024-01-01", 90)))


def _text(change: Callable[[str], str], project: Workplace) -> None:
    path = project.root / "data" / "2024-a.csv"
    path.write_text(change(path.read_text()))


def _spec(old: str, new: str, project: Workplace) -> None:
    project.edit(old, new)


def _code(new: str, project: Workplace) -> None:
    project.edit("temperature.clip(lower=0)", new, file="features.py")


# What is wrong, how it comes about, and what is said ({root} stands for the project's folder).
TOLD_AT_ONCE: dict[str, tuple[Spoil, str]] = {
    "no such file": (
        lambda p: (p.root / "data" / "2024-a.csv").unlink(),
        "{root}/data/*.csv: no file matches (source.uri is relative to {root})",
    ),
    "empty file": (
        lambda p: (p.root / "data" / "2024-a.csv").write_text(""),
        "{root}/data/2024-a.csv: empty file",
    ),
    "wrong delimiter": (
        partial(_text, lambda text: text.replace(",", ";")),
        "{root}/data/2024-a.csv, header: with the delimiter ',' there is only one column: "
        "'at;shop;temperature;weekday;promotion;busy' (set source.delimiter: \";\" in model.yaml)",
    ),
    "missing label column": (
        partial(_rows, lambda rows: rows.drop(columns="busy")),
        "{root}/data/2024-a.csv, header: the label column 'busy' is not there "
        "(its columns: at, shop, temperature, weekday, promotion)",
    ),
    "duplicate column names": (
        partial(_text, lambda text: text.replace("temperature", "shop", 1)),
        "{root}/data/2024-a.csv, header: column names given twice: 'shop' "
        "(give each column its own name)",
    ),
    "unknown key": (
        partial(_spec, "objective:", "objectiv:"),
        "{root}/models/demand/model.yaml, objectiv: unknown key 'objectiv'; "
        "did you mean 'objective'?",
    ),
    "features.py raises": (
        partial(_code, "1 / 0"),
        "features.py, line 7, warm(): raised ZeroDivisionError: division by zero",
    ),
    "features.py of the wrong length": (
        partial(_code, "temperature.head(3)"),
        "features.py, line 6, warm(): returns 3 values for 2,000 rows "
        "(return one value for each row, in the same order)",
    ),
    "features.py that looks ahead": (
        partial(_code, "temperature.shift(-1)"),
        "features.py, line 6, warm(): the feature 'warm' looks at other rows: row 0 of 2,000 has "
        f"18.57 in the whole table and a missing value on its own ({OWN_ROW})",
    ),
    "features.py that reads the label": (
        lambda p: p.edit("warm(temperature:", "warm(busy:", file="features.py"),
        "features.py, line 6, warm(): the parameter 'busy' is the label, which no feature may read "
        "(remove it: nobody knows it at prediction time)",
    ),
    "features.py that is no Python": (
        partial(_code, "temperature.clip("),
        "features.py, line 7: not valid Python: '(' was never closed",
    ),
}


@pytest.mark.parametrize("case", TOLD_AT_ONCE)
def test_what_can_be_told_at_once_is_told_before_a_flow_starts(
    project: Workplace, case: str
) -> None:
    spoil, message = TOLD_AT_ONCE[case]
    spoil(project)
    process = project.command("train", "demand")
    assert process.stderr == message.format(root=project.root) + "\n"
    assert (process.returncode, process.stdout) == (2, "")
    assert not (project.root / ".perennial").exists()


# These are found in all rows, by the flow.
TOLD_BY_THE_AUDIT: dict[str, tuple[Spoil, str]] = {
    "label of one class": (
        partial(_rows, lambda rows: rows.assign(busy=1)),
        "{root}/data/*.csv: label busy has one class only: '1' 3,600 (100.0%) "
        "(a classifier needs rows of at least two classes)",
    ),
    "all-missing column": (
        partial(_rows, lambda rows: rows.assign(temperature=None)),
        "{root}/data/*.csv: column temperature is empty in all 3,600 rows "
        "(mend the source, or take the column out of model.yaml)",
    ),
    "unparsable times": (
        partial(_rows, lambda rows: rows.assign(at="yesterday")),
        "{root}/data/*.csv: 3,600 of 3,600 rows (100 %) break a rule, above quarantine.max_share "
        "(2 %)\n  column at, type: 3,600 rows, such as 2024-a.csv row 2, 2024-a.csv row 3, "
        "2024-a.csv row 4 (column at: 'yesterday' is not a time (ISO 8601 such as 2013-07-01 "
        f"06:00:00; epochs are not guessed))\n  ({ROWS_LEFT}{{staged}}/bad)",
    ),
    "mixed types in a column": (
        partial(_rows, lambda rows: rows.assign(temperature=["hot", "1"] * (len(rows) // 2))),
        "{root}/data/*.csv: 1,800 of 3,600 rows (50 %) break a rule, above quarantine.max_share "
        "(2 %)\n  column temperature, type: 1,800 rows, such as 2024-a.csv row 2, 2024-a.csv row "
        "4, 2024-a.csv row 6 (column temperature: 'hot' is not a number)\n  "
        f"({ROWS_LEFT}{{staged}}/bad)",
    ),
}


@pytest.mark.parametrize("case", TOLD_BY_THE_AUDIT)
def test_a_batch_that_is_wrong_as_a_whole_is_told_and_nothing_of_it_published(
    flow_project: Workplace, case: str
) -> None:
    spoil, message = TOLD_BY_THE_AUDIT[case]
    spoil(flow_project)
    process = flow_project.cli("train", "demand")
    home = flow_project.root / ".perennial"
    (staged,) = (home / "staging" / "demand").iterdir()
    assert process.stderr == message.format(root=flow_project.root, staged=staged) + "\n"
    assert (process.returncode, process.stdout) == (2, "")
    assert not any((home / kind).exists() for kind in ("tables", "quarantine", "bundles"))
    (status,) = json.loads(flow_project.command("status", "demand", "--json").stdout)
    assert (status["versions"], status["decisions"]) == (0, [])


def test_a_run_that_the_command_line_did_not_look_over_tells_a_mistake_alike(
    flow_project: Workplace,
) -> None:
    _code("temperature.head(3)", flow_project)
    flow_project.environment["PREFECT_LOGGING_LEVEL"] = "CRITICAL"
    process = flow_project.start("continuous_training", model="demand")
    out, err = process.communicate(timeout=300)
    assert err == (
        "features.py, line 6, warm(): returns 3 values for 2,520 rows "
        "(return one value for each row, in the same order)\n"
    )
    assert (process.returncode, out) == (2, "")


def test_damaged_state_is_told_and_nothing_is_built_on_it(flow_project: Workplace) -> None:
    digest = flow_project.run()["bundle_digest"]
    home = flow_project.root / ".perennial"
    bundle = home / "bundles" / "demand" / digest
    before = (bundle / "booster.ubj").read_bytes()

    (bundle / "booster.ubj").write_bytes(before[:-1] + b"!")
    flow_project.edit("rounds: 60", "rounds: 50")
    for command in (("train", "demand"), ("reproduce", "demand@1")):
        process = flow_project.cli(*command)
        assert process.stderr == (
            f"bundle {bundle}, booster.ubj: its content was changed "
            "(restore the folder from a copy, or remove it and train again)\n"
        )
        assert (process.returncode, process.stdout) == (2, "")
    (bundle / "booster.ubj").write_bytes(before)

    log = home / "tables" / "demand" / "_delta_log"
    for entry in log.glob("*.json"):
        entry.write_text("{not json")
    process = flow_project.command("train", "demand")
    assert process.stderr.startswith(f"{log}: the Delta log can't be read: ")
    assert (process.returncode, process.stdout) == (2, "")
    (status,) = json.loads(flow_project.command("status", "demand", "--json").stdout)
    assert (status["versions"], status["champion"]["digest"]) == (1, digest)


def test_a_disk_that_is_full_when_the_bundle_is_written_is_told_and_leaves_no_bundle(
    flow_project: Workplace,
) -> None:
    # Deep trees make the booster the one file above the limit, which stands for a full disk.
    flow_project.edit(
        "{rounds: 60}",
        "{rounds: 60, early_stopping_rounds: 60, params: {max_depth: 12, min_child_weight: 0}}",
    )
    flow_project.edit("max_depth: [2, 5], learning_rate: {low: 0.05, high: 0.4, log: true}",
                      "learning_rate: {low: 0.02, high: 0.03}")  # fmt: skip
    process = flow_project.cli("train", "demand", most_file_bytes=300_000)
    assert process.stderr.startswith(f"bundle {flow_project.root}/.perennial/bundles/demand/")
    assert process.stderr.endswith(
        " bytes (File too large); nothing was kept "
        "(free some space or check the folder's permissions, then run again)\n"
    )
    assert (process.returncode, process.stdout) == (2, "")
    bundles = flow_project.root / ".perennial" / "bundles" / "demand"
    assert [path.name for path in bundles.iterdir()] == [".lock"]

    again = flow_project.run()  # with space again: finished stages are not repeated
    assert [s["stage"] for s in again["stages"] if not s["cached"]] == [
        "train", "evaluate", "register",
    ]  # fmt: skip
    assert again["decision"]["action"] == "promoted"


@pytest.mark.parametrize("command", ["train", "drift"])
def test_a_storage_block_that_is_not_there_is_told(flow_project: Workplace, command: str) -> None:
    flow_project.environment["PERENNIAL_STORAGE_BLOCK"] = "nope"
    done = flow_project.cli(command, "demand")
    assert done.returncode == 2
    assert done.stderr == (
        "PERENNIAL_STORAGE_BLOCK: the Prefect server has no S3 bucket block 'nope' "
        "(perennial setup makes it of PERENNIAL_STORAGE and AWS's variables)\n"
    )
