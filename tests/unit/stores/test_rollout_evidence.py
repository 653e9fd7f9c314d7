"""What a step of a rollout measures, over real tables of a log."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from perennial.bundle.outputs import output_columns
from perennial.bundle.write import BundleContent, write_bundle
from perennial.contracts.rollouts import (
    Guard,
    Measurement,
    Plan,
    Rollout,
    RolloutState,
    Step,
    Strategy,
)
from perennial.decisions.guards import judge
from perennial.decisions.rollout import step
from perennial.spec import ModelSpec
from perennial.stores import rollout_evidence
from perennial.stores.predictions.columns import TIMESTAMP
from perennial.stores.predictions.ids import ids_of
from perennial.stores.predictions.tables import commit_rows
from perennial.stores.registry import Registry
from perennial.stores.rollout_comparison import compare
from perennial.stores.rollout_evidence import measure
from perennial.stores.rollout_pages import tell, write_page
from tests.our_names import OURS
from tests.watched import CLASSES, DAY, END, MODEL, Watched, make_watched

MINUTE = timedelta(minutes=1)
ENTERED = END - DAY
NOW = END + 5 * DAY
ERRORS = Guard(name="error_rate", kind="error_rate", limit=0.01)
SLOW = Guard(name="p99_ms", kind="latency", limit=0.01, threshold=100.0)
SHIFT = Guard(name="prediction_shift", kind="prediction", limit=0.1)
REVENUE = Guard(name="mean revenue", kind="business", limit=0.5, column="revenue")
DISTANCE = Guard(name="mean distance", kind="business", limit=1.0, column="distance")
_numbers = count(1)


def metric(name: str) -> Guard:
    return Guard(name=name, kind="metric", limit=0.02)


def rollout(
    *guards: Guard, strategy: Strategy = "canary", weight: int = 25, entered: datetime = ENTERED
) -> Rollout:
    only = Step(
        strategy=strategy,
        weight=weight,
        bake_seconds=60,
        timeout_seconds=3600,
        min_requests=10,
        guards=guards,
    )
    return Rollout(
        id=1, model=MODEL, version=2, champion=1, plan=Plan(steps=(only,)),
        state=RolloutState(phase="running", step=0, entered_at=entered),
        revision=1, actor="tests", reason="", started_at=ENTERED, updated_at=ENTERED, ended_at=None,
    )  # fmt: skip


class Log:
    """Rows of two versions, put into the tables a commit at a time."""

    def __init__(self, place: Watched) -> None:
        self.place = place

    def answers(
        self,
        arm: str,
        values: Any,
        *,
        at: datetime = ENTERED + MINUTE,
        ids: Sequence[str] | None = None,
        requests: Sequence[str] | None = None,
        customers: Sequence[str | None] | None = None,
        latency: Any = 5.0,
        distance: Any = 1.0,
        more: Mapping[str, str] | None = None,
    ) -> list[str]:
        n = len(values)
        made = [f"p{next(_numbers)}" for _ in range(n)]
        ids = list(ids or made)
        columns: dict[str, Any] = {
            "_id": pa.array(ids),
            "_request_id": pa.array(requests or made),
            "_time": pa.array([at] * n, TIMESTAMP),
            "_version": pa.repeat(pa.scalar(1 if arm == "champion" else 2, pa.int64()), n),
            "_arm": pa.repeat(pa.scalar(arm), n),
            "_latency_ms": pa.array(np.broadcast_to(latency, n).astype(float)),
            **output_columns(CLASSES[self.place.objective], np.asarray(values, np.float32)),
            "sent": pa.array([at] * n, TIMESTAMP),
            "customer": pa.array(customers or made, pa.string()),
            "distance": pa.array(np.broadcast_to(distance, n).astype(float)),
            **{name: pa.array([value] * n) for name, value in (more or {}).items()},
        }
        self.commit("predictions", pa.table(columns))
        return ids

    def failures(
        self,
        arm: str,
        requests: Sequence[str],
        at: datetime = ENTERED + MINUTE,
        ms: float = 1.0,
        ids: Sequence[str] | None = None,
    ) -> None:
        n = len(requests)
        columns = {
            "_id": pa.array(ids or [f"f{next(_numbers)}" for _ in range(n)]),
            "_request_id": pa.array(requests),
            "_time": pa.array([at] * n, TIMESTAMP),
            "_version": pa.repeat(pa.scalar(1 if arm == "champion" else 2, pa.int64()), n),
            "_arm": pa.repeat(pa.scalar(arm), n),
            "_error": pa.repeat(pa.scalar("ZeroDivisionError"), n),
            "_latency_ms": pa.repeat(pa.scalar(ms), n),
        }
        self.commit("failures", pa.table(columns))

    def labels(
        self, ids: Sequence[str], values: Sequence[Any], at: datetime = END, **metrics: Any
    ) -> None:
        kind = pa.float64() if self.place.objective == "regression" else pa.string()
        columns = {
            "_received_at": pa.array([at] * len(ids), TIMESTAMP),
            "_id": pa.array(ids),
            "label": pa.array(values, kind),
            **{f"metric_{name}": pa.array(given, pa.float64()) for name, given in metrics.items()},
        }
        self.commit("labels", pa.table(columns))

    def commit(self, kind: Any, rows: pa.Table) -> None:
        uri = str(self.place.project.folder(kind, MODEL))
        commit_rows(uri, kind, f"log-{next(_numbers)}", 1, [rows])

    def measured(self, found: Rollout, now: datetime = NOW) -> tuple[list[Measurement], int]:
        measurements, requests = measure(self.place.project, self.place.spec, found, now)
        return list(measurements), requests

    def one(self, guard: Guard, now: datetime = NOW, **options: Any) -> Measurement:
        (measurement,), _ = self.measured(rollout(guard, **options), now)
        return measurement


def interval(found: Measurement) -> tuple[float, float, float]:
    assert found.low is not None
    assert found.value is not None
    assert found.high is not None
    return found.low, found.value, found.high


def with_challenger(
    root: Path,
    objective: str = "binary",
    classes: tuple[str, ...] | None = None,
    label: str = "outcome",
) -> Log:
    """A project with two versions that differ in nothing but their lineage and what is given."""
    place = make_watched(root, objective)
    first = place.bundle
    schema = first.schema.model_copy(update={"classes": classes or first.schema.classes})
    content = BundleContent(
        spec=_labelled(first.spec, label), schema=schema, booster=first.booster, features_source="",
        state=first.state, reference=first.contents["reference.parquet"], profile={}, metrics={},
        lineage={"made": "again"},
    )  # fmt: skip
    ref = write_bundle(place.project.folder("bundles", MODEL), content)
    Registry(place.project.registry_url).register(
        MODEL, ref, params={}, metrics={}, judgement={}, links={}, actor="tests", reason="again",
        now=END - 2 * DAY,
    )  # fmt: skip
    return Log(place)


def _labelled(spec: ModelSpec, label: str) -> ModelSpec:
    return spec.model_copy(update={"label": spec.label.model_copy(update={"column": label})})


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return with_challenger(tmp_path)


def test_a_log_without_any_table_measures_nothing_and_is_no_error(log: Log) -> None:
    guards = (ERRORS, SLOW, SHIFT, metric("logloss"), REVENUE, DISTANCE)
    found, requests = log.measured(rollout(*guards))
    assert requests == 0
    assert found == [Measurement(guard=guard.name) for guard in guards]


def test_a_request_with_a_failed_row_is_one_failed_request(log: Log) -> None:
    log.answers("challenger", [0.5] * 90)
    log.answers("champion", [0.5] * 200)
    log.failures("challenger", ["r1", "r1", "r1", "r2"])
    log.failures("champion", ["r3"])
    (found,), requests = log.measured(rollout(ERRORS))
    assert requests == 94
    assert (found.n_challenger, found.n_champion) == (92, 201)
    assert found.value == pytest.approx(2 / 92)
    low, value, high = interval(found)
    assert 0 <= low < value < high <= 1


def test_a_request_is_as_slow_as_its_slowest_row(log: Log) -> None:
    log.answers("challenger", [0.5] * 4, latency=[1, 101, 1, 1], requests=["a", "a", "b", "c"])
    log.answers("champion", [0.5] * 2, latency=500.0)
    found = log.one(SLOW)
    assert (found.n_challenger, found.n_champion) == (3, 2)
    assert found.value == pytest.approx(1 / 3)


@pytest.mark.parametrize("arms", [("challenger", "champion"), ("shadow", "champion")])
def test_requests_are_told_by_what_the_server_received_not_by_what_they_are_called(
    log: Log, arms: tuple[str, str]
) -> None:
    answered = [name for i in range(40) for name in ids_of(f"a{i}", 2)]
    failed = [name for i in range(4) for name in ids_of(f"f{i}", 3)]
    slow = [*[500.0] * 2, *[1.0] * 78]
    for arm in arms:
        log.answers(arm, [0.5] * 80, ids=answered, requests=["page"] * 80, latency=slow)
        log.failures(arm, ["page"] * 12, ids=failed)
    strategy: Strategy = "shadow" if "shadow" in arms else "canary"
    (errors, late), rows = log.measured(rollout(ERRORS, SLOW, strategy=strategy))
    assert rows == 92
    for found, bad in ((errors, 4), (late, 1)):
        assert (found.n_challenger, found.n_champion) == (44, 44)
        assert found.value == pytest.approx(bad / 44)


def test_rows_of_older_servers_are_of_one_request_where_name_and_moment_are_the_same(
    log: Log,
) -> None:
    for minute in range(1, 4):
        at = ENTERED + minute * MINUTE
        log.answers("challenger", [0.5] * 20, requests=["page"] * 20, at=at)
        log.answers("challenger", [0.5] * 2, ids=ids_of(f"a{minute}", 2), requests=["page"] * 2)
    log.failures("challenger", ["page"] * 5, at=ENTERED + 4 * MINUTE)
    (found,), rows = log.measured(rollout(ERRORS))
    assert rows == 71
    assert found.n_challenger == 7
    assert found.value == pytest.approx(1 / 7)


def test_several_thresholds_are_measured_each_by_its_own(log: Log) -> None:
    log.answers("challenger", [0.5] * 10, latency=np.arange(10) * 10)
    median = Guard(name="p50_ms", kind="latency", limit=0.5, threshold=45.0)
    found, _ = log.measured(rollout(SLOW, ERRORS, median))
    assert [one.value for one in found] == [0.0, 0.0, 0.5]


def test_only_the_two_versions_in_their_arms_since_the_step_began_count(log: Log) -> None:
    log.answers("challenger", [0.5] * 3)
    log.answers("challenger", [0.5] * 5, at=ENTERED - MINUTE)
    log.answers("challenger", [0.5] * 7, at=NOW)
    log.answers("shadow", [0.5] * 11)
    log.answers("pinned", [0.5] * 13)
    log.answers("champion", [0.5] * 17)
    found, requests = log.measured(rollout(ERRORS))
    assert (requests, found[0].n_challenger, found[0].n_champion) == (3, 3, 17)
    shadow, scored = log.measured(rollout(ERRORS, strategy="shadow", weight=0))
    assert (scored, shadow[0].n_challenger) == (11, 11)


def test_at_full_weight_the_champion_is_that_of_the_day_before(log: Log) -> None:
    log.answers("challenger", [0.5] * 30)
    log.answers("champion", [0.5] * 4)
    log.answers("champion", [0.5] * 40, at=ENTERED - 23 * 60 * MINUTE)
    log.answers("champion", [0.5] * 5, at=ENTERED - 25 * 60 * MINUTE)
    found = log.one(SHIFT, weight=100)
    assert (found.n_challenger, found.n_champion, found.value) == (30, 40, 0.0)


def test_predictions_that_moved_are_as_far_apart_as_their_distributions(log: Log) -> None:
    random = np.random.default_rng(3)
    log.answers("champion", random.uniform(0, 0.8, 3000))
    log.answers("challenger", random.uniform(0.2, 1, 3000))
    found = log.one(SHIFT)
    assert found.value == pytest.approx(0.25, abs=0.04)
    low, _, high = interval(found)
    assert SHIFT.limit < low < 0.25 < high


def test_where_requests_are_shared_out_an_entity_counts_once(log: Log) -> None:
    again = [f"c{i % 10}" for i in range(500)]
    log.answers("challenger", np.tile(np.linspace(0, 0.9, 10), 50), customers=again)
    log.answers("champion", np.tile(np.linspace(0.1, 1, 10), 50), customers=again)
    found = log.one(SHIFT)
    assert (found.n_challenger, found.n_champion) == (10, 10)
    in_shadow = log.one(SHIFT, strategy="shadow", weight=0)
    assert in_shadow.n_champion == 500


def test_an_entity_keeps_the_first_prediction_it_had(log: Log) -> None:
    for minutes, value in enumerate([0.25, 0.75, 0.5]):
        at = ENTERED + minutes * MINUTE
        log.answers("challenger", [value] * 3, customers=["x", "y", None], at=at)
    log.answers("champion", [0.25] * 2)
    found = log.one(SHIFT)
    # x and y with 0.25, and each row without an entity by itself.
    assert found.n_challenger == 5
    assert found.value == pytest.approx(0.4)


def test_of_very_many_predictions_a_sample_is_compared(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout_evidence, "SAMPLED_ROWS", 500)
    random = np.random.default_rng(4)
    log.answers("challenger", random.uniform(0, 1, 4000))
    log.answers("champion", random.uniform(0, 1, 300))
    found = log.one(SHIFT)
    assert 200 < found.n_challenger <= 500
    assert found.n_champion == 300
    assert found == log.one(SHIFT)
    assert found.low == 0.0


def test_each_class_is_compared_and_the_worst_one_told(tmp_path: Path) -> None:
    log = with_challenger(tmp_path, "multiclass")
    random = np.random.default_rng(5)
    a = random.uniform(0.2, 0.4, 800)
    log.answers("champion", np.column_stack([a, 0.5 - a, np.full(800, 0.5)]))
    log.answers("challenger", np.column_stack([a, 0.1 + 0 * a, 0.9 - a]))
    found = log.one(SHIFT)
    assert found.value == 1.0
    assert interval(found)[0] > 0.5


@pytest.mark.parametrize(
    ("objective", "classes", "label", "told"),
    [
        ("binary", ("on time", "late"), "outcome",
         "outcome (binary: late, on time) and outcome (binary: on time, late), the last the "
         "positive"),
        ("multiclass", ("x", "y", "z"), "outcome",
         "outcome (multiclass: a, b, c) and outcome (multiclass: x, y, z)"),
        ("regression", None, "rain", "outcome (regression) and rain (regression)"),
    ],
)  # fmt: skip
def test_versions_that_do_not_predict_the_same_are_not_compared_by_what_they_predict(
    tmp_path: Path, objective: str, classes: tuple[str, ...] | None, label: str, told: str
) -> None:
    log = with_challenger(tmp_path, objective, classes, label)
    several = objective == "multiclass"
    for arm in ("champion", "challenger"):
        log.answers(arm, [[0.2, 0.3, 0.5]] * 30 if several else [0.5] * 30)
    loss = metric("squared_error" if objective == "regression" else "logloss")
    (shift, losses), _ = log.measured(rollout(SHIFT, loss))
    assert shift.value is None
    assert shift.error == losses.error == f"the versions don't predict the same: {told}"


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [("logloss", -np.log(0.9), -np.log(0.1)), ("brier", 0.01, 0.81)],
)
def test_losses_of_a_binary_model_are_of_labelled_rows_that_are_due(
    log: Log, name: str, right: float, wrong: float
) -> None:
    good = log.answers("champion", [0.9] * 100)
    bad = log.answers("challenger", [0.1] * 50 + [0.9] * 50)
    log.answers("challenger", [0.1] * 30)  # never labelled
    late = log.answers("challenger", [0.1] * 30, at=END + 4.5 * DAY)  # not due for a day
    broken = log.answers("challenger", [np.nan] * 10)
    log.labels([*good, *bad, *late, *broken], ["on time"] * 240)
    log.labels(good[:1], ["unheard of"], at=END + DAY)
    found = log.one(metric(name))
    assert (found.n_champion, found.n_challenger) == (99, 100)
    assert found.value == pytest.approx((right + wrong) / 2 - right, rel=1e-5)
    low, value, high = interval(found)
    assert low < value < high


def test_a_certain_mistake_costs_sixteen_and_not_infinity(log: Log) -> None:
    ids = [*log.answers("champion", [1.0] * 20), *log.answers("challenger", [0.0] * 20)]
    log.labels(ids, ["on time"] * 40)
    assert log.one(metric("logloss")).value == pytest.approx(15.94, abs=0.01)


@pytest.mark.parametrize(("name", "value"), [("absolute_error", 2.0), ("squared_error", 8.0)])
def test_losses_of_a_regression(tmp_path: Path, name: str, value: float) -> None:
    log = with_challenger(tmp_path, "regression")
    ids = [*log.answers("champion", [4.0] * 20), *log.answers("challenger", [2.0, 6.0] * 10)]
    log.labels(ids, [3.0] * 40)
    expected = {"absolute_error": 2.0 - 1.0, "squared_error": 5.0 - 1.0}[name]
    assert log.one(metric(name)).value == pytest.approx(expected)
    wrong = log.one(metric("brier"))
    assert wrong.value is None
    assert wrong.error == (
        "guard 'brier': 'brier' is no loss of a regression model "
        "(use absolute_error or squared_error)"
    )
    assert value > expected  # the losses themselves are larger than their difference


def test_the_loss_of_several_classes_is_of_the_label_s_own(tmp_path: Path) -> None:
    log = with_challenger(tmp_path, "multiclass")
    ids = log.answers("champion", [[0.2, 0.3, 0.5]] * 20)
    ids += log.answers("challenger", [[0.5, 0.25, 0.25]] * 20)
    log.labels(ids, ["c"] * 40)
    assert log.one(metric("logloss")).value == pytest.approx(np.log(2), rel=1e-6)


def test_rows_of_one_entity_are_no_more_certain_than_one(log: Log) -> None:
    random = np.random.default_rng(6)
    values, customers = random.uniform(0.05, 0.95, 40), [f"c{i}" for i in range(40)]
    ids = [
        id
        for arm in ("champion", "challenger")
        for id in log.answers(arm, np.repeat(values, 25), customers=list(np.repeat(customers, 25)))
    ]
    log.labels(ids, ["on time"] * 2000)
    clustered = log.one(metric("brier"))
    log.place.edit(", entity: [customer]", "")
    by_rows = log.one(metric("brier"))
    assert (clustered.n_challenger, by_rows.n_challenger) == (1000, 1000)
    assert (clustered.value, by_rows.value) == pytest.approx((0, 0), abs=1e-12)
    assert interval(clustered)[2] > 3 * interval(by_rows)[2]


def test_arms_that_are_not_what_the_split_says_decide_no_ab_test(log: Log) -> None:
    test: dict[str, Any] = {"strategy": "ab_test", "weight": 50}
    at = ENTERED + MINUTE
    log.answers("champion", [0.5] * 300, at=at - timedelta(seconds=1))  # nobody else answers yet
    log.answers("challenger", [0.5], at=at)
    log.answers("champion", [0.5] * 300, at=at + timedelta(seconds=9))  # a server follows last
    later = at + MINUTE
    ids = [*log.answers("champion", [0.2] * 520, at=later)]
    ids += log.answers("challenger", [0.1] * 480, at=later)
    log.labels(ids, ["on time"] * 1000, revenue=[5.0] * 1000)
    found, _ = log.measured(rollout(ERRORS, metric("brier"), REVENUE, DISTANCE, **test))
    assert [one.error for one in found] == [""] * 4
    log.answers("champion", [0.2] * 130, at=later)
    errors, *others = log.measured(rollout(ERRORS, metric("brier"), REVENUE, DISTANCE, **test))[0]
    assert errors.error == ""
    for one in others:
        assert "version 2 was given 480 of 1,130 entities, 42.5 % where 50 %" in one.error
        assert one.value is None
    assert log.one(metric("brier")).error == ""  # of a canary each arm is one of its own


def test_of_an_ab_test_units_are_counted_and_failed_rows_are_where_they_are_known(
    log: Log,
) -> None:
    test: dict[str, Any] = {"strategy": "ab_test", "weight": 50}
    log.answers("challenger", [0.5])
    later = ENTERED + 2 * MINUTE
    log.answers("champion", [0.5] * 600, customers=[f"c{i % 5}" for i in range(600)], at=later)
    log.answers("challenger", [0.5] * 60, at=later)
    assert "60 of 65 entities" in log.one(DISTANCE, **test).error
    log.place.edit(", entity: [customer]", "")
    assert "60 of 660 rows" in log.one(DISTANCE, **test).error
    log.failures("challenger", [f"r{i}" for i in range(540)], at=later)
    assert log.one(DISTANCE, **test).error == ""
    log.place.edit("event_time: sent", "event_time: sent, entity: [shop]")  # not in the log
    log.place.edit("columns:\n", "columns:\n  shop: {type: category}\n")
    log.answers("champion", [0.5] * 600, at=later)
    assert log.one(DISTANCE, **test).error == ""


def test_a_business_number_that_came_with_labels_is_worse_when_it_is_less(log: Log) -> None:
    champion = log.answers("champion", [0.5] * 60)
    challenger = log.answers("challenger", [0.5] * 40)
    log.labels(champion, ["late"] * 60, revenue=[10.0, 12.0] * 30)
    assert log.one(REVENUE) == Measurement(guard="mean revenue", n_champion=60)
    log.labels(challenger, ["late"] * 40, revenue=[8.0, None, 6.0, 7.0] * 10)
    found = log.one(REVENUE)
    assert (found.n_champion, found.n_challenger) == (60, 30)
    assert found.value == pytest.approx(4.0)
    log.labels(challenger, ["late"] * 40, at=END + DAY, revenue=[11.0, None, None, None] * 10)
    corrected = log.one(REVENUE)
    assert corrected.n_challenger == 10
    assert corrected.value == pytest.approx(0.0)


def test_a_number_that_no_label_has_brought_yet_is_not_measured(log: Log) -> None:
    ids = [*log.answers("champion", [0.5] * 5), *log.answers("challenger", [0.5] * 5)]
    log.labels(ids, ["late"] * 10)
    assert log.one(REVENUE) == Measurement(guard="mean revenue")


def test_a_business_column_of_the_log_needs_no_label(log: Log) -> None:
    log.answers("champion", [0.5] * 40, distance=[1, 3] * 20)
    log.answers("challenger", [0.5] * 40, distance=[0, np.nan, 1, np.nan] * 10)
    found = log.one(DISTANCE)
    assert (found.n_champion, found.n_challenger) == (40, 20)
    assert found.value == pytest.approx(1.5)


def test_a_column_that_no_version_reads_comes_with_the_labels(log: Log) -> None:
    """It is in model.yaml, so in the training's rows, and not among what is asked for."""
    champion = log.answers("champion", [0.5] * 40)
    challenger = log.answers("challenger", [0.5] * 40)
    guard = Guard(name="mean rain", kind="business", limit=1.0, column="rain")
    assert log.one(guard) == Measurement(guard="mean rain")
    log.labels([*champion, *challenger], ["late"] * 80, rain=[3.0] * 40 + [1.0] * 40)
    assert log.one(guard).value == pytest.approx(2.0)


