"""The drift watch as it runs: a real Prefect server, a version trained by the flow, a real log."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from perennial.contracts.refs import BundleRef
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from perennial.stores.rolling_out import begin
from tests.waiting import until
from tests.weeks import DAY, START, looks, serve
from tests.workplace import Workplace


def snapshots(project: Workplace) -> list[str]:
    places = (project.root / ".perennial" / "evidently").glob("*/snapshots/*.json")
    return sorted(place.name for place in places)


def test_a_version_is_watched_from_its_first_day_to_the_day_the_world_turns(
    flow_project: Workplace,
) -> None:
    project = flow_project
    project.edit("retrain:", "drift: {window: 21d}\nretrain:")
    [nobody] = looks(project, None)
    assert nobody["finding"] == "inconclusive"
    assert nobody["reason"] == "no version of demand serves"
    project.run()

    ends = [
        serve(project, START),
        serve(project, START + 30 * DAY, labelled=False, temperature=lambda t: 13.3 + t / 10),
        serve(project, START + 60 * DAY, temperature=lambda t: t * np.nan),
        serve(project, START + 90 * DAY, turned=True),
    ]
    usual, drifted, broken, turned = looks(project, *ends)
    assert usual["finding"] == "none", usual["reason"]
    assert usual["version"]["version"] == 1
    assert usual["rows"] == 840
    assert usual["estimated"] is not None  # the evaluation has kept its holdout

    assert drifted["finding"] == "harmful drift", drifted["reason"]
    assert drifted["trigger"]["kind"] == "drift"
    assert "temperature" in drifted["trigger"]["evidence"]["columns"]

    assert broken["finding"] == "data quality fault"
    assert broken["reason"].startswith("temperature: all of 840 values are missing")

    assert turned["finding"] == "concept drift", turned["reason"]
    assert turned["trigger"]["finding"] == "concept drift"
    before = snapshots(project)
    shown = project.cli("drift", "demand", "--end", ends[-1], "--json")
    assert shown.returncode == 0, shown.stderr
    again = json.loads(shown.stdout)
    assert again["trigger"]["evidence"] == turned["trigger"]["evidence"]
    assert again["trigger"]["data"] == turned["trigger"]["data"]
    assert snapshots(project) == before
    assert len(before) == 7  # columns of four windows, performance of three

    reports = turned["reports"]
    for page in (reports["html_uri"], *reports["evidently"].values()):
        assert Path(page).read_text().lstrip().lower().startswith("<!doctype html>"), page
        assert page.startswith(str(project.root / ".perennial" / "drift" / "demand"))
    for page in reports["evidently"].values():
        assert json.loads(Path(page).with_suffix(".json").read_text())["metrics"]
    kept = json.loads(Path(reports["json_uri"]).read_text())
    assert kept["finding"] == "concept drift"
    text = project.artifact("demand-drift")
    assert text.startswith("# ✗ demand@1: concept drift\n")
    assert "(data:image/svg+xml;base64," in text
    assert reports["html_uri"] in text


def test_a_rollout_that_nobody_watches_is_told_of_while_the_source_is_away(
    project: Workplace, own_prefect_server: str
) -> None:
    project.environment["PREFECT_API_URL"] = own_prefect_server
    project.edit('schedule: "0 6 * * 1"', "on: [data]")
    project.run()
    place, since = Project(project.root), datetime.now(UTC)
    registry = Registry(place.registry_url)
    registry.register(
        "demand", BundleRef(uri="/bundles/2", digest="2" * 64), params={}, metrics={},
        judgement={}, links={}, actor="tests", reason="passed", now=since,
    )  # fmt: skip
    project.edit("retrain:", "rollout: {strategy: canary, guards: {error_rate: 0.01}}\nretrain:")
    begun = begin(
        place, registry, "demand", 2, {}, actor="tests", reason="better", cause="judged",
        force=False, now=since - timedelta(minutes=5),
    )  # fmt: skip
    (project.root / "data").rename(project.root / "data.away")
    look = project.start("drift_watch", model="demand")
    _, err = look.communicate(timeout=300)
    assert look.returncode == 2
    assert "Task run 'look for new data of demand' - Finished in state Failed" in err, err
    asked = {
        "filter": {
            "occurred": {"since": since.isoformat()},
            "resource": {"id": ["perennial.model.demand"]},
            "event": {"name": ["perennial.rollout.due"]},
        }
    }
    (event,) = until(lambda: project.ask("events/filter", asked)["events"])
    assert event["resource"]["perennial.rollout"] == "begun"
    assert event["payload"]["reason"] == f"rollout {begun.id} of version 2 is watched by nobody"


UNREMINDED = """
import sys
sys.stderr = sys.stdout
from prefect import task
import flows.drift_watch as flow
from perennial.contracts.errors import UnavailableError

@task(task_run_name="remind")
def remind(model):
    raise UnavailableError(f"nobody can say who watches {model}")

flow.remind = remind
try:
    flow.drift_watch("demand")
except UnavailableError as error:
    print("at the end:", error)
"""


def test_a_reminder_that_fails_keeps_no_look_from_being_taken_and_fails_the_run(
    flow_project: Workplace,
) -> None:
    said = flow_project.python("-c", UNREMINDED)
    for name, state in (
        ("remind", "Failed"),
        ("look at demand", "Completed"),
        ("reconcile retrainings of demand", "Completed"),
    ):
        assert f"Task run '{name}' - Finished in state {state}" in said, said
    assert "at the end: nobody can say who watches demand" in said


def test_what_is_asked_wrongly_is_told_before_anything_starts(project: Workplace) -> None:
    unknown = project.command("drift", "demnd")
    assert unknown.returncode == 2
    assert "no model 'demnd'; did you mean 'demand'?" in unknown.stderr
    when = project.command("drift", "demand", "--end", "yesterday")
    assert when.returncode == 2
    assert when.stderr.startswith("--end: 'yesterday' is not a time")
