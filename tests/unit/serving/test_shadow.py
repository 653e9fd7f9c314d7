"""Shadow versions score what was logged: once, and whatever they do, nobody else suffers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from perennial.bundle.predictor import Predictor
from perennial.bundle.read import open_bundle
from perennial.bundle.write import write_bundle
from perennial.contracts.errors import UnavailableError
from perennial.contracts.refs import BundleRef
from perennial.serving import shadow
from perennial.serving.shadow import Shadow, ShadowSettings
from perennial.serving.shadow_state import ShadowState
from perennial.stores.predictions import Spool
from perennial.stores.predictions.ids import ids_of
from perennial.stores.predictions.reading import predictions
from perennial.stores.predictions.tables import commit_segments, open_log
from perennial.stores.predictions.waiting import Waiting, finish, waiting
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from tests.logged import NOON, prediction_rows, seal
from tests.unit.bundle.conftest import FEATURES, Made, make

OTHER = "\n\ndef heavy(weight_kg: pd.Series) -> pd.Series:\n    return (weight_kg > 5) * 1.0\n"
ENDS = "\n\nimport os\n\n\ndef heavy(weight_kg: pd.Series) -> pd.Series:\n    os._exit(3)\n"
HANGS = "\n\ndef heavy(weight_kg: pd.Series) -> pd.Series:\n    while True:\n        pass\n"
RAISES = '\n\ndef heavy(weight_kg: pd.Series) -> pd.Series:\n    raise RuntimeError("secret 17")\n'
RAISES_FOR_SOME = (
    "\n\ndef heavy(weight_kg: pd.Series) -> pd.Series:\n"
    '    if (weight_kg == 50).any():\n        raise RuntimeError("secret 50")\n'
    "    return (weight_kg > 5) * 1.0\n"
)
LEAVES = "\n\ndef heavy(weight_kg: pd.Series) -> pd.Series:\n    raise SystemExit(0)\n"


class Place:
    """A project with a registry and a spool, and model ``m`` in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spool = root / "spool"
        self.started = time.monotonic()
        self.uri = f"{root}/predictions/m"
        self.registry = Registry(Project(root).registry_url)
        self.rows = make("binary").rows

    def settings(self, **changes: Any) -> ShadowSettings:
        values: dict[str, Any] = {
            "project": str(self.root),
            "spool": str(self.spool),
            "tables": str(self.root),
            "state": str(self.root / "shadow.json"),
            "parent": os.getppid(),
            "started": self.started,
            "poll_seconds": 0.01,
        }
        return ShadowSettings(**values | changes)

    def add(self, made: Made) -> Predictor:
        """Register a bundle as the next version."""
        ref = write_bundle(self.root / "bundles", made.content)
        self.register(ref)
        return Predictor(open_bundle(Path(ref.uri), ref.digest))

    def add_broken(self, source: str) -> None:
        """Register a version whose features.py was never run: it does what ``source`` says."""
        content = make("binary", FEATURES + OTHER).content
        broken = {**vars(content), "features_source": FEATURES + source}
        self.register(write_bundle(self.root / "bundles", type(content)(**broken)))

    def register(self, ref: BundleRef) -> None:
        self.registry.register(
            "m", ref, params={}, metrics={}, judgement={}, links={}, actor="test", reason="",
            now=datetime(2026, 1, 1, tzinfo=UTC),
        )  # fmt: skip

    def batch(self, first: int, count: int, **changes: Any) -> pa.RecordBatch:
        rows = self.rows[first : first + count]
        inputs = {
            "weight_kg": pa.array(rows["weight_kg"], from_pandas=True),
            "items": pa.array(rows["items"]),
            "insured": pa.array(rows["insured"], from_pandas=True).cast(pa.bool_()),
            "depot": pa.array(rows["depot"], from_pandas=True).cast(pa.string()),
            "sent": pa.array(rows["sent"]).cast(pa.timestamp("us", "UTC")),
        }
        inputs = {name: value for name, value in (inputs | changes).items() if value is not None}
        return prediction_rows([f"p{i}" for i in rows.index], inputs)

    def commit_live(self) -> None:
        """What the keeper does."""
        for stream in waiting(self.spool):
            commit_segments(stream, self.uri)
            for one in stream:
                finish(one.path, "live")

    def logged(self, arm: str = "shadow") -> pd.DataFrame:
        batches = list(predictions(self.uri))
        if not batches:
            return pd.DataFrame({"_id": []})
        frame = pa.Table.from_batches(batches).to_pandas()
        frame = frame[frame["_arm"] == arm]
        return frame.sort_values("_id", key=lambda ids: ids.str[1:].astype(int))

    def left(self) -> int:
        return len(list(self.spool.rglob("*.segment")))

    def state(self) -> dict[str, Any]:
        return dict(json.loads((self.root / "shadow.json").read_text()))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Place(tmp_path)
    found.add(make("binary"))
    return found