def test_a_column_of_which_the_log_has_no_number_is_an_error(log: Log) -> None:
    log.answers("champion", [0.5] * 40, more={"items": "2f0c"})
    guard = Guard(name="mean items", kind="business", limit=1.0, column="items")
    assert log.one(guard).error == (
        "column 'items': is no number in the log "
        "(name a column of numbers, of which the log keeps more than a hash)"
    )


def test_a_regression_s_label_is_a_business_number_itself(tmp_path: Path) -> None:
    log = with_challenger(tmp_path, "regression")
    champion = log.answers("champion", [1.0] * 40)
    challenger = log.answers("challenger", [1.0] * 40)
    log.labels(champion, [5.0, 7.0] * 20)
    log.labels(challenger, [4.0, 5.0] * 20)
    found = log.one(Guard(name="mean outcome", kind="business", limit=1.0, column="outcome"))
    assert (found.n_champion, found.n_challenger) == (40, 40)
    assert found.value == pytest.approx(1.5)


def test_a_damaged_table_is_an_error_of_what_needs_it_and_of_nothing_else(log: Log) -> None:
    ids = [*log.answers("champion", [0.5] * 9), *log.answers("challenger", [0.5] * 9)]
    log.labels(ids, ["late"] * 18)
    labels = log.place.project.folder("labels", MODEL)
    (part,) = labels.rglob("*.parquet")
    part.write_bytes(b"PAR1 and nothing else")
    (errors, loss), requests = log.measured(rollout(ERRORS, metric("brier")))
    assert (requests, errors.error, errors.value) == (9, "", 0.0)
    assert loss.value is None
    assert "the log can't be joined with its labels" in loss.error
    shutil.rmtree(log.place.project.folder("predictions", MODEL))
    log.answers("champion", [0.5] * 9)
    for part in log.place.project.folder("predictions", MODEL).rglob("*.parquet"):
        part.unlink()
    (errors, shift), requests = log.measured(rollout(ERRORS, SHIFT))
    assert requests == 0
    assert "the log can't be read" in errors.error
    assert "the log can't be read" in shift.error


