"""What is asked of a moment is answered with what was known then, by what training itself runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from perennial.contracts.backtest import Recipe
from perennial.contracts.errors import InputError
from perennial.contracts.retraining import Finding
from perennial.data.frames import canonical_frame, table_columns
from perennial.spec import ModelSpec, parse_spec
from perennial.stores.hindsight import Past
from tests import turning

DAY = timedelta(days=1)
JANUARY = datetime(2025, 1, 1, tzinfo=UTC)
RECIPE = Recipe(params={"max_depth": 3, "learning_rate": 0.3}, rounds=20, origin="the test")
FIRST, BEFORE, AFTER = JANUARY + 40 * DAY, JANUARY + 60 * DAY, JANUARY + 90 * DAY

Make = Callable[..., Past]


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return parse_spec(turning.MODEL_YAML)


@pytest.fixture(scope="module")
def frame(spec: ModelSpec) -> pd.DataFrame:
    rows = turning.rides()
    rows["ride"] = rows["ride"].astype("int64")
    return canonical_frame(rows, table_columns(spec))


@pytest.fixture
def past(spec: ModelSpec, tmp_path: Path) -> Make:
    def make(frame: pd.DataFrame, recipe: Recipe = RECIPE, spec: ModelSpec = spec) -> Past:
        return Past(spec, "", frame, recipe, FIRST, tmp_path / "work", threads=1)

    return make


def told(past: Past, moments: list[datetime]) -> list[object]:
    """All that a policy could hear of up to the last moment, seconds aside."""
    heard: list[object] = []
    for at in moments:
        heard.append(
            past.judged(at, FIRST if at > FIRST else None).model_copy(update={"seconds": 0})
        )
        if at > FIRST:
            heard.append(past.seen(at, FIRST))
    return heard


def test_only_labels_that_were_known_are_heard_of(
    past: Make, frame: pd.DataFrame, spec: ModelSpec
) -> None:
    moments = [FIRST, BEFORE]
    late = frame["at"] > BEFORE - spec.label.delay
    turned = frame.copy()
    turned.loc[late, "late"] = np.where(turned.loc[late, "late"] == "true", "false", "true")
    assert not turned.equals(frame)
    assert told(past(turned), moments) == told(past(frame), moments)

    unknown = frame[frame["at"] <= BEFORE].copy()  # nothing of later days was there at all
    unknown.loc[unknown["at"] > BEFORE - spec.label.delay, "late"] = np.nan
    assert told(past(unknown), moments) == told(past(frame), moments)

    known = frame.copy()
    early = (frame["at"] > BEFORE - 4 * DAY) & (frame["at"] <= BEFORE - spec.label.delay)
    known.loc[early, "late"] = np.where(known.loc[early, "late"] == "true", "false", "true")
    assert told(past(known), moments) != told(past(frame), moments)


def test_what_is_kept_is_what_would_be_found_anew(past: Make, frame: pd.DataFrame) -> None:
    shared = past(frame)
    first = told(shared, [FIRST, BEFORE, AFTER])
    assert told(shared, [FIRST, BEFORE, AFTER]) == first
    for at in (FIRST, BEFORE, AFTER):
        assert told(past(frame), [at])[0] == told(shared, [at])[0]
    late = past(frame)
    assert late.metric("roc_auc", BEFORE, BEFORE, AFTER) == shared.metric(
        "roc_auc", BEFORE, BEFORE, AFTER
    )


def test_a_turned_world_is_found_by_labels_and_the_stale_version_is_bad(
    past: Make, frame: pd.DataFrame
) -> None:
    walked = past(frame)
    assert walked.judged(FIRST, None).outcome == "promoted"
    assert walked.seen(BEFORE, FIRST).finding is Finding.NONE
    assert walked.seen(AFTER, FIRST).finding is Finding.CONCEPT
    assert "by labels, logloss is" in walked.seen(AFTER, FIRST).why
    good = walked.metric("roc_auc", FIRST, FIRST, BEFORE)
    bad = walked.metric("roc_auc", FIRST, AFTER, AFTER + 7 * DAY)
    assert good is not None
    assert bad is not None
    assert good > 0.8
    assert bad < 0.4


def test_a_version_is_not_looked_at_by_rows_of_before_it_served(
    past: Make, frame: pd.DataFrame
) -> None:
    walked = past(frame)
    assert walked.judged(BEFORE, None).outcome == "promoted"
    found = walked.seen(BEFORE + timedelta(hours=1), BEFORE)
    assert found.finding is Finding.INCONCLUSIVE  # five rows, though the window is a week


def test_rows_and_seconds_are_those_of_the_candidate(past: Make, frame: pd.DataFrame) -> None:
    judged = past(frame).judged(BEFORE, FIRST)
    days = 21 + 7 + 7  # split.window, validation, test
    assert judged.rows == pytest.approx(days * turning.A_DAY, abs=5)
    assert judged.seconds > 0


def test_no_candidate_is_a_failure_with_its_reason(past: Make, frame: pd.DataFrame) -> None:
    failed = past(frame).judged(JANUARY + 10 * DAY, None)
    assert (failed.outcome, failed.rows) == ("failed", 0)
    assert failed.verdict.startswith("model.yaml, split: no row for the train part")


def test_the_same_candidate_is_unchanged(past: Make, frame: pd.DataFrame) -> None:
    stopped = frame[frame["at"] < BEFORE]
    walked = past(stopped)
    later = walked.judged(BEFORE + 9 * DAY, BEFORE + 2 * DAY)
    assert later.outcome == "unchanged"


def test_rounds_that_nobody_gave_are_found_by_early_stopping(
    past: Make, frame: pd.DataFrame
) -> None:
    walked = past(frame, Recipe(params={}, rounds=None, origin="XGBoost's defaults"))
    assert walked.recipe.rounds is not None
    assert 1 <= walked.recipe.rounds <= 40
    assert walked.recipe.params == {"learning_rate": 0.3, "max_depth": 4}  # within the space
    assert "early stopping found at the start" in walked.recipe.origin


def test_a_start_with_too_little_before_it_is_told(
    spec: ModelSpec, frame: pd.DataFrame, tmp_path: Path
) -> None:
    nothing = Recipe(params={}, rounds=None, origin="")
    with pytest.raises(InputError, match="no row for the train part"):
        Past(spec, "", frame, nothing, JANUARY + 9 * DAY, tmp_path, threads=1)


def test_nothing_is_left_on_the_disk(past: Make, frame: pd.DataFrame, tmp_path: Path) -> None:
    past(frame).judged(FIRST, None)
    assert list((tmp_path / "work").iterdir()) == []


def test_the_two_are_compared_without_the_rows_that_the_champion_was_fitted_to(
    past: Make, frame: pd.DataFrame
) -> None:
    text = turning.MODEL_YAML.replace(
        "{kind: time, validation: 7d, test: 7d, window: 21d}",
        "{kind: stratified, validation: 0.2, test: 0.2}",
    )
    walked = past(frame, spec=parse_spec(text))
    candidate, champion = walked.version(BEFORE), walked.version(FIRST)
    both = len(set(candidate.test) & set(champion.fitted))
    assert both > 0
    rows = len(candidate.test) - both
    assert walked.judged(BEFORE, FIRST).verdict.endswith(
        f"exceed 0 on {rows:,} rows, without the {both} rows that the version of "
        "2025-02-10 00:00 was fitted to"
    )


def test_classes_that_came_later_are_measured_as_never_foreseen(tmp_path: Path) -> None:
    text = turning.MODEL_YAML.replace("objective: binary", "objective: multiclass")
    text = text.replace("  - {metric: roc_auc, min: 0.75}\n", "")
    spec = parse_spec(text)
    rows = turning.rides(turn=200)
    rows["late"] = np.where(rows["crowd"] > 0.5, "crowded", rows["late"])
    rows.loc[(rows["at"] < pd.Timestamp(BEFORE)) & (rows["late"] == "crowded"), "late"] = "true"
    walked = Past(
        spec, "", canonical_frame(rows, table_columns(spec)), RECIPE, FIRST, tmp_path, threads=1
    )
    assert walked.judged(FIRST, None).outcome == "promoted"
    known = walked.metric("logloss", FIRST, FIRST, BEFORE)
    strange = walked.metric("logloss", FIRST, BEFORE, AFTER)
    assert known is not None
    assert strange is not None
    assert known < 0.6
    assert strange > 3  # a class without any probability costs 16
    assert walked.seen(AFTER, FIRST).why
    assert walked.judged(AFTER, FIRST).outcome == "promoted"


def test_rows_of_the_moment_itself_are_not_asked_of_who_learned_from_them(tmp_path: Path) -> None:
    """Daily rows whose label comes with them, drawn at random: nothing in them can be foreseen."""
    text = turning.MODEL_YAML.replace(", delay: 1d", "").replace(
        "{kind: time, validation: 7d, test: 7d, window: 21d}",
        "{kind: random, validation: 0.1, test: 0.1}",
    )
    spec = parse_spec(text)
    random = np.random.default_rng(5)
    rows = turning.rides(days=50, a_day=80)
    rows["at"] = rows["at"].dt.floor("D")
    rows["late"] = random.permutation(rows["late"])
    frame = canonical_frame(rows, table_columns(spec))
    eager = Recipe(params={"max_depth": 12, "learning_rate": 0.5}, rounds=60, origin="the test")
    past = Past(spec, "", frame, eager, FIRST, tmp_path / "work", threads=1)
    days = [FIRST + number * DAY for number in range(5)]
    found = []
    for day in days:
        assert past.labelled_rows(day, day + DAY) == 80
        found.append(past.metric("roc_auc", day, day, day + DAY))
    assert past.metric("roc_auc", FIRST, FIRST - DAY, FIRST) > 0.8  # it has learned them by heart
    assert np.mean(found) == pytest.approx(0.5, abs=0.1)