@pytest.fixture
def two(place: Place) -> tuple[Place, Predictor]:
    """Version 1 answers; version 2, whose features.py is another, is its shadow."""
    return place, place.add(make("binary", FEATURES + OTHER))


def test_what_was_logged_is_scored_bit_for_bit_as_if_asked(two: tuple[Place, Predictor]) -> None:
    place, second = two
    seal(place.spool, place.batch(0, 30), place.batch(30, 1), place.batch(31, 69), shadow=[2])
    place.commit_live()
    assert place.left() == 3  # they wait for the shadow

    Shadow(place.settings()).round()

    found, live = place.logged(), place.logged("champion")
    assert list(found["_id"]) == list(live["_id"]) == [f"p{i}" for i in range(100)]
    assert set(found["_version"]) == {2}
    assert list(found["_request_id"]) == list(live["_request_id"])
    assert (found["_latency_ms"] > 0).all()
    assert found["_latency_ms"].nunique() == 3  # one of each batch, as they came
    expected = second.predict(place.rows[:100]).values.astype(float)
    assert np.array_equal(found["_prediction"], expected)
    assert list(found["depot"].fillna("")) == list(live["depot"].fillna(""))
    assert place.left() == 0
    told = place.state()["versions"]["m@2"]
    assert (told["rows"], told["failed_rows"], told["reasons"]) == (100, 0, {})


def test_several_versions_shadow_one_request_and_only_where_the_record_says_so(
    two: tuple[Place, Predictor],
) -> None:
    place, _ = two
    place.add(make("binary", FEATURES + OTHER.replace("5", "7")))
    spool = Spool(place.spool)
    for number, versions in enumerate(([2, 3], [], [3])):
        spool.append("m", "predictions", place.batch(number, 1), {"shadow": versions})
    spool.close()

    Shadow(place.settings()).round()

    pairs = place.logged()[["_id", "_version"]].sort_values(["_id", "_version"])
    assert pairs.to_numpy().tolist() == [["p0", 2], ["p0", 3], ["p2", 3]]


def test_rows_of_a_multiclass_version_have_its_classes(place: Place) -> None:
    predictor = place.add(make("multiclass"))
    seal(place.spool, place.batch(0, 9), shadow=[2])

    Shadow(place.settings()).round()

    found = place.logged()
    values = predictor.predict(place.rows[:9]).values
    assert found["_prediction"].isna().all()
    assert np.array_equal(np.stack(found["_probabilities"]), values.astype(float))
    assert list(found["_class"]) == ["abc"[i] for i in values.argmax(axis=1)]


@pytest.mark.parametrize("step", ["commit_rows", "finish"])
def test_a_kill_before_or_after_the_commit_doubles_and_loses_nothing(
    two: tuple[Place, Predictor], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    place, _ = two
    seal(place.spool, place.batch(0, 5), place.batch(5, 5), shadow=[2])

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shadow, step, killed)
    with pytest.raises(KeyboardInterrupt):
        Shadow(place.settings()).round()
    monkeypatch.undo()

    for _ in range(2):
        Shadow(place.settings()).round()

    assert list(place.logged()["_id"]) == [f"p{i}" for i in range(10)]
    place.commit_live()
    assert list(place.logged("champion")["_id"]) == [f"p{i}" for i in range(10)]
    assert place.left() == 0


@pytest.mark.parametrize(
    ("changes", "hashed", "reason"),
    [
        ({"depot": None}, [], "column 'depot' is not in the log"),
        ({"depot": pa.array(["9f" * 16] * 4)}, ["depot"], "column 'depot' is hashed in the log"),
    ],
)
def test_columns_that_the_log_lacks_are_the_reason(
    two: tuple[Place, Predictor], changes: dict[str, Any], hashed: list[str], reason: str
) -> None:
    place, _ = two
    spool = Spool(place.spool)
    header = {"shadow": [2], "hashed": hashed}
    spool.append("m", "predictions", place.batch(0, 4, **changes), header)
    spool.append("m", "predictions", place.batch(4, 2), {"shadow": [2]})
    spool.close()

    Shadow(place.settings()).round()

    assert list(place.logged()["_id"]) == ["p4", "p5"]
    assert place.state()["versions"]["m@2"]["reasons"] == {reason: 4}
    place.commit_live()
    assert place.left() == 0