def test_a_registry_that_doesn_t_know_the_version_is_an_error(tmp_path: Path) -> None:
    place = make_watched(tmp_path)
    log = Log(place)
    log.answers("champion", [0.5] * 9)
    log.answers("challenger", [0.5] * 9)
    found = log.one(metric("brier"))
    assert found.value is None
    assert "parcels@2" in found.error or "version 2" in found.error


@pytest.mark.parametrize("objective", ["binary", "multiclass", "regression"])
def test_a_shadow_s_predictions_are_set_beside_those_of_the_same_rows(
    tmp_path: Path, objective: str
) -> None:
    log = with_challenger(tmp_path, objective)
    ids = [f"row-{i}" for i in range(100)]
    low, high = ([0.7, 0.2, 0.1], [0.1, 0.2, 0.7]) if objective == "multiclass" else (0.2, 0.9)
    log.answers("champion", [low] * 100, ids=ids, latency=8.0, distance=np.arange(100.0))
    log.answers("shadow", [low] * 75 + [high] * 25, ids=ids, latency=2.0)
    log.failures("shadow", ["r1"])
    shadow = rollout(ERRORS, strategy="shadow", weight=0)
    found = compare(log.place.project, log.place.spec, shadow, NOW)
    champion, challenger = found.champion, found.challenger
    assert (champion.rows, champion.failed, champion.latency_p99_ms) == (100, 0, 8.0)
    assert (challenger.rows, challenger.failed, challenger.latency_p50_ms) == (101, 1, 2.0)
    both = found.same_rows
    assert both is not None
    assert both.rows == 100
    assert both.agree == (None if objective == "regression" else 0.75)
    apart = 0.6 if objective == "multiclass" else 0.7
    assert both.mean == pytest.approx(apart / 4)
    assert (both.bins[0].rows, both.bins[-1].rows) == (75, 25)
    assert sum(one.rows for one in both.bins) == 100
    assert len(both.apart) == 10
    assert [one.difference for one in both.apart] == pytest.approx([apart] * 10)
    assert both.apart[0].id == "row-75"
    assert both.apart[0].inputs["distance"] == "75.0"
    if objective == "multiclass":
        assert (both.apart[0].champion, both.apart[0].challenger) == ("a", "c")


