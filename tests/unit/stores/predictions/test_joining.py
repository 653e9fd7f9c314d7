"""Labels joined to the predictions they are of: by id, by entity and event time, late and wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from perennial.contracts.errors import InputError, IntegrityError
from perennial.contracts.features import InputColumn
from perennial.contracts.performance import JoinCounts, LabelCounts
from perennial.spec.schema import ModelSpec
from perennial.stores import lake
from perennial.stores.predictions.answers import Columns
from perennial.stores.predictions.joining import join_labels
from perennial.stores.predictions.tables import commit_rows
from tests.logged import NOON, label_rows, prediction_rows
from tests.our_names import OURS

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
UTC_TIME = pa.timestamp("us", "UTC")
_numbers = count(1)


def spec(objective: str = "binary", **source: Any) -> ModelSpec:
    about = {"event_time": "at", "entity": ["customer"], **source}
    return ModelSpec.model_validate(
        {
            "name": "m",
            "objective": objective,
            "source": {"kind": "csv", "uri": "x.csv", **about},
            "label": {"column": "y", "delay": "2d"},
            "columns": {name: {"type": "string"} for name in ("customer", *about["entity"])},
        }
    )


class Log:
    """A model's log and labels, filled a commit at a time."""

    def __init__(self, folder: Path) -> None:
        self.predictions, self.labels = str(folder / "predictions"), str(folder / "labels")

    def predict(
        self,
        ids: Sequence[str],
        customers: Sequence[Any] = (),
        at: datetime | None = NOON,
        version: int = 1,
        time: datetime = NOON,
        **inputs: Any,
    ) -> None:
        known = {
            "customer": pa.array(customers or ids),
            "at": pa.array([at] * len(ids), UTC_TIME),
            "x": pa.array([0.5] * len(ids)),
            **inputs,
        }
        batch = prediction_rows(ids, known, version, time)
        self._commit(self.predictions, "predictions", batch)

    def label(
        self, ids: Sequence[str | None], label: Any, time: datetime = NOON + 3 * DAY, **keys: Any
    ) -> None:
        batch = label_rows(ids, label, time)
        batch = batch.set_column(1, "_id", pa.array(ids, pa.string()))
        for name, values in keys.items():
            batch = batch.append_column(name, pa.array(values))
        self._commit(self.labels, "labels", batch)

    def label_of(self, customer: Any, at: datetime, label: Any, time: datetime) -> None:
        keys = {"customer": pa.array([customer], pa.string()), "at": pa.array([at], UTC_TIME)}
        self.label([None], label, time, **keys)

    def joined(
        self,
        model: ModelSpec | None = None,
        start: datetime = NOON,
        end: datetime = NOON + DAY,
        as_of: datetime = NOON + 9 * DAY,
    ) -> tuple[dict[tuple[str, int], Any], JoinCounts]:
        """The label of each id and version, and the counts."""
        args = (model or spec(), self.predictions, self.labels, start, end, as_of)
        with join_labels(*args) as found:
            rows = [row for batch in found.batches() for row in batch.to_pylist()]
            return {(row["_id"], row["_version"]): row["_label"] for row in rows}, found.counts

    @staticmethod
    def _commit(uri: str, kind: Any, batch: pa.RecordBatch) -> None:
        commit_rows(uri, kind, f"w{next(_numbers)}", 1, [pa.Table.from_batches([batch])])


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def counted(**given: int) -> LabelCounts:
    return LabelCounts(**(dict.fromkeys(LabelCounts.model_fields, 0) | given))


def test_a_label_by_id_is_of_every_version_that_answered_shadows_included(log: Log) -> None:
    log.predict(["a", "b"])
    log.predict(["a"], version=2)
    log.label(["a"], "yes")
    found, counts = log.joined()
    assert found == {("a", 1): "yes", ("a", 2): "yes", ("b", 1): None}
    assert (counts.labels, counts.unknown) == (1, 0)
    assert counts.versions == {
        1: counted(predictions=2, due=2, labelled=1, labelled_due=1, overdue=1),
        2: counted(predictions=1, due=1, labelled=1, labelled_due=1),
    }
    assert [c.coverage for c in counts.versions.values()] == [0.5, 1.0]


def test_a_label_by_entity_and_event_time_is_of_that_event_however_often_predicted(
    log: Log,
) -> None:
    log.predict(["a", "b", "c"], ["ann", "ann", "bob"])
    log.predict(["d"], ["ann"], at=NOON + HOUR)
    log.label_of("ann", NOON, "yes", NOON + 3 * DAY)
    found, counts = log.joined()
    assert found == {("a", 1): "yes", ("b", 1): "yes", ("c", 1): None, ("d", 1): None}
    assert counts.unknown == 0