def test_columns_that_model_yaml_says_to_hash_are_never_taken_for_their_values(
    two: tuple[Place, Predictor],
) -> None:
    place, _ = two
    model = place.root / "models" / "m"
    model.mkdir(parents=True)
    (model / "model.yaml").write_text(
        "name: m\nobjective: binary\nsource: {kind: csv, uri: rows.csv}\nlabel: {column: y}\n"
        "columns:\n  depot: {type: category}\nlog: {hash: [depot]}\n"
        "split: {kind: random, validation: 0.2, test: 0.2}\n"
    )
    seal(place.spool, place.batch(0, 3), shadow=[2])

    Shadow(place.settings()).round()

    reasons = place.state()["versions"]["m@2"]["reasons"]
    assert reasons == {"column 'depot' is hashed in the log": 3}


def test_a_row_that_cannot_be_scored_takes_no_other_with_it(two: tuple[Place, Predictor]) -> None:
    place, second = two
    items = pa.array([3, None, 4, -1, 5])  # -1: the weight of an item is then infinite
    weight = pa.array([1.0, 2.0, 3.0, 4.0, 5.0])
    seal(place.spool, place.batch(0, 5, items=items, weight_kg=weight), shadow=[2])

    Shadow(place.settings()).round()

    found = place.logged()
    assert list(found["_id"]) == ["p0", "p2", "p4"]
    rows = place.rows[:5].assign(items=[3, 0, 4, 0, 5], weight_kg=weight.to_pandas())
    expected = second.predict(rows).values[[0, 2, 4]].astype(float)
    assert np.array_equal(found["_prediction"], expected)
    assert place.state()["versions"]["m@2"]["reasons"] == {
        "a value that can't be used: column 'items'": 1,
        "a value that can't be used: features": 1,
    }


@pytest.mark.parametrize("source", [RAISES, LEAVES])
def test_feature_code_that_raises_is_counted_and_tells_no_value(place: Place, source: str) -> None:
    place.add_broken(source)
    seal(place.spool, place.batch(0, 3), shadow=[2])

    Shadow(place.settings()).round()

    assert len(place.logged()) == 0
    (reason, rows), *_ = place.state()["versions"]["m@2"]["reasons"].items()
    assert rows == 3
    assert "secret" not in reason
    place.commit_live()
    assert place.left() == 0


def failures(place: Place) -> list[dict[str, Any]]:
    table = open_log(f"{place.root}/failures/m")
    assert table is not None
    return sorted(table.to_pyarrow_table().to_pylist(), key=lambda row: str(row["_id"]))


def test_a_request_that_a_version_fails_on_leaves_others_of_its_name_alone(place: Place) -> None:
    place.add_broken(RAISES_FOR_SOME)
    batch = place.batch(0, 5, weight_kg=pa.array([1.0, 2.0, 50.0, 3.0, 4.0]))
    ids = [*ids_of("a", 2), *ids_of("b", 2), *ids_of("c", 1)]
    for name, values in (("_id", ids), ("_request_id", ["page"] * 5)):
        batch = batch.set_column(batch.schema.names.index(name), name, pa.array(values))
    seal(place.spool, batch, shadow=[2])

    Shadow(place.settings()).round()

    scored = predictions(f"{place.root}/predictions/m", columns=["_id"])
    assert sorted(id for part in scored for id in part["_id"].to_pylist()) == ["a.0", "a.1", "c.0"]
    assert [row["_id"] for row in failures(place)] == ["b.0", "b.1"]


def test_requests_that_a_version_fails_on_are_failures_and_the_others_are_scored(
    place: Place,
) -> None:
    place.add_broken(RAISES_FOR_SOME)
    weights = pa.array([1.0, 2.0, 50.0, 3.0, 4.0])
    batch = place.batch(0, 5, weight_kg=weights)
    # p2 and p3 are rows of one request, which fails as a whole.
    requests = pa.array(["a", "b", "c", "c", "d"])
    batch = batch.set_column(batch.schema.names.index("_request_id"), "_request_id", requests)
    seal(place.spool, batch, shadow=[2])

    for _ in range(2):
        Shadow(place.settings()).round()

    assert list(place.logged()["_id"]) == ["p0", "p1", "p4"]
    found = failures(place)
    assert [(row["_id"], row["_request_id"]) for row in found] == [("p2", "c"), ("p3", "c")]
    for row in found:
        assert (row["_version"], row["_arm"], row["_error"]) == (2, "shadow", "FeatureError")
        assert row["_time"] == NOON
        assert row["_latency_ms"] > 0
    (reason,) = place.state()["versions"]["m@2"]["reasons"]
    assert reason.startswith("FeatureError while scoring in features.py")
    assert "secret" not in reason