def test_columns_called_as_our_own_change_no_measurement(tmp_path: Path) -> None:
    more = {name: f"{name} of the user" for name in (*OURS, "x")}
    canary = rollout(ERRORS, SLOW, SHIFT, metric("brier"), REVENUE, DISTANCE)
    shadow = rollout(ERRORS, strategy="shadow", weight=0)
    found = []
    for given in ({}, more):
        log = with_challenger(tmp_path / f"{len(given)}")
        ids = [f"row-{i}" for i in range(60)]
        log.answers("champion", [0.4] * 60, ids=ids, customers=ids, requests=ids, more=given)
        log.answers("challenger", [0.7] * 30, ids=ids[:30], requests=ids[:30], more=given)
        log.answers("shadow", [0.7] * 30, ids=ids[:30], requests=ids[:30], more=given)
        log.labels(ids, ["on time"] * 60, revenue=[2.0] * 60)
        both = compare(log.place.project, log.place.spec, shadow, NOW)
        found.append((log.measured(canary), both.model_dump(exclude={"same_rows": {"apart"}})))
        assert both.same_rows is not None
        told = both.same_rows.apart[0]
        assert (told.id, told.champion, told.challenger) == ("row-0", "0.4", "0.7")
        assert told.inputs["customer"] == "row-0"
    assert all(not one.error and one.value is not None for one in found[0][0][0])
    assert found[0] == found[1]


