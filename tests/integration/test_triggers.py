"""From an event to the one retraining it asks for, on a real server and a real worker."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect import flow

from perennial.cli.prefect_server import call
from perennial.contracts.events import Event
from perennial.contracts.refs import ModelRef
from perennial.contracts.retraining import Finding, Retraining, Trigger
from perennial.spec.production import Retrain
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from tasks import retraining as tasks
from tasks._events import announce
from tests.waiting import until
from tests.workplace import FEATURES_PY, MODEL_YAML, Workplace, demand_rows, environment_of

SMALL = MODEL_YAML.replace("rounds: 60", "rounds: 10").replace("trials: 4", "trials: 1")
RETRAIN = Retrain(on=("drift", "performance", "data"))
TRIGGERED = "retrain: {on: [drift, performance, data], cooldown: 6h}"
MODELS = ("drifts", "bursts", "fed", "stubborn", "unstarted", "broken", "killed", "quiet", "timed")
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Place(Workplace):
    """A project of several models, deployed on a server with a worker."""

    api: str

    def of(self, model: str) -> ModelRef:
        return Project(self.root).load_model(model)[0]

    @property
    def registry(self) -> Registry:
        return Registry(Project(self.root).registry_url)

    def post(self, path: str, body: Any) -> Any:
        return call("POST", f"{self.api}/{path}", body, seconds=120)

    def get(self, path: str) -> Any:
        return call("GET", f"{self.api}/{path}", seconds=120)

    def runs(self, model: str) -> list[dict[str, Any]]:
        """The runs of a model's training deployment, in the order they were created."""
        found: list[dict[str, Any]] = self.post(
            "flow_runs/filter",
            {
                "flows": {"name": {"any_": ["continuous-training"]}},
                "deployments": {"name": {"any_": [model]}},
            },
        )
        return sorted(found, key=lambda run: run["created"])

    def events(self, model: str, count: int) -> list[dict[str, Any]]:
        """The model's events, 50 at most and oldest first, as soon as there are so many."""
        filtered = {
            "filter": {
                "resource": {"id": [f"perennial.model.{model}"]},
                "occurred": {"since": (datetime.now(UTC) - HOUR).isoformat()},
            },
            "limit": 50,
        }
        until(lambda: self.post("events/filter", filtered)["total"] >= count)
        found: list[dict[str, Any]] = self.post("events/filter", filtered)["events"]
        return sorted(found, key=lambda event: event["occurred"])

    def start_deployment(self, model: str, **state: Any) -> dict[str, Any]:
        """A run of the deployment that an event of ``model``'s first retraining would start."""
        deployment = self.get(f"deployments/name/continuous-training/{model}")
        asked = self.registry.retrainings.last(model)[-1].trigger
        body = {"parameters": {"trigger": asked.model_dump(mode="json")}, **state}
        run: dict[str, Any] = self.post(f"deployments/{deployment['id']}/create_flow_run", body)
        return run

    def state(self, run: dict[str, Any], state: dict[str, Any]) -> None:
        self.post(f"flow_runs/{run['id']}/set_state", {"state": state, "force": True})

    def ended(self, model: str, count: int = 1) -> list[dict[str, Any]]:
        """The model's runs once there are so many and all have ended."""

        def over() -> bool:
            runs = self.runs(model)
            ends = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
            return len(runs) >= count and all(run["state_type"] in ends for run in runs)

        until(over)
        return self.runs(model)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, own_prefect_server: str) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("triggers")
    for name in MODELS:
        folder = root / "models" / name
        folder.mkdir(parents=True)
        text = SMALL.replace("name: demand", f"name: {name}")
        text = re.sub("retrain: .*", TRIGGERED, text)
        if name == "stubborn":
            text = text.replace("min: 0.6", "min: 0.999")
        if name == "broken":
            text = text.replace("data/*.csv", "later/*.csv")
        if name == "timed":  # once, when the worker is there; what it would read never is
            due = datetime.now(UTC) + timedelta(minutes=2)
            text = text.replace(TRIGGERED, f'retrain: {{schedule: "{due:%-M %-H} * * *"}}')
            text = text.replace("data/*.csv", "nowhere/*.csv")
        (folder / "model.yaml").write_text(text)
        (folder / "features.py").write_text(FEATURES_PY)
    environment = {**environment_of(root), "PREFECT_API_URL": own_prefect_server}
    place = Place(root, environment, own_prefect_server)
    place.write_rows("2024-a.csv", demand_rows("2024-01-01", 60))
    with place.deployed(lambda each: "continuous_training" in each["entrypoint"]):
        yield place