@pytest.mark.parametrize("step", ["commit_rows", "finish"])
def test_a_kill_doubles_and_loses_no_failure(
    place: Place, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    place.add_broken(RAISES_FOR_SOME)
    weights = pa.array([1.0, 50.0])
    seal(place.spool, place.batch(0, 2, weight_kg=weights), shadow=[2])
    real, calls = getattr(shadow, step), []

    def killed(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2 or step == "finish":  # after failures, before predictions
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(shadow, step, killed)
    with pytest.raises(KeyboardInterrupt):
        Shadow(place.settings()).round()
    monkeypatch.undo()

    for _ in range(2):
        Shadow(place.settings()).round()

    assert [row["_id"] for row in failures(place)] == ["p1"]
    assert list(place.logged()["_id"]) == ["p0"]


def test_all_rows_fail_of_a_version_that_can_not_be_loaded(place: Place) -> None:
    seal(place.spool, place.batch(0, 2), shadow=[9])

    Shadow(place.settings()).round()

    found = [(row["_id"], row["_error"], row["_latency_ms"]) for row in failures(place)]
    assert found == [("p0", "InputError", None), ("p1", "InputError", None)]


def test_a_version_that_is_unknown_or_damaged_is_counted_and_the_others_go_on(
    two: tuple[Place, Predictor],
) -> None:
    place, _ = two
    place.add(make("binary", FEATURES + OTHER.replace("5", "7")))
    bundle = Path(place.registry.version("m", 3).ref.uri)
    (bundle / "state.json").write_text("{}")
    seal(place.spool, place.batch(0, 2), shadow=[2, 3, 9])

    Shadow(place.settings()).round()

    assert set(place.logged()["_version"]) == {2}
    versions = place.state()["versions"]
    assert versions["m@9"]["reasons"] == {
        "can't be loaded: registry: 'm' has no version 9 (its versions are 1 to 3)": 2
    }
    (damaged,) = versions["m@3"]["reasons"]
    assert damaged.startswith(f"can't be loaded: bundle {bundle}, state.json: 2 bytes")


def test_a_number_that_a_new_registry_gives_to_another_bundle_is_scored_by_that_one(
    two: tuple[Place, Predictor],
) -> None:
    place, former = two
    database = place.root / ".perennial" / "registry.db"
    process = Shadow(place.settings())
    seal(place.spool, place.batch(0, 3), shadow=[2])
    process.round()
    database.rename(database.with_name("away.db"))  # what is loaded goes on scoring
    seal(place.spool, place.batch(3, 3), shadow=[2])
    process.round()
    place.registry.close()
    place.registry = Registry(Project(place.root).registry_url)
    place.add(make("binary"))
    other = place.add(make("regression"))
    seal(place.spool, place.batch(6, 3), shadow=[2])
    process.round()

    found = place.logged()["_prediction"].to_numpy()
    assert list(place.logged()["_version"]) == [2] * 9
    old, new = (each.predict(place.rows[:9]).values.astype(float) for each in (former, other))
    assert (old[6:] != new[6:]).all()
    assert np.array_equal(found, [*old[:6], *new[6:]])


def test_segments_wait_while_a_table_does_not_answer(
    two: tuple[Place, Predictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, _ = two
    seal(place.spool, place.batch(0, 2), shadow=[2])
    process = Shadow(place.settings(longest_wait_seconds=0.0))

    def away(*_: object) -> None:
        raise UnavailableError("the bucket does not answer")

    monkeypatch.setattr(shadow, "commit_rows", away)
    process.round()
    assert place.state()["problems"] == ["the bucket does not answer"]
    assert place.left() == 1
    monkeypatch.undo()

    process.round()

    assert len(place.logged()) == 2
    assert place.state()["problems"] == []
    assert place.state()["versions"]["m@2"]["rows"] == 2


def _start(place: Place, **changes: Any) -> subprocess.Popen[bytes]:
    settings = place.settings(**{"parent": os.getpid()} | changes)
    return subprocess.Popen(settings.command(), stderr=subprocess.PIPE)


def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _end(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=240)
    return process.returncode


@pytest.mark.parametrize(
    ("source", "code"), [(ENDS, 3), (HANGS, -signal.SIGPROF)], ids=["ends", "hangs"]
)
def test_a_version_that_ends_the_process_is_tried_twice_on_a_segment_and_then_left_out(
    two: tuple[Place, Predictor], source: str, code: int
) -> None:
    place, _ = two
    place.add_broken(source)
    seal(place.spool, place.batch(0, 4), shadow=[2, 3])

    for _ in range(2):
        died = _start(place, cpu_seconds=4.0)
        died.communicate(timeout=240)
        assert died.returncode == code
        place.commit_live()  # whatever the shadow does
        assert len(place.logged("champion")) == 4
        assert len(place.logged()) == 0
    last = _start(place, cpu_seconds=4.0)
    _until(lambda: place.left() == 0)

    assert _end(last) == 0
    assert list(place.logged()["_version"]) == [2] * 4
    assert place.state()["versions"]["m@3"]["reasons"] == {
        "not tried again: it ended the process 2 times on a segment": 4
    }


def test_a_version_that_keeps_ending_the_process_is_tried_nowhere_any_more(
    two: tuple[Place, Predictor],
) -> None:
    place, _ = two
    settings = place.settings()
    died_of = {"m@2 elsewhere/1": 2, "m@2 elsewhere/2": 1, "m@1 elsewhere/1": 1}
    former = {"versions": {}, "crashes": died_of, "trying": "m@2 elsewhere/2"}
    told = json.dumps({**former, "monotonic_seconds": time.monotonic()})
    (place.root / "shadow.json").write_text(told)
    seal(place.spool, *(place.batch(i, 1) for i in range(3)), shadow=[2])

    Shadow(settings).round()

    assert place.left() == 3
    assert place.state()["waiting_segments"] == 0
    reasons = place.state()["versions"]["m@2"]["reasons"]
    assert reasons == {"not tried any more: it ended the process 4 times": 3}


def test_a_server_that_starts_anew_gives_every_version_another_chance(
    two: tuple[Place, Predictor],
) -> None:
    place, _ = two
    former = {"versions": {}, "crashes": {"m@2 elsewhere/1": 9}, "trying": ""}
    told = json.dumps({**former, "monotonic_seconds": place.started - 0.001})
    (place.root / "shadow.json").write_text(told)
    seal(place.spool, place.batch(0, 2), shadow=[2])

    Shadow(place.settings()).round()

    assert len(place.logged()) == 2


def test_crashes_are_counted_on_when_processes_of_two_servers_take_turns(
    two: tuple[Place, Predictor],
) -> None:
    place, _ = two
    place.add_broken(ENDS)
    seal(place.spool, place.batch(0, 4), shadow=[2, 3])
    servers = [{"started": time.monotonic()} for _ in range(2)]
    running = [_start(place, **server) for server in servers]
    died = 0

    while place.left():  # what dies is started again, as by its server
        for i, process in enumerate(running):
            if process.poll() is not None:
                process.communicate()
                died += 1
                assert died < 5, "what ends it is tried again and again"
                running[i] = _start(place, **servers[i])
        place.commit_live()
        time.sleep(0.02)

    assert [_end(process) for process in running] == [0, 0]
    assert died == 2
    assert list(place.logged()["_version"]) == [2] * 4
    assert place.state()["versions"]["m@3"]["reasons"] == {
        "not tried again: it ended the process 2 times on a segment": 4
    }


def test_a_server_that_joins_others_counts_on_and_one_that_comes_after_them_begins_anew(
    tmp_path: Path,
) -> None:
    segment = Waiting(tmp_path / "1.segment", "s", "m", "predictions", 1, 10)
    path, first, second = tmp_path / "shadow.json", time.monotonic(), time.monotonic()
    tried = []  # and never left: the process dies there

    for started in [first, second, first, second]:
        tried.append(ShadowState(path, started).trying(segment, 3))
        refused = tried[-1].__enter__() != ""
        assert refused == (len(tried) > 2)

    with ShadowState(path, time.monotonic()).trying(segment, 3) as refusal:
        assert refusal == ""


def test_the_process_is_nice_works_beside_a_server_and_ends_when_told(
    two: tuple[Place, Predictor],
) -> None:
    place, _ = two
    process = _start(place)
    seal(place.spool, place.batch(0, 7), shadow=[2])
    _until(lambda: len(place.logged()) == 7)

    assert os.getpriority(os.PRIO_PROCESS, process.pid) == min(os.nice(0) + 15, 19)
    assert _end(process) == 0


def test_the_process_ends_with_its_parent(place: Place) -> None:
    orphan = _start(place, parent=1)

    assert orphan.wait(240) == 0