def test_where_requests_are_shared_out_no_row_is_predicted_twice(log: Log) -> None:
    nothing = compare(log.place.project, log.place.spec, rollout(ERRORS), NOW)
    assert (nothing.champion.rows, nothing.challenger.rows, nothing.same_rows) == (0, 0, None)
    log.answers("champion", [0.25] * 4)
    log.answers("challenger", [0.5] * 2)
    found = compare(log.place.project, log.place.spec, rollout(ERRORS), NOW)
    assert found.same_rows is None
    assert (found.champion.mean, found.challenger.mean) == (0.25, 0.5)
    shadow = rollout(ERRORS, strategy="shadow", weight=0)
    without = compare(log.place.project, log.place.spec, shadow, NOW).same_rows
    assert without is not None
    assert without.rows == 0


def test_a_look_finds_the_same_however_rows_lie_in_files(tmp_path: Path) -> None:
    random = np.random.default_rng(8)
    values = random.uniform(0, 1, (2, 60))
    guards = (ERRORS, SLOW, SHIFT, metric("brier"))
    found = []
    for name, pieces in (("one", 1), ("many", 6)):
        log = with_challenger(tmp_path / name)
        for arm, own in zip(("champion", "challenger"), values, strict=True):
            for part in np.array_split(np.arange(60), pieces):
                ids = [f"{arm}-{i}" for i in part]
                log.answers(arm, own[part], ids=ids, customers=ids, requests=ids)
                log.labels(ids, ["late"] * len(ids))
        found.append(log.measured(rollout(*guards)))
    (first, rows), (second, others) = found
    assert rows == others == 60
    for one, other in zip(first, second, strict=True):
        assert pd.Series(one.model_dump()).equals(pd.Series(other.model_dump())) or (
            one.value == pytest.approx(other.value)
        )