@pytest.mark.parametrize("entity", ["_label_due", "_label_event", "k0", "id", "value", "given"])
def test_an_entity_called_as_our_own_columns_finds_its_labels(log: Log, entity: str) -> None:
    model = spec(entity=[entity])
    more = {name: pa.array([f"{name} of the user"] * 2) for name in OURS if name != entity}
    log.predict(["a", "b"], **{**more, entity: pa.array(["ann", "bob"])})
    at = pa.array([NOON], UTC_TIME)
    log.label([None], "yes", **{entity: ["ann"], "at": at})
    log.label(["b"], "no", **{entity: pa.nulls(1, pa.string()), "at": pa.nulls(1, UTC_TIME)})
    found, counts = log.joined(model)
    assert found == {("a", 1): "yes", ("b", 1): "no"}
    assert (counts.labels, counts.unknown) == (2, 0)
    schema = lake.schema_of(lake.open_table(log.predictions))
    places = Columns(schema, [InputColumn(name=entity, type="string", nullable=True)])
    with join_labels(model, log.predictions, log.labels, NOON, NOON + DAY, NOON + 9 * DAY) as rows:
        (batch,) = rows.batches(["_id", *places.names])
    assert places.of(batch)[entity].to_pylist() == ["ann", "bob"]


def test_the_label_received_last_counts_and_disagreement_is_counted(log: Log) -> None:
    log.predict(["a", "b"])
    for hours, label in enumerate(["no", "yes", "no"]):
        log.label(["a"], label, NOON + 3 * DAY + hours * HOUR)
    log.label(["b", "b"], "yes")
    found, counts = log.joined()
    assert found == {("a", 1): "no", ("b", 1): "yes"}
    one = counts.versions[1]
    assert (one.repeated, one.contradicted, counts.labels) == (2, 1, 5)


def test_of_labels_received_at_once_the_greatest_counts_wherever_it_lies(log: Log) -> None:
    log.predict(["a", "b"])
    log.label(["a"], "yes")
    log.label(["a", "b"], "no")
    log.label(["b"], "yes")
    found, counts = log.joined()
    assert found == {("a", 1): "yes", ("b", 1): "yes"}
    assert counts.versions[1].contradicted == 2


@pytest.mark.parametrize(("by_key_at", "label"), [(HOUR, "no"), (-HOUR, "yes")])
def test_labels_by_id_and_by_entity_are_of_one_prediction(
    log: Log, by_key_at: timedelta, label: str
) -> None:
    log.predict(["a"], ["ann"])
    log.label(["a"], "yes", NOON + 3 * DAY)
    log.label_of("ann", NOON, "no", NOON + 3 * DAY + by_key_at)
    found, counts = log.joined()
    assert found == {("a", 1): label}
    assert (counts.versions[1].repeated, counts.versions[1].contradicted) == (1, 1)


def test_a_label_of_no_prediction_is_counted_and_not_used(log: Log) -> None:
    log.predict(["a"], ["ann"])
    log.predict(["before"], ["bob"], at=NOON - DAY, time=NOON - HOUR)
    log.label(["a", "ghost"], "yes")
    log.label_of("ann", NOON + HOUR, "yes", NOON + 3 * DAY)
    log.label_of("nobody", NOON, "yes", NOON + 3 * DAY)
    log.label(["before"], "yes")
    log.label_of("bob", NOON - DAY, "yes", NOON + 3 * DAY)
    found, counts = log.joined()
    assert found == {("a", 1): "yes"}
    assert (counts.labels, counts.unknown) == (6, 3)


def test_labels_that_came_before_the_window_are_used_and_not_counted_as_its_own(log: Log) -> None:
    log.predict(["a"], ["ann"])
    log.label_of("ann", NOON, "yes", NOON - HOUR)
    log.label(["ghost"], "yes", NOON - HOUR)
    found, counts = log.joined()
    assert found == {("a", 1): "yes"}
    assert (counts.labels, counts.unknown, counts.versions[1].early) == (0, 0, 1)