@flow(persist_result=False)
def asking(model: ModelRef, trigger: Trigger) -> Retraining:
    return tasks.ask(model, trigger)


@flow(persist_result=False)
def reconciling(model: ModelRef) -> tuple[Retraining, ...]:
    return tasks.reconcile(model)


@flow(persist_result=False)
def looking(model: ModelRef) -> Trigger | None:
    return tasks.look_for_data(model)


@flow(persist_result=False)
def telling(retraining: Retraining, times: int) -> None:
    """One run that tells of one answer again and again, as when it isn't told that it arrived."""
    contexts = [copy_context() for _ in range(times)]
    with ThreadPoolExecutor(25) as pool:
        sent = pool.map(lambda c: c.run(announce, Event.DRIFT_DETECTED, retraining), contexts)
        assert list(sent) == [True] * times


def arrived(model: str) -> dict[str, Any]:
    return {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": "perennial.data.arrived",
        "resource": {"prefect.resource.id": f"perennial.model.{model}"},
    }


def look(data: str, finding: Finding = Finding.HARMFUL, **changed: Any) -> Trigger:
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "kind": "drift",
        "reason": "5 of 9 columns drifted: <temperature> & “shop”",
        "at": now,
        "finding": finding,
        "window": (datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 3, 8, tzinfo=UTC)),
        "data": data,
        "evidence": {"columns": {"temperature": 0.41, "shop": None}, "report": "/reports/1.html"},
    }
    return Trigger.model_validate({**values, **changed})


def test_one_event_starts_one_run_with_the_evidence_as_its_parameters(place: Place) -> None:
    answer = asking(place.of("drifts"), look("w1"))
    assert answer.goes
    (run,) = place.ended("drifts")
    assert run["state_type"] == "COMPLETED", run["state"]
    assert run["parameters"]["trigger"] == answer.trigger.model_dump(mode="json")
    assert run["parameters"]["reason"] == answer.current.reason
    assert {"reason:drift", "decision:promoted"} <= set(run["tags"])
    (row,) = place.registry.retrainings.last("drifts")
    assert (row.id, row.state, row.outcome) == (answer.id, "finished", "promoted")
    assert row.started_run == run["id"]

    told, registered = place.events("drifts", 2)
    assert told["event"] == "perennial.drift.detected"
    assert told["resource"]["perennial.answer"] == "retrain"
    assert told["resource"]["perennial.finding"] == "harmful drift"
    assert told["resource"]["perennial.cause"] == answer.trigger.cause
    assert told["payload"]["report"] == "/reports/1.html"
    assert told["payload"]["retraining"] == answer.id
    assert registered["event"] == "perennial.version.registered"
    assert registered["payload"]["version"] == 1
    assert looking(place.of("drifts")) is None


def test_a_hundred_events_at_once_are_one_retraining(place: Place) -> None:
    table = place.registry.retrainings
    now = datetime.now(UTC)
    decided, _ = table.decide("bursts", look("w1"), RETRAIN, actor="test", now=now)

    telling(decided, 60)
    # And forty of somebody else's, each a cause of its own.
    place.post("events", [arrived("bursts") for _ in range(40)])
    told = place.events("bursts", 1 + 40)
    assert sum(event["event"] == "perennial.drift.detected" for event in told) == 1
    runs = place.ended("bursts", 2)
    assert len(runs) < 5
    for _ in range(2):  # and whoever else comes with the same cause, later
        place.start_deployment("bursts")
    runs = place.ended("bursts", len(runs) + 2)
    assert {run["state_type"] for run in runs} == {"COMPLETED"}
    declined = [run for run in runs if "decision:declined" in run["tags"]]
    (worked,) = [run for run in runs if run not in declined]
    assert not any(r.goes for r in table.last("bursts") if r.id != decided.id)
    row = table.one(decided.id)
    assert (row.state, row.outcome, row.started_run) == ("finished", "promoted", worked["id"])
    assert declined[-1]["state"]["message"] == (
        f"not trained, retraining {row.id} ({row.trigger.reason}) has ended: promoted, "
        f"by flow run {worked['id']}"
    )
    assert len(place.registry.versions("bursts")) == 1