def test_the_page_of_a_rollout_tells_each_step_from_the_audit_and_the_log(log: Log) -> None:
    guards = (ERRORS, SHIFT)
    shadowed = rollout(*guards, strategy="shadow", weight=0).plan.steps
    steps = (*shadowed, *rollout(*guards).plan.steps)
    registry, project = Registry(log.place.project.registry_url), log.place.project
    begun = registry.rollouts.begin(
        MODEL, 2, Plan(steps=steps), actor="tests", reason="registered", cause="v2", now=ENTERED
    )
    ids = [f"row-{i}" for i in range(60)]
    log.answers("champion", [0.25] * 60, ids=ids)
    log.answers("shadow", [0.25] * 59 + [0.75], ids=ids)
    log.answers("champion", [0.25] * 60, at=ENTERED + 30 * MINUTE)
    log.failures("challenger", [f"r{i}" for i in range(40)], at=ENTERED + 30 * MINUTE)
    for minutes in (10, 20, 40):
        now = ENTERED + minutes * MINUTE
        measurements, requests = measure(project, log.place.spec, begun, now)
        own = begun.plan.steps[begun.state.step]
        found = step(begun, judge(begun.state.step, own, measurements, requests, now), now)
        if found is not None:
            begun = registry.rollouts.advance(begun, found, actor="tests", evidence={}, now=now)
    assert begun.state.phase == "rolled back"

    story = tell(project, log.place.spec, registry, begun, NOW)
    actions = ["rollout began", "step began", "rolled back", "quarantined"]
    assert [one.action for one in story.history] == actions
    assert [one.step for one in story.compared] == [0, 1]
    shadow, canary = story.compared
    assert shadow.same_rows is not None
    assert (shadow.same_rows.rows, len(shadow.same_rows.apart)) == (60, 1)
    assert (canary.challenger.failed, canary.champion.rows) == (40, 60)
    assert [one.outcome for one in story.looks if one.step == 1][-1] == "failed"
    assert len({one.at for one in story.looks}) == len(story.looks)
    path = Path(write_page(project, begun, story))
    text = path.read_text()
    assert path.name == f"rollout-{begun.id}.html"
    for word in ("Rolled back", "row-59", "quarantined", "Side by side: canary 25 %"):
        assert word in text, word
    assert [one.name for one in path.parent.glob(".rollout*")] == []