def test_a_prediction_is_due_once_its_event_is_as_old_as_labels_take(log: Log) -> None:
    log.predict(["past", "late"], at=NOON)
    log.predict(["ahead"], at=NOON + DAY)
    log.predict(["timeless"], at=None)
    log.label(["past", "ahead"], "yes", NOON + 2 * DAY - HOUR)
    known_at = NOON + 2 * DAY
    _, counts = log.joined(as_of=known_at)
    assert counts.versions[1] == counted(
        predictions=4, due=3, labelled=2, labelled_due=1, overdue=2
    )
    _, counts = log.joined(as_of=known_at - timedelta(microseconds=1))
    assert counts.versions[1] == counted(predictions=4, labelled=2, pending=2)


def test_what_is_due_is_told_row_by_row(log: Log) -> None:
    log.predict(["a"], at=NOON)
    log.predict(["b"], at=NOON + DAY)
    args = (spec(), log.predictions, log.labels, NOON, NOON + DAY, NOON + 2 * DAY)
    with join_labels(*args) as found:
        (batch,) = found.batches(["_id"])
    assert batch.schema.names == ["_id", "_label", "_label_received_at", "_label_due"]
    assert batch.to_pydict()["_label_due"] == [True, False]


def test_labels_are_known_from_when_they_were_received(log: Log) -> None:
    log.predict(["a"])
    log.label(["a"], "no", NOON + 3 * DAY)
    log.label(["a"], "yes", NOON + 5 * DAY)
    labels = [
        log.joined(as_of=NOON + days * DAY + moment)[0]["a", 1]
        for days in (3, 5)
        for moment in (timedelta(0), timedelta(microseconds=1))
    ]
    assert labels == [None, "no", "no", "yes"]


def test_a_label_that_came_before_its_event_is_used_and_counted(log: Log) -> None:
    log.predict(["a", "b"], at=NOON + 5 * DAY)
    log.label(["a"], "yes", NOON + 5 * DAY - timedelta(microseconds=1))
    log.label(["b"], "yes", NOON + 5 * DAY)
    found, counts = log.joined()
    assert found == {("a", 1): "yes", ("b", 1): "yes"}
    assert counts.versions[1].early == 1


def test_a_window_has_its_start_and_not_its_end(log: Log) -> None:
    for hours in range(4):
        log.predict([f"{hours}"], time=NOON + hours * HOUR)
    found, counts = log.joined(start=NOON + HOUR, end=NOON + 3 * HOUR)
    assert sorted(found) == [("1", 1), ("2", 1)]
    assert counts.versions[1].predictions == 2


def test_one_version_may_be_asked_for(log: Log) -> None:
    log.predict(["a", "b"])
    log.predict(["a"], version=2)
    args = (spec(), log.predictions, log.labels, NOON, NOON + DAY, NOON + 9 * DAY)
    with join_labels(*args) as found:
        assert [batch.num_rows for batch in found.batches(["_id"], version=2)] == [1]


def test_nothing_logged_is_nothing_joined(log: Log) -> None:
    assert log.joined() == ({}, log.joined()[1])
    assert log.joined()[1].versions == {}
    log.label(["a"], "yes")
    found, counts = log.joined()
    assert (found, counts.labels, counts.unknown) == ({}, 1, 1)


def test_predictions_without_any_label_are_overdue(log: Log) -> None:
    log.predict(["a"])
    found, counts = log.joined()
    assert found == {("a", 1): None}
    assert counts.versions == {1: counted(predictions=1, due=1, overdue=1)}
    assert log.joined(start=NOON + HOUR)[1].versions == {}


def test_a_column_that_the_log_lacks_is_told(log: Log) -> None:
    log.predict(["a"])
    args = (spec(), log.predictions, log.labels, NOON, NOON + DAY, NOON + 9 * DAY)
    with join_labels(*args) as found, pytest.raises(InputError) as error:
        list(found.batches(["_id", "custommer"]))
    assert str(error.value) == "column 'custommer': not in the log; did you mean 'customer'?"


def test_an_entity_whose_type_changed_keeps_its_labels(log: Log) -> None:
    log.predict(["a"], [7])
    log.predict(["b"], ["7"], version=2)
    log.label_of("7", NOON, "yes", NOON + 3 * DAY)
    found, _ = log.joined()
    assert found == {("a", 1): "yes", ("b", 2): "yes"}


@pytest.mark.parametrize(
    ("given", "labelled"),
    [
        ([7.0], [7]),
        ([7], [7.0]),
        ([0.0], [-0.0]),
        ([1e10], [10**10]),
        ([0.5], [0.5]),
        ([1e17], [1e17]),
    ],
)
def test_a_number_finds_its_labels_as_an_integer_and_as_a_float(
    log: Log, given: list[Any], labelled: list[Any]
) -> None:
    log.predict(["a"], given)
    at = pa.array([NOON], UTC_TIME)
    log.label([None], "yes", customer=pa.array(labelled), at=at)
    found, counts = log.joined()
    assert (found, counts.unknown) == ({("a", 1): "yes"}, 0)