def test_the_documented_three_lines_of_an_etl_start_a_retraining(place: Place) -> None:
    page = Path(__file__).parents[2] / "docs" / "events.md"
    (lines,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    asked = looking(place.of("fed"))
    assert asked is not None
    assert asked.evidence["source"]["kind"] == "csv"
    script = lines.replace("flight-delay", "fed")
    subprocess.run([sys.executable, "-c", script], env=place.environment, check=True)
    (run,) = place.ended("fed")
    assert run["state_type"] == "COMPLETED", run["state"]
    (row,) = place.registry.retrainings.last("fed")
    assert (row.trigger.kind, row.trigger.data) == ("data", "2013-07-01")
    assert row.trigger.reason == "flights of 1 July are in"
    assert (row.state, row.outcome, row.started_run) == ("finished", "promoted", run["id"])
    assert looking(place.of("fed")) is None
    place.write_rows("2024-b.csv", demand_rows("2024-03-01", 5))
    again = looking(place.of("fed"))
    (place.root / "data" / "2024-b.csv").unlink()
    assert again is not None
    assert again.cause != asked.cause


def test_a_refused_retraining_does_not_loop(place: Place) -> None:
    first = asking(place.of("stubborn"), look("w1"))
    (run,) = place.ended("stubborn")
    assert run["state"]["message"].startswith("candidate refused")
    (row,) = place.registry.retrainings.last("stubborn")
    assert (row.state, row.outcome) == ("finished", "kept")
    assert asking(place.of("stubborn"), first.trigger) == row
    same = asking(place.of("stubborn"), look("w1", kind="performance"))
    assert same.current.answer == "no"
    assert same.current.reason.endswith(f"retraining {row.id} has learned from it already: kept")
    other = asking(place.of("stubborn"), look("w2"))
    assert other.current.answer == "wait"
    assert "the last one gave no better version; a pause of 12h" in other.current.reason
    assert reconciling(place.of("stubborn")) == ()
    names = [event["event"] for event in place.events("stubborn", 4)]
    assert names == [
        "perennial.drift.detected", "perennial.candidate.refused",
        "perennial.performance.dropped", "perennial.drift.detected",
    ]  # fmt: skip
    assert len(place.runs("stubborn")) == 1


def test_what_was_decided_and_never_started_is_started_by_the_next_look(place: Place) -> None:
    table = place.registry.retrainings
    before = datetime.now(UTC) - timedelta(minutes=10)
    decided, _ = table.decide("unstarted", look("w1"), RETRAIN, actor="test", now=before)
    later = {"type": "SCHEDULED", "state_details": {}}
    later["state_details"] = {"scheduled_time": (datetime.now(UTC) + HOUR).isoformat()}
    coming = place.start_deployment("unstarted", state=later)
    assert reconciling(place.of("unstarted")) == ()  # a run for it is on its way
    place.state(coming, {"type": "CANCELLED"})
    (again,) = reconciling(place.of("unstarted"))
    assert again == decided
    runs = place.ended("unstarted", 2)
    (row,) = table.last("unstarted")
    assert (row.state, row.outcome, row.started_run) == ("finished", "promoted", runs[1]["id"])
    assert reconciling(place.of("unstarted")) == ()
    assert place.events("unstarted", 2)[0]["event"] == "perennial.retraining.due"


def test_what_waited_is_started_when_due_and_a_failed_run_goes_on_when_retried(
    place: Place,
) -> None:
    table, now = place.registry.retrainings, datetime.now(UTC)
    by_hand = Trigger(kind="hand", reason="by hand", at=now, data="some run")
    earlier, _ = table.decide("broken", by_hand, RETRAIN, actor="test", now=now - 8 * HOUR)
    table.start(earlier.id, "some run", now - 8 * HOUR)
    table.finish(earlier.id, "some run", "promoted", now - 8 * HOUR)
    seen = look("w1", at=now - 7 * HOUR)
    waits, _ = table.decide("broken", seen, RETRAIN, actor="test", now=now - 7 * HOUR)
    assert waits.current.wait_until == now - 2 * HOUR
    (goes,) = reconciling(place.of("broken"))
    assert (goes.id, goes.goes, goes.earlier) == (waits.id, True, (waits.current,))
    (failed,) = place.ended("broken")
    assert failed["state_type"] == "FAILED"
    until(lambda: table.one(waits.id).state != "started")  # by a hook that runs after that
    row = table.one(waits.id)
    assert (row.state, row.outcome, row.started_run) == ("finished", "failed", failed["id"])

    (place.root / "later").mkdir()
    demand_rows("2024-01-01", 60).to_csv(place.root / "later" / "a.csv", index=False)
    place.state(failed, {"type": "SCHEDULED", "name": "AwaitingRetry"})  # Retry on Prefect's page
    (retried,) = place.ended("broken")
    assert (retried["id"], retried["state_type"]) == (failed["id"], "COMPLETED")
    row = table.one(waits.id)
    assert (row.state, row.outcome, row.started_run) == ("finished", "promoted", failed["id"])


def test_a_run_that_was_killed_is_found_and_given_up(place: Place) -> None:
    table = place.registry.retrainings
    process = place.start("continuous_training", model="killed", reason="I want it")
    until(lambda: len(table.started("killed")) == 1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (row,) = table.started("killed")
    assert (row.trigger.kind, row.trigger.reason) == ("hand", "I want it")
    assert reconciling(place.of("killed")) == ()  # for all that Prefect knows it runs
    assert row.started_run is not None
    place.state({"id": row.started_run}, {"type": "CRASHED"})
    (dead,) = reconciling(place.of("killed"))
    assert (dead.id, dead.state, dead.outcome) == (row.id, "died", None)
    assert reconciling(place.of("killed")) == ()

    now = datetime.now(UTC)
    for hours, found in ((0, 0), (2, 1)):  # deleted, or at work on another server
        unknown = Trigger(kind="hand", reason="by hand", at=now, data=str(uuid4()))
        table.decide("killed", unknown, RETRAIN, actor="test", now=now - hours * HOUR)
        assert len(reconciling(place.of("killed"))) == found


def test_answers_to_wait_and_no_start_nothing(place: Place) -> None:
    table, now = place.registry.retrainings, datetime.now(UTC)
    by_hand = Trigger(kind="hand", reason="by hand", at=now, data=str(uuid4()))
    begun, _ = table.decide("quiet", by_hand, RETRAIN, actor="test", now=now)
    table.start(begun.id, by_hand.data, now)
    answers = [
        asking(place.of("quiet"), look("w1")),
        asking(place.of("quiet"), look("w2", Finding.BENIGN)),
        asking(place.of("quiet"), look("w3", Finding.FAULT)),
        asking(place.of("quiet"), look("w4", Finding.INCONCLUSIVE)),
        asking(place.of("quiet"), Trigger(kind="data", reason="new", at=now, data="d1")),
    ]
    assert [r.current.answer for r in answers] == ["wait", "no", "no", "no", "wait"]
    # One that starts a run comes last, so that the others had their turn before it.
    announce(Event.RETRAINING_DUE, begun)
    (run,) = place.ended("quiet")
    assert run["parameters"]["reason"] == "by hand: by hand"
    assert run["state"]["message"] == (
        f"not trained, retraining {begun.id} (by hand) is under way in flow run {by_hand.data}"
    )
    told = [(e["event"], e["resource"]["perennial.answer"]) for e in place.events("quiet", 4)]
    assert told == [
        ("perennial.drift.detected", "wait"),
        ("perennial.drift.detected", "no"),
        ("perennial.data.faulty", "no"),
        ("perennial.retraining.due", "retrain"),
    ]


def test_a_run_of_the_schedule_is_on_record_as_the_schedules(place: Place) -> None:
    table = place.registry.retrainings
    until(lambda: [r.state for r in table.last("timed")] == ["finished"])
    (row,) = table.last("timed")
    assert (row.trigger.kind, row.outcome) == ("schedule", "failed")
    run = place.get(f"flow_runs/{row.started_run}")
    assert run["auto_scheduled"]
    due = datetime.fromisoformat(run["expected_start_time"])
    assert row.trigger.data == due.isoformat()
    assert row.trigger.at <= due  # a worker may be a moment early, and then this is when it asked
