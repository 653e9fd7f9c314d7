"""The service as its users meet it: a process of its own, spoken to over HTTP."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from perennial.bundle.predictor import Predictor
from perennial.bundle.read import open_bundle
from perennial.bundle.write import write_bundle
from perennial.contracts.rollouts import Guard, Plan, Step
from perennial.stores.predictions.reading import predictions
from perennial.stores.project import Project
from perennial.stores.registry import Arm, Registry
from tests.fuzz.served import FEATURES, NOW, ROW, Server, content, make_project, serving
from tests.waiting import until

ARROW = "application/vnd.apache.arrow.stream"
PREDICT = "/models/parcels/predict"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    make_project(tmp_path)
    change(tmp_path, {1: 100})
    return tmp_path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("served")
    make_project(root)
    change(root, {1: 100})
    with serving(root) as running:
        yield running


def change(
    root: Path, weights: dict[int, int], shadow: tuple[int, ...] = (), model: str = "parcels"
) -> None:
    """Change the route of a model; the first version stays or becomes its champion."""
    registry = Registry(Project(root).registry_url)
    route = registry.route(model)
    registry.change_route(
        model,
        champion=next(iter(weights)),
        arms=[Arm(version=version, weight=weight) for version, weight in weights.items()],
        shadow=shadow,
        action="route changed",
        version=next(iter(weights)),
        expected_generation=route.generation,
        actor="tests",
        reason="tested",
        evidence={},
        cause=f"generation {route.generation}",
        now=datetime.now(UTC),
    )
    registry.close()


def predictor(root: Path, version: int, model: str = "parcels") -> Predictor:
    registry = Registry(Project(root).registry_url)
    ref = registry.version(model, version).ref
    registry.close()
    return Predictor(open_bundle(Path(ref.uri), ref.digest))


def some_rows(count: int, seed: int = 5) -> list[dict[str, Any]]:
    """Rows with missing values and with categories that training never saw."""
    random = np.random.default_rng(seed)

    def sometimes(value: Any) -> Any:
        return None if random.random() < 0.2 else value

    return [
        {
            "sent": f"2026-02-{random.integers(1, 28):02d}T{random.integers(0, 24):02d}:30:00Z",
            "customer": f"c-{random.integers(0, 10**6)}",
            "weight_kg": sometimes(round(float(random.gamma(2.0, 3.0)), 3)),
            "items": int(random.integers(1, 9)),
            "insured": sometimes(bool(random.random() < 0.5)),
            "depot": sometimes(str(random.choice(["north", "south", "west", "the moon"]))),
            "remark": sometimes(str(random.choice(["", "fragile", "très fragile"]))),
        }
        for _ in range(count)
    ]


def as_arrow(rows: list[dict[str, Any]]) -> pa.Table:
    table = pa.Table.from_pylist(rows)
    times = pa.array([datetime.fromisoformat(r["sent"]) for r in rows], pa.timestamp("us", "UTC"))
    return table.set_column(table.column_names.index("sent"), "sent", times)


def arrow_body(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def test_predictions_are_the_training_path_s_bit_for_bit_in_every_form(server: Server) -> None:
    rows = some_rows(150)
    expected = predictor(server.log.parent, 1).predict(as_arrow(rows)).values

    def same(found: Any) -> bool:
        return np.array(found, np.float32).tobytes() == expected.tobytes()

    alone = [server.ask("POST", PREDICT, json=row).json()["probability"] for row in rows]
    many = server.ask("POST", PREDICT, json={"rows": rows}).json()["predictions"]
    listed = server.ask("POST", PREDICT, json=rows).json()["predictions"]
    table = server.ask(
        "POST",
        PREDICT,
        content=arrow_body(as_arrow(rows)),
        headers={"content-type": ARROW, "accept": ARROW},
    )
    arrow = pa.ipc.open_stream(table.content).read_all()
    assert same(alone)
    assert same([p["probability"] for p in many])
    assert same([p["probability"] for p in listed])
    assert same(arrow["probability"].to_pylist())
    ids = [*(p["id"] for p in many), *(p["id"] for p in listed), *arrow["id"].to_pylist()]
    assert len(set(ids)) == len(ids) == 450
    assert {p["version"] for p in many} == {1}
    assert {p["arm"] for p in many} == {"champion"}


def test_classes_come_with_their_probabilities(server: Server) -> None:
    rows = some_rows(20)
    expected = predictor(server.log.parent, 1, "letters").predict(as_arrow(rows)).values
    found = server.ask("POST", "/models/letters/predict", json=rows).json()["predictions"]
    assert (
        np.array([list(p["probabilities"].values()) for p in found], np.float32).tobytes()
        == expected.tobytes()
    )
    assert [p["class"] for p in found] == ["abc"[i] for i in expected.argmax(axis=1)]


def test_requests_at_once_are_computed_together_and_one_bad_row_fails_alone(
    server: Server,
) -> None:
    rows = some_rows(60)
    for row in rows[::7]:
        row["weight_kg"] = "a lot"
    answers: dict[int, httpx.Response] = {}

    def ask(place: int) -> None:
        with httpx.Client(base_url=server.url, timeout=120) as client:
            answers[place] = client.post(PREDICT, json=rows[place])

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(rows))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    good = [place for place in range(len(rows)) if place % 7]
    table = as_arrow([rows[place] for place in good])
    expected = predictor(server.log.parent, 1).predict(table).values
    assert [answers[place].status_code for place in good] == [200] * len(good)
    found = np.array([answers[place].json()["probability"] for place in good], np.float32)
    assert found.tobytes() == expected.tobytes()
    for place in range(0, len(rows), 7):
        assert answers[place].status_code == 422
        problem = answers[place].json()["error"]["problems"][0]
        assert problem["where"] == "column 'weight_kg', row 1"
        assert "'a lot'" in problem["what"]


@pytest.mark.parametrize(
    ("body", "status", "code", "message"),
    [
        ({**ROW, "weigth_kg": 1.0}, 422, "invalid_rows", "did you mean 'weight_kg'?"),
        ({k: v for k, v in ROW.items() if k != "items"}, 422, "invalid_rows", "'items': is absent"),
        ({**ROW, "outcome": "yes"}, 422, "invalid_rows", "is the label"),
        ([ROW, {**ROW, "items": None}], 422, "invalid_rows", "column 'items'"),
        ([ROW, {**ROW, "items": "two"}], 422, "invalid_rows", "column 'items', row 2"),
        ([ROW, {**ROW, "sent": "yesterday"}], 422, "invalid_rows", "column 'sent', row 2"),
        ([], 422, "no_rows", "0 rows"),
        ({"rows": []}, 422, "no_rows", "0 rows"),
        ([1, 2], 400, "invalid_request", "row 1 is a number"),
        ("text", 400, "invalid_request", "expected an object"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(
    server: Server, body: Any, status: int, code: str, message: str
) -> None:
    answer = server.ask("POST", PREDICT, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert message in error["message"]
    assert error["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("path", "content", "kind", "status", "code"),
    [
        (PREDICT, b'{"weight_kg": NaN}', "application/json", 400, "invalid_json"),
        (PREDICT, json.dumps({**ROW, "weight_kg": 0}).replace("0,", "1e999,", 1).encode(),
         "application/json", 400, "invalid_json"),
        (PREDICT, b"weight_kg\n1", "text/csv", 415, "unsupported_media_type"),
        (PREDICT, b"x" * (17 * 2**20), "application/json", 413, "too_large"),
        (PREDICT, json.dumps([ROW] * 10_001).encode(), "application/json", 413, "too_many_rows"),
        ("/models/nobody/predict", b"{}", "application/json", 404, "unknown_model"),
        ("/models/parcels/versions/9/predict", b"{}", "application/json", 404, "unknown_version"),
        ("/models/parcels/versions/..%2f1/predict", b"{}", "application/json", 404, "not_found"),
        ("/nowhere", b"{}", "application/json", 404, "not_found"),
    ],
)  # fmt: skip
def test_a_request_that_can_not_be_read_is_refused(
    server: Server, path: str, content: bytes, kind: str, status: int, code: str
) -> None:
    answer = server.ask("POST", path, content=content, headers={"content-type": kind})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize("path", [PREDICT, "/v2/models/parcels/infer", "/models/parcels/labels"])
def test_a_compressed_body_is_told_to_come_as_it_is(server: Server, path: str) -> None:
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    answer = server.ask("POST", path, content=gzip.compress(b"[]"), headers=headers)
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")
    assert "content encoding 'gzip' is not read here; send none" in answer.text


def test_infinite_and_missing_values_of_arrow_are_told_apart(server: Server) -> None:
    table = as_arrow(some_rows(3))
    weight = table.column_names.index("weight_kg")
    missing = table.set_column(weight, "weight_kg", pa.array([1.0, float("nan"), None]))
    kinds = {"content-type": ARROW}
    found = server.ask("POST", PREDICT, content=arrow_body(missing), headers=kinds)
    expected = predictor(server.log.parent, 1).predict(missing).values
    assert [p["probability"] for p in found.json()["predictions"]] == expected.tolist()
    endless = table.set_column(weight, "weight_kg", pa.array([1.0, float("inf"), 2.0]))
    refused = server.ask("POST", PREDICT, content=arrow_body(endless), headers=kinds)
    assert refused.status_code == 422
    assert "column 'weight_kg', row 2" in refused.json()["error"]["message"]


def test_a_new_route_is_followed_within_two_seconds_and_no_request_fails(project: Path) -> None:
    with serving(project) as server:
        seen: list[tuple[float, int, int]] = []
        done = threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=server.url, timeout=120) as client:
                while not done.is_set():
                    answer = client.post(PREDICT, json=ROW)
                    version = answer.json().get("version", 0)
                    seen.append((time.monotonic(), answer.status_code, version))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        moments = []
        for version in (2, 1, 2):
            moments.append((time.monotonic(), version))
            change(project, {version: 100})
            time.sleep(2.0)
        done.set()
        for thread in threads:
            thread.join()
    assert {status for _, status, _ in seen} == {200}
    for (moment, version), (end, _) in zip(moments, [*moments[1:], (float("inf"), 0)], strict=True):
        late = {v for at, _, v in seen if moment + 2.0 <= at < end}
        assert late <= {version}
        first = min(at for at, _, v in seen if at > moment and v == version)
        assert first - moment < 2.0


def test_an_entity_keeps_its_version_while_a_canary_grows(project: Path) -> None:
    customers = [f"c-{i}" for i in range(1500)]
    rows = [{**ROW, "customer": customer} for customer in customers]
    with serving(project) as server:
        before: set[str] = set()
        for generation, weight in enumerate((10, 40, 100)):
            change(project, {1: 100 - weight, 2: weight} if weight < 100 else {2: 100})
            until(lambda g=generation: _generation(server) == g + 4)  # type: ignore[misc]
            found = server.ask("POST", PREDICT, json=rows).json()["predictions"]
            again = [server.ask("POST", PREDICT, json=row).json()["version"] for row in rows[:50]]
            assert again == [p["version"] for p in found[:50]]
            moved = {c for c, p in zip(customers, found, strict=True) if p["version"] == 2}
            assert before <= moved
            share = len(moved) / len(customers)
            assert abs(share - weight / 100) < 5 * (0.25 / len(customers)) ** 0.5
            for version in {p["version"] for p in found}:
                some = [i for i, p in enumerate(found) if p["version"] == version]
                expected = predictor(project, version).predict(as_arrow([rows[i] for i in some]))
                answers = np.array([found[i]["probability"] for i in some], np.float32)
                assert answers.tobytes() == expected.values.tobytes()
            before = moved


def _generation(server: Server, model: str = "parcels") -> int:
    return int(server.ask("GET", f"/models/{model}").json()["generation"])


def test_a_rollout_is_followed_and_told_of_until_it_is_rolled_back(project: Path) -> None:
    registry = Registry(Project(project).registry_url)
    guard = Guard(name="errors", kind="error_rate", limit=0.01)
    switch = Step(
        strategy="blue_green", weight=100, bake_seconds=600, timeout_seconds=86_400,
        min_requests=10, guards=(guard,),
    )  # fmt: skip
    who: dict[str, Any] = {"actor": "tests", "reason": "tested", "now": datetime.now(UTC)}
    told = "Rollout under way: parcels@2: blue/green, step 1 of 1"
    with serving(project) as server:
        registry.rollouts.begin("parcels", 2, Plan(steps=(switch,)), cause="tested", **who)
        until(lambda: server.ask("POST", PREDICT, json=ROW).json()["version"] == 2)
        until(lambda: told in server.ask("GET", "/").text)
        assert registry.rollback("parcels", None, **who).champion == 1
        until(lambda: server.ask("POST", PREDICT, json=ROW).json()["version"] == 1)
        until(lambda: told not in server.ask("GET", "/").text)
    registry.close()


def test_a_tampered_bundle_takes_no_traffic_and_the_old_version_stays(project: Path) -> None:
    registry = Registry(Project(project).registry_url)
    bundle = Path(registry.version("parcels", 2).ref.uri)
    registry.close()
    booster = bundle / "booster.ubj"
    intact = booster.read_bytes()
    with serving(project) as server:
        booster.write_bytes(intact[:-1] + bytes([intact[-1] ^ 1]))
        change(project, {2: 100})
        until(lambda: "its content was changed" in server.ask("GET", "/").text)
        assert server.ask("POST", PREDICT, json=ROW).json()["version"] == 1
        assert server.ask("GET", "/v2/health/ready").json() == {"ready": True}
        assert 'perennial_route_problem{model="parcels"} 1.0' in server.ask("GET", "/metrics").text
        booster.write_bytes(intact)
        until(lambda: server.ask("POST", PREDICT, json=ROW).json()["version"] == 2)


def register_hanging(project: Path, when: str) -> None:
    """A third version, whose features.py never ends ``when`` it is given such times."""
    wait = f"import time\n    while {when}:\n        time.sleep(0.01)\n    return sent.dt.hour"
    register(project, FEATURES.replace("return sent.dt.hour", wait))


def register(project: Path, source: str) -> None:
    """A third version, with this features.py."""
    hanging = replace(content("parcels", "binary", 5), features_source=source)
    registry = Registry(Project(project).registry_url)
    registry.register(
        "parcels", write_bundle(Project(project).folder("bundles", "parcels"), hanging),
        params={}, metrics={}, judgement={}, links={}, actor="tests", reason="passed", now=NOW,
    )  # fmt: skip
    registry.close()


def test_a_version_that_hangs_while_it_computes_holds_up_no_other_and_not_the_end(
    project: Path,
) -> None:
    register_hanging(project, "len(sent) > 64")
    kinds = {"content-type": ARROW}
    many = arrow_body(as_arrow(some_rows(65)))
    third, second = (f"/models/parcels/versions/{number}/predict" for number in (3, 2))
    change(project, {2: 99, 3: 1})
    with serving(project, "--timeout", "2") as server:
        for _ in range(3):
            hung = server.ask("POST", third, content=many, headers=kinds)
            assert (hung.status_code, hung.json()["error"]["code"]) == (503, "timeout")
        answered = server.ask("POST", second, content=many, headers=kinds)
        assert answered.status_code == 200
    assert server.process.returncode == 0
    assert '"event":"stopped"' in server.log.read_text()
    assert set(_logged_ids(project)) == {p["id"] for p in answered.json()["predictions"]}


def test_a_text_that_a_pattern_takes_for_ever_ends_its_own_request_alone(project: Path) -> None:
    pattern = "import re\n    return remark.map(lambda t: re.match('(a+)+$', str(t)) is None)"
    register(project, FEATURES.replace("return remark.str.len()", pattern))
    change(project, {3: 100})
    with serving(project) as server:
        hung = server.client.post(PREDICT, json={**ROW, "remark": "a" * 50 + "b"})
        assert (hung.status_code, hung.json()["error"]["code"]) == (500, "internal")
        assert server.ask("POST", PREDICT, json=ROW).json()["version"] == 3
        assert '"type":"TooLongError"' in server.log.read_text()
    assert server.process.returncode == 0


def test_a_version_that_hangs_while_it_is_loaded_holds_up_no_other_and_not_the_end(
    project: Path,
) -> None:
    register_hanging(project, "True")
    with serving(project) as server:
        change(project, {3: 100})
        change(project, {1: 100}, model="prices")
        until(lambda: _generation(server, "prices") == 2)
        answered = server.ask("POST", PREDICT, json=ROW).json()
        assert answered["version"] == 1
        change(project, {2: 100})
        until(lambda: server.ask("POST", PREDICT, json=ROW).json()["version"] == 2)
        change(project, {3: 100})
        time.sleep(1.0)
    assert server.process.returncode == 0
    assert '"event":"stopped"' in server.log.read_text()
    assert _logged_ids(project)[answered["id"]] == 1
    with serving(project, wait_for=["letters", "prices"]) as server:
        assert server.client.get("/v2/models/parcels/ready").status_code == 503
    assert server.process.returncode == 0


def test_without_a_registry_the_last_known_route_is_served_also_after_a_restart(
    project: Path,
) -> None:
    database = project / ".perennial" / "registry.db"
    with serving(project) as server:
        expected = server.ask("POST", PREDICT, json=ROW).json()["probability"]
        for file in database.parent.glob("registry.db*"):
            file.unlink()
        database.write_bytes(b"not a database at all" * 100)
        until(lambda: "damaged" in server.ask("GET", "/").text)
        assert server.ask("POST", PREDICT, json=ROW).json()["probability"] == expected
    with serving(project) as server:
        assert server.ask("POST", PREDICT, json=ROW).json()["probability"] == expected
        assert server.ask("GET", "/v2/health/ready").json() == {"ready": True}


def test_a_stopped_server_finishes_what_is_under_way_and_logs_it(project: Path) -> None:
    answers: list[dict[str, Any]] = []
    half_sent, stopping = threading.Event(), threading.Event()
    text = json.dumps(some_rows(5_000)).encode()

    def body() -> Iterator[bytes]:
        yield text[: len(text) // 2]
        half_sent.set()
        stopping.wait(10)
        time.sleep(0.3)
        yield text[len(text) // 2 :]

    def ask(url: str) -> None:
        answer = httpx.post(f"{url}{PREDICT}", content=body(), timeout=30)
        answers.extend(answer.json()["predictions"])

    with serving(project) as server:
        thread = threading.Thread(target=ask, args=(server.url,))
        thread.start()
        half_sent.wait(10)
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        stopping.set()
        thread.join()
        assert server.process.wait(240) == 0
    assert len(answers) == 5_000
    assert _logged_ids(project) == Counter(answer["id"] for answer in answers)


@pytest.mark.parametrize("acknowledge", ["fast", "strict"])
def test_what_was_acknowledged_is_in_the_table_exactly_once_after_kill_9(
    project: Path, acknowledge: str
) -> None:
    acknowledged: list[str] = []

    def ask(server: Server) -> None:
        with httpx.Client(base_url=server.url) as client:
            while True:
                try:
                    answer = client.post(PREDICT, json=some_rows(3, len(acknowledged)))
                except httpx.HTTPError:
                    return
                if answer.status_code == 200:
                    acknowledged.extend(p["id"] for p in answer.json()["predictions"])

    for _ in range(2):
        with serving(project, "--acknowledge", acknowledge) as server:
            threads = [threading.Thread(target=ask, args=(server,)) for _ in range(3)]
            for thread in threads:
                thread.start()
            time.sleep(1.2)
            server.process.kill()
            for thread in threads:
                thread.join()
    with serving(project):
        pass
    until(lambda: not list((project / ".perennial" / "spool").rglob("*.segment")))
    logged = _logged_ids(project)
    assert len(acknowledged) > 20
    assert set(logged.values()) == {1}
    assert set(acknowledged) <= set(logged)


def _logged_ids(project: Path) -> Counter[str]:
    table = str(project / ".perennial" / "predictions" / "parcels")
    found: Counter[str] = Counter()
    if Path(table).is_dir():
        for batch in predictions(table, columns=["_id"]):
            found.update(batch["_id"].to_pylist())
    return found


def test_a_shadow_answers_nobody_and_scores_every_request(project: Path) -> None:
    change(project, {1: 100}, shadow=(2,))
    rows = some_rows(40)
    with serving(project) as server:
        answers = [server.ask("POST", PREDICT, json=row).json() for row in rows]
        shadow = 'perennial_shadow_rows_total{model="parcels",version="2"} 40.0'
        until(lambda: shadow in server.ask("GET", "/metrics").text, 40)
    assert {answer["version"] for answer in answers} == {1}
    table = str(project / ".perennial" / "predictions" / "parcels")
    logged = pa.Table.from_batches(
        predictions(table, columns=["_id", "_version", "_arm", "_prediction"])
    ).to_pylist()
    for version, arm in ((1, "champion"), (2, "shadow")):
        expected = predictor(project, version).predict(as_arrow(rows)).values
        found = {r["_id"]: r for r in logged if r["_version"] == version}
        assert len([r for r in logged if r["_version"] == version]) == len(found) == 40
        assert {r["_arm"] for r in found.values()} == {arm}
        assert [found[a["id"]]["_prediction"] for a in answers] == expected.tolist()


def test_a_server_that_has_enough_to_do_tells_others_to_come_back(project: Path) -> None:
    text = json.dumps(ROW).encode()
    half_sent, finish = threading.Event(), threading.Event()
    slow: list[int] = []

    def body() -> Iterator[bytes]:
        yield text[:20]
        half_sent.set()
        finish.wait(10)
        yield text[20:]

    with serving(project, "--max-requests", "1", "--max-rows", "2") as server:
        thread = threading.Thread(
            target=lambda: slow.append(
                httpx.post(f"{server.url}{PREDICT}", content=body(), timeout=120).status_code
            )
        )
        thread.start()
        half_sent.wait(10)
        time.sleep(0.2)
        refused = server.ask("POST", PREDICT, json=ROW)
        finish.set()
        thread.join()
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["error"]["code"] == "overloaded"
        assert slow == [200]
        assert server.ask("POST", PREDICT, json=ROW).status_code == 200
        assert server.ask("POST", PREDICT, json=[ROW] * 3).status_code == 413


def test_a_server_that_is_told_to_end_while_it_starts_ends(project: Path) -> None:
    command = [sys.executable, "-m", "perennial", "--project", str(project), "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"listening at ")
        process.send_signal(signal.SIGTERM)
        assert process.wait(240) == 0


def test_a_full_log_refuses_and_recovers(project: Path) -> None:
    with serving(project, "--max-log-mib", "1") as server:
        predicted, refused = 0, None
        rows = some_rows(1_000)
        while refused is None and predicted < 200_000:
            answer = server.ask("POST", PREDICT, json=rows)
            if answer.status_code == 503:
                refused = answer
            else:
                predicted += len(rows)
        assert refused is not None
        assert refused.json()["error"]["code"] == "log_full"
        assert refused.headers["retry-after"] == "5"
        until(lambda: server.ask("POST", PREDICT, json=rows[:1]).status_code == 200, 40)
        predicted += 1
    assert len(_logged_ids(project)) >= predicted


def test_labels_are_kept_by_id_or_by_entity_and_time(project: Path) -> None:
    told: list[list[str]] = []
    with serving(project) as server:
        identity = server.ask("POST", PREDICT, json=ROW).json()["id"]
        by_id = {"prediction_id": identity, "label": "yes"}
        by_entity = {
            "customer": "c-7",
            "sent": "2026-03-01T06:00:00Z",
            "label": "no",
            "metrics": {"revenue": 12, "visits": None},
        }
        answer = server.ask("POST", "/models/parcels/labels", json=[by_id, by_entity])
        assert answer.json() == {"model": "parcels", "accepted": 2}
        wrong = server.ask(
            "POST",
            "/models/parcels/labels",
            json={"labels": [{"label": "yes"}, {**by_id, "label": "maybe"}, {**by_id, "odd": 1}]},
        )
        assert wrong.status_code == 422
        assert [p["where"] for p in wrong.json()["error"]["problems"]] == [
            "label 1", "label 3", "label 2",
        ]  # fmt: skip
        metrics = {"Revenue": 1, "visits": "many", "margin": True}
        for given in (metrics, [12.5], dict.fromkeys(map("m{}".format, range(21)), 1)):
            wrong = server.ask("POST", "/models/parcels/labels", json={**by_id, "metrics": given})
            assert wrong.status_code == 422
            told.append([p["what"] for p in wrong.json()["error"]["problems"]])
        assert told == [
            [
                "metric 'Revenue' is no name for one",
                "metric 'visits': 'many' is not a finite number",
                "metric 'margin': True is not a finite number",
            ],
            ["metrics is [12.5]"],
            ["has 21 metrics, 20 at most"],
        ]
        labels = project / ".perennial" / "labels" / "parcels"
        until(lambda: DeltaTable.is_deltatable(str(labels)))
    kept = DeltaTable(labels).to_pyarrow_table().to_pylist()
    assert [(r["_id"], r["customer"], r["label"]) for r in kept] == [
        (identity, None, "yes"), (None, "c-7", "no"),
    ]  # fmt: skip
    assert [(r["metric_revenue"], r["metric_visits"]) for r in kept] == [(None, None), (12.0, None)]


def test_a_server_for_others_needs_tokens(project: Path, tmp_path: Path) -> None:
    from tests.workplace import Workplace

    refused = Workplace(project, dict(os.environ)).cli("serve", "--host", "0.0.0.0", "--port", "0")
    assert refused.returncode == 2
    assert "can be reached by others" in refused.stderr


def test_an_unknown_name_and_a_port_in_use_are_the_user_s_mistakes(server: Server) -> None:
    from tests.workplace import Workplace

    place = Workplace(server.log.parent, dict(os.environ))
    unknown = place.cli("serve", "parcel")
    assert unknown.returncode == 2
    assert "no model 'parcel'; did you mean 'parcels'?" in unknown.stderr
    port = server.url.rpartition(":")[2]
    taken = place.cli("serve", "--port", port)
    assert taken.returncode == 2
    assert "can't listen" in taken.stderr


def test_a_model_without_model_yaml_is_not_served_for_nobody_knows_what_may_be_kept(
    project: Path,
) -> None:
    moved = project / "letters"
    with serving(project) as server:
        (project / "models" / "letters").rename(moved)
        change(project, {2: 100})  # parcels, which goes on
        until(lambda: server.ask("POST", PREDICT, json=ROW).json()["version"] == 2)
        assert server.ask("POST", "/models/letters/predict", json=ROW).status_code == 200
    with serving(project, wait_for=["parcels"]) as server:
        until(lambda: "its model.yaml" in server.ask("GET", "/").text)
        refused = server.ask("POST", "/models/letters/predict", json=ROW)
        assert refused.json()["error"]["code"] == "not_ready"
        assert server.client.get("/v2/health/ready").json() == {"ready": False}
        assert server.ask("POST", PREDICT, json=ROW).status_code == 200


def test_the_frame_of_pandas_gives_the_same_too(server: Server) -> None:
    rows = some_rows(40)
    frame = pd.DataFrame(rows)
    found = server.ask("POST", PREDICT, json=rows).json()["predictions"]
    expected = predictor(server.log.parent, 1).predict(frame).values
    assert np.array([p["probability"] for p in found], np.float32).tobytes() == expected.tobytes()
