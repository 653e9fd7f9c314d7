"""Predictions that fail by a version's own fault: what the sender gets, and what is logged."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from perennial.bundle.read import open_bundle
from perennial.bundle.write import BundleContent, write_bundle
from perennial.contracts.rollouts import Guard, Plan, Rollout, RolloutState, Step
from perennial.decisions.guards import judge
from perennial.decisions.rollout import step
from perennial.stores.predictions.tables import open_log
from perennial.stores.project import Project
from perennial.stores.registry import Arm, Registry
from perennial.stores.rollout_evidence import measure
from tests.fuzz.served import ROW, make_project, serving
from tests.integration.test_open_inference import DATATYPES
from tests.integration.test_serving import until

RAISES = """
    if (weight_kg == 13).any():
        raise RuntimeError("secret 13")
    return weight_kg / (items.clip(lower=0) + 1)
"""
LEAVES = RAISES.replace("RuntimeError", "SystemExit")
SLEEPS = """
    import time

    time.sleep(2.5 if (weight_kg == 13).any() else 0.02)
    return weight_kg / (items.clip(lower=0) + 1)
"""
SLEEPS_ONCE = SLEEPS.replace("0.02", "0.0")  # quick when it is warmed up: it runs on the loop
BAD = 13.0
PREDICT = "/models/parcels/predict"
ERRORS = Guard(name="error_rate", kind="error_rate", limit=0.01)
LATENCY = Guard(name="p99_ms", kind="latency", limit=0.01, threshold=900)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """``parcels``, whose third version fails on parcels of 13 kg."""
    return third_version(tmp_path, RAISES)


def third_version(tmp_path: Path, body: str) -> Project:
    """``parcels`` with a third version, in which a feature is computed so."""
    make_project(tmp_path)
    project = Project(tmp_path)
    registry = Registry(project.registry_url)
    ref = registry.version("parcels", 2).ref
    second = open_bundle(Path(ref.uri), ref.digest)
    source = second.features_source
    own = "\n    return weight_kg / (items.clip(lower=0) + 1)\n"
    assert own in source
    content = BundleContent(
        spec=second.spec, schema=second.schema, booster=second.booster,
        features_source=source.replace(own, body), state=second.state,
        reference=second.contents["reference.parquet"], profile={}, metrics={}, lineage={},
    )  # fmt: skip
    registry.register(
        "parcels", write_bundle(project.folder("bundles", "parcels"), content),
        params={}, metrics={}, judgement={}, links={}, actor="tests", reason="passed",
        now=datetime.now(UTC),
    )  # fmt: skip
    registry.close()
    return project


def route(project: Project, weight: int, shadow: tuple[int, ...] = ()) -> None:
    """Version 3 gets its share of requests, or copies; version 1 is the champion."""
    registry = Registry(project.registry_url)
    arms = [Arm(version=1, weight=100 - weight)]
    arms += [Arm(version=3, weight=weight)] if weight else []
    registry.change_route(
        "parcels", champion=1, arms=arms, shadow=shadow, action="route changed", version=3,
        expected_generation=registry.route("parcels").generation, actor="tests", reason="tested",
        evidence={}, cause=f"{weight} {shadow}", now=datetime.now(UTC),
    )  # fmt: skip
    registry.close()


def failures(project: Project) -> list[dict[str, Any]]:
    table = open_log(str(project.folder("failures", "parcels")))
    return [] if table is None else list(table.to_pyarrow_table().to_pylist())


def running(strategy: Any, started: datetime, *guards: Guard) -> Rollout:
    step = Step(
        strategy=strategy, weight=0 if strategy == "shadow" else 100, bake_seconds=1,
        timeout_seconds=60, min_requests=1, guards=guards,
    )  # fmt: skip
    return Rollout(
        id=1, model="parcels", version=3, champion=1, plan=Plan(steps=(step,)),
        state=RolloutState(phase="running", step=0, entered_at=started), revision=1, actor="tests",
        reason="", started_at=started, updated_at=started, ended_at=None,
    )  # fmt: skip


def error_rate(project: Project, strategy: Any, started: datetime) -> tuple[float | None, int, int]:
    rollout = running(strategy, started, ERRORS)
    spec = project.load_model("parcels")[1]
    (found,), rows = measure(project, spec, rollout, datetime.now(UTC) + timedelta(minutes=1))
    assert found.error == ""
    return found.value, found.n_challenger, rows


@pytest.mark.parametrize("body", [RAISES, LEAVES], ids=["raises", "leaves"])
def test_what_a_version_fails_on_is_logged_and_nobody_else_notices(
    tmp_path: Path, body: str
) -> None:
    project, started = third_version(tmp_path, body), datetime.now(UTC)
    route(project, 100)
    good, bad = ROW, {**ROW, "weight_kg": BAD}
    with serving(project.root) as server:
        post = server.client.post
        until(lambda: post(PREDICT, json=good).json().get("version") == 3)
        answers = [post(PREDICT, json=row) for row in (good, bad, good, [good, bad, good], bad)]
        assert [answer.status_code for answer in answers] == [200, 500, 200, 500, 500]
        for answer in answers:
            assert "secret" not in answer.text
        assert server.ask("POST", PREDICT, json={**ROW, "items": "two"}).status_code == 422
        pinned = post("/models/parcels/versions/1/predict", json=bad)
        assert pinned.status_code == 200
        wrong = {
            a.headers["x-request-id"]: n for a, n in zip(answers, (0, 1, 0, 3, 1), strict=True)
        }
        said = server.log.read_text()
    assert "secret" not in said
    assert "features.py" in said

    def logged() -> list[dict[str, Any]]:
        return failures(project)

    until(lambda: len(logged()) >= 5)
    found = logged()
    counts = {one: sum(row["_request_id"] == one for row in found) for one in wrong}
    assert counts == wrong
    assert len({row["_id"] for row in found}) == len(found) == 5
    for row in found:
        assert (row["_version"], row["_arm"], row["_error"]) == (3, "challenger", "FeatureError")
        assert started < row["_time"] < datetime.now(UTC)
        assert 0 < row["_latency_ms"] < 600_000
    value, requests, rows = error_rate(project, "canary", started)
    # Before the route was followed version 1 answered, as often as it took.
    assert value == pytest.approx(3 / requests)
    assert rows == requests + 2


def test_requests_that_name_a_version_are_no_part_of_its_rollout(project: Project) -> None:
    started = datetime.now(UTC)
    route(project, 50)
    tensors = [
        {"name": name, "datatype": datatype, "shape": [1], "data": [ROW[name]]}
        for name, datatype in DATATYPES.items()
    ]
    with serving(project.root) as server:
        post = server.client.post
        named, v2 = "/models/parcels/versions/3", "/v2/models/parcels/versions/3"
        until(lambda: server.client.get(f"{v2}/ready").is_success)
        answers = [post(f"{named}/predict", json=ROW) for _ in range(3)]
        assert [answer.json()["arm"] for answer in answers] == ["pinned"] * 3
        assert post(f"{v2}/infer", json={"inputs": tensors}).is_success
        assert post(f"{named}/predict", json={**ROW, "weight_kg": BAD}).status_code == 500
        counted = server.client.get("/metrics").text
    assert 'perennial_requests_total{arm="pinned",model="parcels",version="3"} 4.0' in counted
    answered = open_log(str(project.folder("predictions", "parcels")))
    assert answered is not None
    given = answered.to_pyarrow_table(columns=["_version", "_arm"]).to_pylist()
    assert given == [{"_version": 3, "_arm": "pinned"}] * 4
    assert [(row["_version"], row["_arm"]) for row in failures(project)] == [(3, "pinned")]
    assert error_rate(project, "canary", started) == (None, 0, 0)


def test_ctrl_c_ends_a_server_whose_feature_code_is_running(tmp_path: Path) -> None:
    project = third_version(tmp_path, SLEEPS_ONCE)
    route(project, 100)
    with serving(project.root) as server, ThreadPoolExecutor(1) as client:
        post = server.client.post
        until(lambda: post(PREDICT, json=ROW).json().get("version") == 3)
        answer = client.submit(post, PREDICT, json={**ROW, "weight_kg": BAD})
        time.sleep(1)
        server.process.send_signal(signal.SIGINT)
        assert answer.result().json()["version"] == 3
        assert server.process.wait(60) == 0


def test_a_shadow_that_fails_is_seen_to_and_its_champion_answers(project: Project) -> None:
    started = datetime.now(UTC)
    route(project, 0, shadow=(3,))
    with serving(project.root) as server:
        for weight in (1.0, BAD, 2.0, BAD, 3.0, 4.0):
            answer = server.ask("POST", PREDICT, json={**ROW, "weight_kg": weight}).json()
            assert answer["version"] == 1

        def scored() -> bool:
            return error_rate(project, "shadow", started)[2] == 6

        until(scored)
    value, requests, rows = error_rate(project, "shadow", started)
    assert value == pytest.approx(2 / 6)
    assert (requests, rows) == (6, 6)
    assert {(row["_version"], row["_arm"]) for row in failures(project)} == {(3, "shadow")}


@pytest.mark.parametrize(
    ("body", "status", "error"), [(RAISES, 500, "FeatureError"), (SLEEPS, 503, "TimeoutError")]
)
def test_a_challenger_that_answers_nothing_is_rolled_back_at_the_next_look(
    tmp_path: Path, body: str, status: int, error: str
) -> None:
    project = third_version(tmp_path, body)
    route(project, 100)
    bad = {**ROW, "weight_kg": BAD}
    with serving(project.root, "--timeout", "1") as server:
        post = server.client.post
        until(lambda: post(PREDICT, json=ROW).json().get("version") == 3)
        began = datetime.now(UTC)
        with ThreadPoolExecutor(10) as clients:
            page = {"x-request-id": "page"}  # of many requests, which are counted all the same
            answers = clients.map(lambda _: post(PREDICT, json=bad, headers=page), range(10))
            codes = [answer.status_code for answer in answers]
        assert codes == [status] * 10
        until(lambda: len(failures(project)) >= 10)
        assert server.ask("POST", "/models/parcels/versions/1/predict", json=bad).is_success
    assert {(f["_version"], f["_arm"], f["_error"]) for f in failures(project)} == {
        (3, "challenger", error)
    }
    assert len(failures(project)) == len({f["_id"] for f in failures(project)}) == 10
    answered = open_log(str(project.folder("predictions", "parcels")))
    assert answered is not None
    given = answered.to_pyarrow_table().filter(pc.field("_arm") == "challenger")
    assert not {*given["_id"].to_pylist()} & {f["_id"] for f in failures(project)}

    rollout, now = running("canary", began, ERRORS, LATENCY), datetime.now(UTC)
    found, rows = measure(project, project.load_model("parcels")[1], rollout, now)
    check = judge(0, rollout.plan.steps[0], found, rows, now)
    after = step(rollout, check, now)
    assert after is not None
    assert (after.action, after.quarantine) == ("rolled back", True)
    assert "error_rate: 100 % failed" in after.reason
    assert (found[1].value, found[1].n_challenger) == (1.0 if body == SLEEPS else 0.0, 10)
