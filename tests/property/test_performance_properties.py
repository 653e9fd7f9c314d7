"""Joining and comparing, whatever comes."""

from __future__ import annotations

import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.contracts.performance import LabelCounts
from perennial.contracts.verdicts import Estimate
from perennial.decisions.performance import against_promise
from perennial.spec.schema import ModelSpec
from perennial.stores.predictions.joining import join_labels
from perennial.stores.predictions.tables import commit_rows
from tests.logged import NOON

HOUR = timedelta(hours=1)
TIME = pa.timestamp("us", "UTC")
DELAY = 6 * HOUR

moments = st.integers(-3, 12).map(lambda hours: NOON + hours * HOUR)
entities = st.sampled_from(["ann", "bob", None])
predictions = st.tuples(
    st.sampled_from("abcd"), st.integers(1, 2), moments, entities, st.none() | moments
)
labels = st.tuples(
    st.none() | st.sampled_from("abcx"),
    entities,
    st.none() | moments,
    moments,
    st.sampled_from(["yes", "no"]),
)


def model() -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "name": "m",
            "objective": "binary",
            "source": {"kind": "csv", "uri": "x", "event_time": "at", "entity": ["who"]},
            "label": {"column": "y", "delay": "6h"},
            "columns": {"who": {"type": "string"}},
        }
    )


def commit(uri: str, kind: Any, columns: dict[str, tuple[Any, list[Any]]]) -> None:
    table = pa.table({name: pa.array(v, type) for name, (type, v) in columns.items()})
    commit_rows(uri, kind, "w", 1, [table])


def expected(
    made: list[Any], given_labels: list[Any], window: tuple[datetime, datetime], as_of: datetime
) -> tuple[list[Any], dict[int, LabelCounts], int, int]:
    """The same join, row by row."""
    known = [label for label in given_labels if label[3] < as_of]

    def fits(label: Any, row: Any) -> bool:
        identity, who, at, _, _ = label
        if identity is not None:
            return bool(identity == row[0])
        return who is not None and at is not None and (who, at) == (row[3], row[4])

    rows = []
    counts: dict[int, dict[str, int]] = {}
    for row in (row for row in made if window[0] <= row[2] < window[1]):
        own = [label for label in known if fits(label, row)]
        last = max(own, key=lambda label: (label[3], label[4]), default=None)
        event = row[4] or row[2]
        due = event + DELAY <= as_of
        rows.append((row[2], row[0], row[1], last and last[4], last and last[3], due))
        n = counts.setdefault(row[1], dict.fromkeys(LabelCounts.model_fields, 0))
        n["predictions"] += 1
        n["due"] += due
        n["labelled"] += last is not None
        n["labelled_due"] += last is not None and due
        n["overdue"] += last is None and due
        n["pending"] += last is None and not due
        n["early"] += last is not None and last[3] < event
        n["repeated"] += len(own) > 1
        n["contradicted"] += len({label[4] for label in own}) > 1
    arrived = [label for label in known if label[3] >= window[0]]
    unknown = sum(not any(fits(label, row) for row in made) for label in arrived)
    versions = {version: LabelCounts(**n) for version, n in counts.items()}
    return sorted(rows), versions, len(arrived), unknown


@settings(deadline=None, max_examples=25)
@given(
    made=st.lists(predictions, min_size=1, max_size=8, unique_by=lambda row: row[:2]),
    sent=st.lists(labels, min_size=1, max_size=10),
    ends=st.tuples(moments, moments),
    as_of=moments,
)
def test_a_join_is_what_going_through_row_by_row_gives(
    made: list[Any], sent: list[Any], ends: tuple[datetime, datetime], as_of: datetime
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = str(Path(folder) / "predictions"), str(Path(folder) / "labels")
        ids, versions, times, who, at = (list(column) for column in zip(*made, strict=True))
        commit(
            ours,
            "predictions",
            {
                "_id": (pa.string(), ids), "_version": (pa.int64(), versions),
                "_time": (TIME, times), "who": (pa.string(), who), "at": (TIME, at),
            },
        )  # fmt: skip
        ids, who, at, times, values = (list(column) for column in zip(*sent, strict=True))
        commit(
            theirs,
            "labels",
            {
                "_received_at": (TIME, times), "_id": (pa.string(), ids),
                "who": (pa.string(), who), "at": (TIME, at), "label": (pa.string(), values),
            },
        )  # fmt: skip
        with join_labels(model(), ours, theirs, *ends, as_of) as joined:
            columns = ["_time", "_id", "_version"]
            rows = [tuple(row.values()) for b in joined.batches(columns) for row in b.to_pylist()]
        found = (rows, joined.counts.versions, joined.counts.labels, joined.counts.unknown)
        assert found == expected(made, sent, ends, as_of)


values = st.floats(0, 1)
halves = st.floats(0, 0.3)


def estimate(metric: str, value: float, below: float, above: float, n: int) -> list[Estimate]:
    return [Estimate(metric=metric, value=value, low=value - below, high=value + above, n=n)]


@settings(max_examples=200)
@given(new=values, old=values, spread=st.tuples(halves, halves, halves, halves))
def test_no_change_is_told_that_the_interval_does_not_show(
    new: float, old: float, spread: tuple[float, ...]
) -> None:
    found = against_promise(
        "brier",
        estimate("brier", new, *spread[:2], 1000),
        estimate("brier", old, *spread[2:], 1000),
    )
    low, high, limit = found.evidence.low, found.evidence.high, found.evidence.limit
    assert low is not None
    assert high is not None
    assert limit is not None
    match found.change:
        case "worse":
            assert new > old
            assert high < 0
        case "better":
            assert new < old
            assert low > 0
        case "as expected":
            assert low >= limit
        case "inconclusive":
            assert low < limit
            assert high >= 0 or old - new > limit


@settings(max_examples=200)
@given(new=values, old=values, spread=st.tuples(halves, halves, halves, halves))
def test_a_score_is_a_loss_turned_round(new: float, old: float, spread: tuple[float, ...]) -> None:
    loss = against_promise(
        "brier",
        estimate("brier", new, *spread[:2], 1000),
        estimate("brier", old, *spread[2:], 1000),
    )
    score = against_promise(
        "accuracy",
        estimate("accuracy", 1 - new, *spread[1::-1], 1000),
        estimate("accuracy", 1 - old, *spread[:1:-1], 1000),
    )
    for side in ("value", "low", "high", "limit"):
        ours, theirs = getattr(loss.evidence, side), getattr(score.evidence, side)
        assert ours == pytest.approx(theirs, abs=1e-12)
