"""The flow on a real Prefect server: what runs, what is cached, what is decided."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import optuna
import pandas as pd
import pytest
from deltalake import DeltaTable

from perennial.stores import tables
from perennial.stores.hindsight import plan_backtest
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from tests.workplace import Workplace, demand_rows

EXPENSIVE = ("stage", "publish", "split", "features", "tune", "train", "evaluate")


def ran(summary: dict) -> list[str]:
    """The stages that did work in a run."""
    return [s["stage"] for s in summary["stages"] if not s["cached"] and s["stage"] in EXPENSIVE]


def registry(project: Workplace) -> Registry:
    return Registry(Project(project.root).registry_url)


def test_the_first_run_registers_a_champion_a_rerun_does_nothing_and_force_does_all_again(
    flow_project: Workplace,
) -> None:
    flow_project.track()
    first = flow_project.run(reason="test")
    assert first["decision"]["action"] == "promoted"
    assert first["champion"]["version"] == 1
    assert ran(first) == list(EXPENSIVE)
    assert all(s["seconds"] is not None for s in first["stages"])
    assert Path(first["report_uri"]).read_text().startswith("<!doctype html>")

    again = flow_project.run(reason="test")
    assert ran(again) == []
    assert again["decision"]["action"] == "unchanged"
    assert again["bundle_digest"] == first["bundle_digest"]
    assert len(registry(flow_project).versions("demand")) == 1

    actions = [entry.action for entry in registry(flow_project).decisions("demand")]
    assert sorted(actions) == ["promoted", "registered"]

    forced = flow_project.run(force=True)
    assert ran(forced) == [stage for stage in EXPENSIVE if stage != "evaluate"]
    assert forced["bundle_digest"] == first["bundle_digest"]


def test_a_change_runs_again_just_what_depends_on_it(flow_project: Workplace) -> None:
    flow_project.run()

    flow_project.edit("min: 0.6", "min: 0.55")
    gates = flow_project.run()
    assert ran(gates) == []  # the candidate is the champion: nothing to judge

    flow_project.edit("rounds: 60", "rounds: 50")
    assert ran(flow_project.run())[:1] == ["tune"]

    flow_project.edit("clip(lower=0)", "clip(lower=5)", file="features.py")
    assert ran(flow_project.run())[:2] == ["features", "tune"]

    flow_project.edit("test: 15d", "test: 14d")
    assert ran(flow_project.run())[:2] == ["split", "features"]

    flow_project.write_rows("2024-b.csv", demand_rows("2024-03-31", 20, seed=2))
    more = flow_project.run()
    assert ran(more)[:5] == ["stage", "publish", "split", "features", "tune"]


def test_later_data_leaves_an_earlier_moment_cached(flow_project: Workplace) -> None:
    early = flow_project.run(as_of="2024-03-15T00:00:00+00:00")
    late = flow_project.run()
    assert late["rows"] > early["rows"]
    again = flow_project.run(as_of="2024-03-15T00:00:00+00:00")
    assert again["bundle_digest"] == early["bundle_digest"]
    assert not {"split", "features", "tune", "train"} & set(ran(again))


def test_a_correction_takes_effect_whatever_its_files_name_and_the_run_tells_of_it(
    flow_project: Workplace,
) -> None:
    wrong = demand_rows("2024-01-01", 90).head(20)
    flow_project.write_rows("0-corrections.csv", wrong.assign(temperature=-39))
    run = flow_project.run()
    (warning,) = run["warnings"]
    assert warning.startswith("20 rows come again later by at, shop; the last of each is kept")
    assert "; 20 differ from the last, such as at=2024-" in warning
    project = Project(flow_project.root)
    _, spec = project.load_model("demand")
    dataset = tables.dataset(spec, project.uri("tables", "demand"), None)
    rows = pd.concat(tables.scan(dataset, spec, ["temperature"]))
    assert (rows["temperature"] == -39).sum() == 20


def test_what_a_database_changes_in_a_row_is_taken_in_and_where_nothing_changed_only_staged(
    flow_project: Workplace,
) -> None:
    rows = demand_rows("2024-01-01", 90)
    flow_project.edit(
        "kind: csv, uri: data/*.csv", "kind: sql, uri: 'sqlite:///rows.db', query: rows"
    )
    project = Project(flow_project.root)
    _, spec = project.load_model("demand")
    with closing(sqlite3.connect(flow_project.root / "rows.db")) as connection:
        rows.to_sql("rows", connection, index=False)
        flow_project.run()
        flow_project.run()  # from here on it is the window that is read
        same = flow_project.run()
        assert ran(same) == ["stage"]
        assert same["decision"]["action"] == "unchanged"

        connection.execute(
            "UPDATE rows SET temperature = 59 WHERE rowid = (SELECT max(rowid) FROM rows)"
        )
        connection.commit()
    mended = flow_project.run()
    assert ran(mended)[:3] == ["stage", "publish", "split"]
    dataset = tables.dataset(spec, project.uri("tables", "demand"), None)
    read = pd.concat(tables.scan(dataset, spec, ["temperature"]))
    assert (len(read), (read["temperature"] == 59).sum()) == (len(rows), 1)


def test_a_cached_result_whose_target_is_gone_is_made_again(flow_project: Workplace) -> None:
    first = flow_project.run()
    for lost, stage in (("features", "features"), ("bundles", "train"), ("splits", "split")):
        shutil.rmtree(flow_project.root / ".perennial" / lost)
        again = flow_project.run()
        assert stage in ran(again), lost
        assert again["bundle_digest"] == first["bundle_digest"], lost


def test_a_run_killed_at_any_stage_completes_when_run_again_and_nothing_is_there_twice(
    flow_project: Workplace,
) -> None:
    flow_project.track()
    runs = flow_project.root / ".perennial" / "runs"
    for stage in EXPENSIVE:
        process = flow_project.start("continuous_training", model="demand")
        deadline = time.monotonic() + 240
        while not list(runs.glob(f"*/{stage}.json")):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.kill()
        process.communicate()

    summary = flow_project.run()
    assert summary["champion"]["version"] == 1
    versions = registry(flow_project).versions("demand")
    actions = [entry.action for entry in registry(flow_project).decisions("demand")]
    assert (len(versions), sorted(actions)) == (1, ["promoted", "registered"])
    table = DeltaTable(flow_project.root / ".perennial" / "tables" / "demand").to_pandas()
    assert len(table) == len(table.drop_duplicates(["at", "shop"])) == 90 * 8 * 5
    leftovers = list((flow_project.root / ".perennial").rglob(".writing-*"))
    assert leftovers == []


def test_a_candidate_that_is_no_better_is_refused_and_the_audit_says_why(
    flow_project: Workplace,
) -> None:
    flow_project.run()
    flow_project.edit("rounds: 60", "rounds: 1")
    process = flow_project.cli("train", "demand", "--reason", "a bad idea")
    assert process.returncode == 1, process.stderr
    assert "kept" in process.stdout
    entry = registry(flow_project).decisions("demand")[0]
    assert entry.action == "kept champion"
    assert "beats champion on logloss" in entry.reason
    assert registry(flow_project).route("demand").champion == 1


def test_the_champion_is_compared_on_rows_it_was_not_fitted_to(flow_project: Workplace) -> None:
    flow_project.run()
    flow_project.edit("rounds: 60", "rounds: 50")
    early = flow_project.run(as_of="2024-03-10T00:00:00+00:00")
    all_known = "the two could not be compared without the 600 rows that version 1 was fitted to"
    assert all_known in early["decision"]["reason"]
    assert early["decision"]["action"] == "kept"

    flow_project.edit("test: 15d", "test: 20d")
    longer = flow_project.run()
    assert "on 640 rows, without the 160 rows that version 1 was" in longer["decision"]["reason"]
    assert "rows that the champion was fitted to" in Path(longer["report_uri"]).read_text()
    (verdict,) = (
        verdict
        for verdict in registry(flow_project).decisions("demand")[0].evidence["verdicts"]
        if verdict["evidence"]["rule"].startswith("beats champion")
    )
    assert verdict["evidence"]["n"] == 640  # its test part, and the day before it
    assert verdict["evidence"]["detail"] == "without the 160 rows that version 1 was fitted to"


def test_what_a_version_had_fixed_is_where_the_search_for_the_next_begins(
    flow_project: Workplace,
) -> None:
    beats = "  - {beats: champion, metric: logloss, first_version: passed}\n"
    flow_project.edit(beats, "")
    flow_project.edit("trials: 4", "trials: 2")
    fixed = "{rounds: 60, params: {subsample: 0.7, monotone_constraints: {temperature: 1}}}"
    flow_project.edit("{rounds: 60}", fixed)
    flow_project.run()
    first = registry(flow_project).version("demand", 1)
    assert set(first.params) == {"max_depth", "learning_rate", "subsample"}
    recipe = plan_backtest(Project(flow_project.root), "demand", None, None, "7d", None).recipe
    assert recipe.params == first.params

    flow_project.edit(fixed, "{rounds: 60}")
    flow_project.edit("max_depth: [2, 5]", "max_depth: [2, 5], subsample: [0.5, 1.0]")
    flow_project.run()
    link = registry(flow_project).version("demand", 2).links["study"]
    study = optuna.load_study(study_name=link, storage=Project(flow_project.root).studies_url)
    assert study.trials[0].params == pytest.approx(first.params)


def test_a_champion_that_serves_gives_way_to_no_version_of_the_past_at_once(
    flow_project: Workplace,
) -> None:
    flow_project.edit("  - {beats: champion, metric: logloss, first_version: passed}\n", "")
    flow_project.edit(
        "retrain:", "rollout: {strategy: canary, guards: {error_rate: 0.01}}\nretrain:"
    )
    replay = [flow_project.run(as_of=f"2024-03-{day}T00:00:00Z") for day in (10, 15)]
    assert [one["decision"]["action"] for one in replay] == ["promoted", "promoted"]
    assert flow_project.run()["decision"]["action"] == "rolling out"
    registry(flow_project).promote(
        "demand", 3, expected_generation=registry(flow_project).route("demand").generation,
        actor="tests", reason="", evidence={}, cause="tests", now=datetime.now(UTC),
    )  # fmt: skip
    past = flow_project.run(as_of="2024-03-20T00:00:00Z")
    assert past["decision"]["action"] == "rolling out"
    assert registry(flow_project).route("demand").champion == 3


@pytest.mark.parametrize("rolled_out", [False, True], ids=["at once", "by a rollout"])
def test_a_version_that_was_taken_back_is_not_said_to_be_promoted_when_it_is_made_again(
    flow_project: Workplace, rolled_out: bool
) -> None:
    flow_project.edit("  - {beats: champion, metric: logloss, first_version: passed}\n", "")
    if rolled_out:
        flow_project.edit(
            "retrain:", "rollout: {strategy: canary, guards: {error_rate: 0.01}}\nretrain:"
        )
    flow_project.run()
    began = datetime.now(UTC)
    flow_project.edit("rounds: 60", "rounds: 50")
    made = flow_project.run()["decision"]
    if rolled_out:
        assert made["action"] == "rolling out"
        assert flow_project.command("rollout", "demand", "--promote").returncode == 0
    assert registry(flow_project).route("demand").champion == 2
    assert flow_project.command("rollback", "demand", "--reason", "bad").returncode == 0

    for _ in range(2):
        process = flow_project.cli("train", "demand")
        assert process.returncode == 1, process.stderr
        assert "\nkept\nversion 2 is this bundle and served until 2" in process.stdout
        assert "rolled back: back to version 1: bad" in process.stdout
        assert "perennial rollout demand@2 tries it once more" in process.stdout
    kept, *before = registry(flow_project).decisions("demand")
    assert (kept.action, kept.version, kept.generation) == ("kept champion", 2, None)
    assert "kept champion" not in [entry.action for entry in before]
    outcomes = [one.outcome for one in registry(flow_project).retrainings.last("demand", 2)]
    assert outcomes == ["kept", "kept"]
    assert registry(flow_project).route("demand").champion == 1
    assert told_of(flow_project, since=began) == [2]


def told_of(project: Workplace, since: datetime) -> list[int]:
    """The new versions that events told of."""
    asked = {
        "filter": {
            "occurred": {"since": since.isoformat()},
            "resource": {"id": ["perennial.model.demand"]},
            "event": {"name": ["perennial.version.registered"]},
        }
    }
    found = project.ask("events/filter", asked)["events"]
    return [event["payload"]["version"] for event in found]


def test_a_snapshot_is_drawn_again_as_it_was(flow_project: Workplace) -> None:
    """Rows without an identity were drawn by position once: such a version is made again so."""
    flow_project.edit("event_time: at, entity: [shop]", "")
    flow_project.edit(", delay: 1d", "")
    flow_project.edit(
        "kind: time, validation: 10d, test: 15d", "kind: random, validation: 0.2, test: 0.2"
    )
    flow_project.edit(
        "  shop: {type: category}", "  at: {type: datetime}\n  shop: {type: category}"
    )
    frame = demand_rows("2024-01-01", 90)
    first = flow_project.run()
    flow_project.write_rows("2024-a.csv", pd.concat([demand_rows("2024-04-01", 30), frame]))
    flow_project.edit("rounds: 60", "rounds: 50")
    grown = flow_project.run()
    assert "without" not in grown["decision"]["reason"]  # a row stays in its part
    again = flow_project.cli("reproduce", "demand@1", "--json")
    assert json.loads(again.stdout)["identical"] is True
    assert first["bundle_digest"] == json.loads(again.stdout)["digest"]

    table = flow_project.root / ".perennial" / "tables" / "demand"
    shutil.rmtree(table)
    flow_project.write_rows("2024-a.csv", demand_rows("2024-01-01", 90, seed=2))
    flow_project.run()
    other = flow_project.cli("reproduce", "demand@1")
    said = f"the booster differs, as version 0 of {table} holds other rows than then: the table was"
    assert f"demand@1 was not reproduced: {said} made anew" in other.stdout

    shutil.rmtree(table)
    flow_project.write_rows("2024-a.csv", frame[5:])
    flow_project.run()
    fewer = flow_project.cli("reproduce", "demand@1")
    said = f"{table}: version 0 holds other rows than demand@1 was trained on: the table was made"
    assert fewer.returncode == 2
    assert fewer.stderr.startswith(f"{said} anew (it can't be reproduced from them; versions")