@pytest.mark.parametrize(("given", "labelled"), [([7.5], [7]), ([2.0**53], [2**53 + 1])])
def test_other_numbers_find_no_labels(log: Log, given: list[Any], labelled: list[Any]) -> None:
    log.predict(["a"], given)
    log.label([None], "yes", customer=pa.array(labelled), at=pa.array([NOON], UTC_TIME))
    found, counts = log.joined()
    assert (found, counts.unknown) == ({("a", 1): None}, 1)


def test_rows_without_an_entity_are_no_label_of_each_other(log: Log) -> None:
    log.predict(["a"], pa.array([None], pa.string()))
    log.label_of(None, NOON, "yes", NOON + 3 * DAY)
    log.label_of("ann", NOON, "yes", NOON + 3 * DAY)
    found, counts = log.joined()
    assert found == {("a", 1): None}
    assert counts.unknown == 2


def test_an_event_time_alone_tells_no_rows_apart(log: Log) -> None:
    log.predict(["a", "b"])
    log.label([None], "yes", at=pa.array([NOON], UTC_TIME))
    log.label(["b"], "no")
    found, counts = log.joined(spec(entity=[]))
    assert found == {("a", 1): None, ("b", 1): "no"}
    assert counts.unknown == 1


def test_an_entity_that_is_not_logged_leaves_labels_by_id(log: Log) -> None:
    log.predict(["a"], ["ann"])
    log.label(["a"], "no")
    log.label_of("ann", NOON, "yes", NOON + 3 * DAY)
    found, counts = log.joined(spec(entity=["customer", "shop"]))
    assert found == {("a", 1): "no"}
    assert counts.unknown == 1


def test_columns_may_be_called_as_the_join_calls_its_own(log: Log) -> None:
    names = ["id", "k0", "value", "received", "copies", "contradicts", "place", "label"]
    odd = {name: pa.array([f"{name} of a"]) for name in names} | {"b": pa.array([1.0])}
    log.predict(["a"], **odd)
    moment = pa.array([NOON], UTC_TIME)
    log.label([None], "yes", id=["id of a"], value=["value of a"], at=moment)
    found, counts = log.joined(spec(entity=["id", "value"]))
    assert found == {("a", 1): "yes"}
    assert counts.unknown == 0


def test_an_event_time_may_be_called_received(log: Log) -> None:
    log.predict(["a"], received=pa.array([NOON + DAY], UTC_TIME))
    moment = pa.array([NOON + DAY], UTC_TIME)
    log.label([None], "yes", customer=["a"], received=moment)
    found, counts = log.joined(spec(event_time="received"), as_of=NOON + 3 * DAY + HOUR)
    assert found == {("a", 1): "yes"}
    assert counts.versions[1].due == 1


def test_the_labels_of_a_regression_are_numbers(log: Log) -> None:
    log.predict(["a", "b"])
    log.label(["a"], 2.5)
    log.label(["b"], "many")
    found, counts = log.joined(spec("regression"))
    assert found == {("a", 1): 2.5, ("b", 1): None}
    assert log.joined(spec("multiclass"))[0] == {("a", 1): None, ("b", 1): "many"}
    assert counts.labels == 1


def test_a_log_that_lost_a_file_is_damaged(log: Log) -> None:
    log.predict(["a"])
    for file in Path(log.predictions).rglob("*.parquet"):
        file.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(IntegrityError, match="the log can't be joined with its labels"):
        log.joined()


def test_the_rows_matter_and_not_how_their_files_lie(log: Log, tmp_path: Path) -> None:
    ids = [f"{i:02}" for i in range(20)]
    other = Log(tmp_path / "other")
    log.predict(ids)
    log.label(ids[:9], "yes")
    for id in reversed(ids):
        other.predict([id])
    for id in ids[8::-1]:
        other.label([id], "yes")

    def rows(of: Log) -> Mapping[str, Any]:
        args = (spec(), of.predictions, of.labels, NOON, NOON + DAY, NOON + 9 * DAY)
        with join_labels(*args) as found:
            return pa.Table.from_batches(found.batches()).to_pydict()

    assert rows(log) == rows(other)
