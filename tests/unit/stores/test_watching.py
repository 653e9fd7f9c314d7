"""A look at a real log: what is found of traffic that drifted, broke, or turned."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perennial.contracts.retraining import Finding
from perennial.contracts.watching import Look
from perennial.decisions.retraining import decide
from perennial.stores.registry import Registry
from perennial.stores.watching import Seen, watch
from tests.watched import DAY, END, MODEL, Watched, make_watched, parcels

NOW = END + 5 * DAY
Frame = pd.DataFrame


@pytest.fixture
def place(tmp_path: Path) -> Watched:
    return make_watched(tmp_path)


def seen(place: Watched, end: datetime = END, now: datetime = NOW, served: bool = True) -> Seen:
    registry = Registry(place.project.registry_url)
    version = registry.version(MODEL, 1) if served else None
    window = (end - place.spec.drift.window, end)
    return watch(place.project, place.spec, version, window, now=now, threads=2)


def look(place: Watched, **options: Any) -> Look:
    return seen(place, **options).look


def answer(place: Watched, found: Look) -> str:
    return decide(found.trigger, place.spec.retrain, [], NOW).answer


def blurred(frame: Frame) -> Frame:
    """Parcels of which hardly anybody can say what becomes of them."""
    return frame.assign(rain=frame["rain"] * 0.1 + 1.8, distance=frame["distance"] * 0.1 + 216)


def clear(frame: Frame) -> Frame:
    """Parcels that are easier to tell than those of training."""
    return frame.assign(distance=frame["distance"].where(frame["distance"] < 240, 700.0))


@pytest.mark.parametrize("objective", ["binary", "multiclass", "regression"])
def test_traffic_as_in_training_is_no_drift_with_labels_and_without(
    tmp_path: Path, objective: str
) -> None:
    place = make_watched(tmp_path, objective)
    frame, ids = place.traffic()
    before = look(place)
    assert (before.finding, before.realised) == (Finding.NONE, None)
    assert before.estimated is not None
    assert before.rows == 2000
    place.label(frame, ids)
    after = look(place)
    assert after.finding is Finding.NONE
    assert after.realised is not None
    assert after.realised.change == "as expected"
    assert after.unexplained is not None
    assert after.unexplained.change == "as expected"
    assert answer(place, after) == "no"


def test_drifted_traffic_is_harmful_before_any_label_has_come(place: Watched) -> None:
    place.traffic(change=blurred)
    found = look(place)
    assert found.finding is Finding.HARMFUL
    assert found.trigger.kind == "drift"
    assert found.estimated is not None
    assert found.estimated.change == "worse"
    assert answer(place, found) == "retrain"
    assert {c.column for c in found.drift.drifted} >= {"rain", "distance", "_prediction"}  # type: ignore[union-attr]
    assert set(found.trigger.evidence["columns"]) == {c.column for c in found.drift.drifted}  # type: ignore[union-attr]
    assert "distance" in found.pictures
    for bars in found.pictures.values():
        assert sum(bar.before for bar in bars) == pytest.approx(1)
        assert sum(bar.after for bar in bars) == pytest.approx(1)


def test_drift_that_does_no_harm_is_benign_and_labels_confirm_what_inputs_explain(
    place: Watched,
) -> None:
    frame, ids = place.traffic(change=clear)
    assert look(place).finding is Finding.BENIGN
    place.label(frame, ids)
    assert look(place).finding is Finding.BENIGN

    start = END - 60 * DAY
    frame, ids = place.traffic(change=blurred, start=start, seed=6)
    place.label(frame, ids)
    found = look(place, end=start + 7 * DAY)
    assert found.finding is Finding.HARMFUL
    assert "as the inputs explain" in found.reason


@pytest.mark.parametrize("objective", ["binary", "multiclass", "regression"])
def test_labels_that_turned_are_concept_drift(tmp_path: Path, objective: str) -> None:
    place = make_watched(tmp_path, objective)
    frame, ids = place.traffic()
    place.label(frame, ids, turned=True)
    found = look(place)
    assert found.finding is Finding.CONCEPT
    assert found.trigger.kind == "performance"  # the inputs are as they were
    assert answer(place, found) == "retrain"


def test_a_promise_of_few_positives_can_t_tell_that_labels_turned(place: Watched) -> None:
    (path,) = place.project.folder("reports", MODEL).glob("*/holdout.parquet")
    table = pq.read_table(path)
    late = np.flatnonzero(table["label"].to_numpy() == 0)
    kept = np.ones(table.num_rows, bool)
    kept[late[7:]] = False
    pq.write_table(table.filter(pa.array(kept)), path)
    report = path.with_name("evaluation.json")
    rows = f'"holdout_rows":{kept.sum()},'
    report.write_text(report.read_text().replace('"holdout_rows":3000,', rows))
    frame, ids = place.traffic()
    place.label(frame, ids, turned=True)
    found = look(place)
    for change in (found.realised, found.estimated, found.unexplained):
        assert change is not None
        assert change.change == "inconclusive"
        assert "on 7 labels of the holdout not of the commonest class" in change.reason
    assert found.finding is Finding.INCONCLUSIVE  # predictions are not those of this holdout
    assert answer(place, found) != "retrain"


def test_labels_that_are_not_due_or_not_yet_received_tell_nothing(place: Watched) -> None:
    frame, ids = place.traffic()
    place.label(frame, ids, turned=True)  # two days after each
    early = look(place, now=END - 6 * DAY)
    assert early.realised is None
    assert early.labels is not None
    assert early.labels.labelled_due == 0


def test_labels_are_due_by_the_present_delay_whatever_the_version_was_trained_with(
    place: Watched,
) -> None:
    frame, ids = place.traffic()
    place.label(frame, ids)
    trained = place.bundle.spec.label.delay
    before = look(place, now=END).labels
    place.edit(f"delay: {trained.days}d", "delay: 9d")
    after = look(place, now=END).labels
    assert before is not None
    assert after is not None
    assert before.labelled_due > 0
    assert (after.due, after.labelled_due, after.overdue) == (0, 0, 0)


def test_labels_later_than_a_window_is_long_tell_of_a_loss_but_not_that_all_is_well(
    tmp_path: Path,
) -> None:
    place = make_watched(tmp_path, delay="10d")
    place.traffic(change=blurred)  # nothing of it is due
    frame, ids = place.traffic(start=END - 17 * DAY, seed=8)
    place.label(frame, ids, received=END - DAY)
    well = look(place, now=END)
    assert well.realised is not None
    assert well.realised.change == "as expected"
    assert well.finding is Finding.HARMFUL  # of the newest rows, as far as inputs tell
    place.label(frame, ids, turned=True, received=END - DAY / 2)
    assert look(place, now=END).finding is Finding.FAULT  # two labels each, which contradict


def _all_missing(frame: Frame) -> Frame:
    return frame.assign(distance=np.nan)


def _constant(frame: Frame) -> Frame:
    return frame.assign(distance=0.0)


def _impossible(frame: Frame) -> Frame:
    return frame.assign(distance=frame["distance"] * -1)


def _new_names(frame: Frame) -> Frame:
    return frame.assign(depot="depot-" + frame["depot"].astype(str))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_all_missing, "distance: all of 2,000 values are missing, 0 % in training"),
        (_constant, "distance: all 2,000 values are the same one"),
        (_impossible, "distance: 2,000 of 2,000 values are not possible by model.yaml"),
        (_new_names, "depot: 100 % of 2,000 values were never seen in training"),
    ],
)
def test_a_broken_upstream_is_a_fault_whatever_labels_say(
    place: Watched, change: Callable[[Frame], Frame], said: str
) -> None:
    frame, ids = place.traffic(change=change)
    place.label(frame, ids, turned=True)
    found = look(place)
    assert found.finding is Finding.FAULT
    assert found.reason.startswith(said)
    assert answer(place, found) == "no"


def _logged(place: Watched, change: Callable[[Frame], Frame], **types: Any) -> Look:
    frame, _ = place.traffic(rows=500, start=END - 40 * DAY)  # as it was
    values = place.predict(frame)
    changed = change(frame.assign(sent=frame["sent"] + 33 * DAY))
    place.log(changed, [f"new-{i}" for i in range(500)], values, types=types)
    return look(place)


@pytest.mark.parametrize(
    ("change", "types", "said"),
    [
        (lambda f: f.drop(columns="distance"), {}, "distance: all of 500 values are missing"),
        (
            lambda f: f.rename(columns={"distance": "distance_km"}),
            {},
            "distance: all of 500 values are missing",
        ),
        (
            lambda f: f.assign(distance=f["distance"].astype(str)),
            {"distance": pa.string()},
            "distance: 500 of 500 rows have string, not a number",
        ),
    ],
)
def test_a_column_that_is_gone_renamed_or_of_another_type_is_a_fault(
    place: Watched, change: Callable[[Frame], Frame], types: dict[str, Any], said: str
) -> None:
    found = _logged(place, change, **types)
    assert found.finding is Finding.FAULT
    assert found.reason.startswith(said)


def test_a_column_that_the_log_never_had_is_a_fault(place: Watched) -> None:
    frame = parcels(END - 2 * DAY, 2, 500, 4).drop(columns="rain")
    place.log(frame, [f"{i}" for i in range(500)], np.full(500, 0.3))
    found = look(place)
    assert found.finding is Finding.FAULT
    assert found.reason.startswith("rain: 500 of 500 rows don't have it")


def test_a_column_is_found_under_the_name_its_type_gave_it(place: Watched) -> None:
    """Another version once read the distance as text: the log keeps both."""
    frame, ids = place.traffic(rows=200, start=END - 30 * DAY, version=1, seed=3)
    shutil.rmtree(place.project.folder("predictions", MODEL))
    text = frame.assign(distance="far")
    place.log(text, ids, np.full(200, 0.3), version=2, types={"distance": pa.string()})
    place.traffic()
    found = look(place)
    assert found.finding is Finding.NONE
    assert found.rows == 2000


def test_only_the_champion_s_own_answers_in_the_window_are_looked_at(place: Watched) -> None:
    place.traffic(rows=1500)
    place.traffic(rows=700, change=blurred, arm="shadow")
    place.traffic(rows=700, change=blurred, version=2, arm="challenger")
    place.traffic(rows=700, change=blurred, start=END)
    place.traffic(rows=700, change=blurred, start=END - 8 * DAY, days=1)
    found = look(place)
    assert (found.rows, found.finding) == (1500, Finding.NONE)


def test_shadow_copies_give_no_labels(place: Watched) -> None:
    place.traffic()
    frame, ids = place.traffic(rows=700, seed=7, arm="shadow")
    place.label(frame, ids, turned=True)
    assert look(place).realised is None


def test_without_a_log_rows_or_a_champion_nothing_can_be_told(place: Watched) -> None:
    for options, reason in (
        ({}, "the window has no rows"),
        ({"served": False}, "no version of parcels serves"),
    ):
        found = look(place, **options)
        assert (found.finding, found.reason, found.rows) == (Finding.INCONCLUSIVE, reason, 0)
        assert answer(place, found) == "no"
    place.traffic(start=END - 30 * DAY)
    assert look(place).reason == "the window has no rows"


def test_a_few_rows_are_inconclusive(place: Watched) -> None:
    place.traffic(rows=25, change=blurred)
    found = look(place)
    assert found.finding is Finding.INCONCLUSIVE
    assert found.drift is not None
    assert "fewer than the 30 needed" in found.drift.columns[0].reason


def test_labels_of_unknown_predictions_are_counted_and_never_used(place: Watched) -> None:
    frame, ids = place.traffic()
    place.label(frame, [f"no-{id}" for id in ids], turned=True)
    found = look(place)
    assert found.finding is Finding.NONE
    assert found.realised is None
    said = "2,000 of 2,000 labels received are of no prediction in the log; they are not used"
    assert said in found.notes
    place.label(frame.head(150), ids[:150], turned=True)  # a few by chance of the right key
    some = look(place)
    assert some.finding is Finding.NONE
    assert "labels are not used: 2,000 of 2,150 labels are of no prediction" in some.reason


def test_doubled_labels_change_nothing_and_contradicting_ones_are_a_fault(place: Watched) -> None:
    frame, ids = place.traffic()
    place.label(frame, ids)
    once = look(place)
    place.label(frame, ids)
    twice = look(place)
    assert (twice.finding, twice.realised) == (Finding.NONE, once.realised)
    assert "2,000 rows have several labels; the last received counts" in twice.notes
    place.label(frame, ids, turned=True, seed=11, received=END + 4 * DAY)
    assert look(place).finding is Finding.FAULT


def test_labels_that_the_version_can_t_predict_are_told(place: Watched) -> None:
    frame, ids = place.traffic()
    place.put_labels(ids, ["lost"] * 2000, frame["sent"] + 2 * DAY)
    found = look(place)
    assert (found.finding, found.realised) == (Finding.NONE, None)
    assert "none of 2,000 labels is one that this version predicts" in found.notes
    place.label(frame, ids, received=END + 4 * DAY)
    place.put_labels(ids[:100], ["lost"] * 100, [END + 4.5 * DAY] * 100)
    assert "100 rows have a label that is no class of this version" in look(place).notes


def test_labels_older_than_their_event_are_a_fault_of_a_clock(place: Watched) -> None:
    frame, ids = place.traffic()
    place.label(frame, ids, received=END - 300 * DAY)
    found = look(place)
    assert found.finding is Finding.FAULT
    assert "2,000 of 2,000 labels came before what they tell of had happened" in found.reason
    assert found.trigger.kind == "performance"
    assert answer(place, found) == "no"


def test_predictions_dated_ahead_are_told(place: Watched) -> None:
    place.traffic(start=NOW + DAY, rows=300)
    found = look(place)
    assert found.finding is Finding.INCONCLUSIVE
    said = "300 rows of the log are dated later than now: a server's clock is ahead"
    assert said in found.notes


def test_the_same_rows_and_labels_are_one_cause_however_they_lie_in_the_log(
    tmp_path: Path,
) -> None:
    causes = []
    for name, backwards in (("a", False), ("b", True)):
        place = make_watched(tmp_path / name)
        parts = [(END - 7 * DAY, 1), (END - 5 * DAY, 2), (END - 3 * DAY, 3)]
        for start, seed in reversed(parts) if backwards else parts:
            frame, ids = place.traffic(500, start=start, seed=seed, days=1.5)
            place.label(frame, ids)
        first = look(place)
        assert first.trigger.cause == look(place, now=NOW + DAY).trigger.cause
        causes.append((first.trigger.cause, first.reason))
    assert causes[0] == causes[1]
    frame, ids = place.traffic(10, seed=4)
    with_rows = look(place).trigger.cause
    place.label(frame, ids)
    assert len({causes[0][0], with_rows, look(place).trigger.cause}) == 3


def test_an_old_window_is_evidence_of_its_own_time(place: Watched) -> None:
    place.traffic(change=blurred)
    assert look(place).trigger.at == END
    assert look(place, now=END - DAY).trigger.at == END - DAY


def test_an_evaluation_that_is_gone_leaves_the_registry_s_metrics(place: Watched) -> None:
    shutil.rmtree(place.project.folder("reports", MODEL))
    frame, ids = place.traffic(change=blurred)
    found = look(place)
    assert found.finding is Finding.INCONCLUSIVE  # drifted, and nothing tells what that does
    (note,) = found.notes
    assert note.startswith("the evaluation of version 1 is gone (")
    assert note.endswith("without intervals, and nothing can be estimated")
    place.label(frame, ids)
    assert look(place).finding is Finding.HARMFUL


def test_a_holdout_that_is_gone_or_damaged_is_told(place: Watched) -> None:
    (holdout,) = place.project.folder("reports", MODEL).glob("*/holdout.parquet")
    holdout.write_bytes(b"no rows")
    place.traffic()
    found = look(place)
    assert found.finding is Finding.NONE
    assert found.estimated is None
    assert found.notes[0].startswith("version 1 has no holdout rows (")


def test_what_the_log_hashes_is_not_compared_and_a_regression_not_estimated(
    tmp_path: Path,
) -> None:
    place = make_watched(tmp_path, "regression")
    place.edit("drift:", "log: {hash: [depot]}\ndrift:")
    frame, ids = place.traffic()
    shutil.rmtree(place.project.folder("predictions", MODEL))
    values = place.predict(frame)
    place.log(frame.assign(depot="5d41402abc4b2a76b9719d911017c592"), ids, values)
    found = look(place)
    assert found.finding is Finding.NONE
    assert "not compared, since the log hashes or leaves them out: depot" in found.notes
    assert "depot" not in {c.column for c in found.drift.columns}  # type: ignore[union-attr]


def test_a_look_is_the_same_value_after_json(place: Watched) -> None:
    frame, ids = place.traffic(change=blurred)
    place.label(frame, ids)
    found = look(place)
    assert Look.model_validate_json(found.model_dump_json()) == found
    assert found.window[1].tzinfo is UTC
