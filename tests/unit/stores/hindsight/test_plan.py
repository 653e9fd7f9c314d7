"""What a backtest walks through, and how it says that it can't."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from perennial.contracts.backtest import BacktestPlan
from perennial.contracts.errors import InputError
from perennial.stores.hindsight import plan as planning
from perennial.stores.hindsight import plan_backtest
from perennial.stores.project import Project
from tests import turning

DAY = timedelta(days=1)
JANUARY = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    turning.write_project(root, turning.rides(days=60, a_day=10))
    turning.ingest(root)
    return root


def plan(root: Path, **changes: object) -> BacktestPlan:
    wanted = {"start": None, "end": None, "every": "7d", "metric": None, **changes}
    return plan_backtest(Project(root), "rides", **wanted)  # type: ignore[arg-type]


def refusal(root: Path, **changes: object) -> str:
    with pytest.raises(InputError) as refused:
        plan(root, **changes)
    return refused.value.message


def test_it_starts_when_training_has_as_long_a_time_as_the_other_parts(ingested: Path) -> None:
    found = plan(ingested)
    # 2 * (validation 7d + test 7d + gap 1d) + delay 1d after the first event
    assert found.moments[0] == JANUARY + 31 * DAY
    assert [b - a for a, b in zip(found.moments, found.moments[1:], strict=False)] == [7 * DAY] * 4
    assert found.moments[-1] < found.end <= JANUARY + 60 * DAY
    assert (found.metric, found.every, found.rows) == ("logloss", "1w", 600)


def test_what_is_asked_for_is_taken(ingested: Path) -> None:
    found = plan(
        ingested,
        start=datetime(2025, 2, 5),
        end=datetime(2025, 2, 25, tzinfo=UTC),
        every="2d",
        metric="roc_auc",
    )
    assert found.moments[0] == datetime(2025, 2, 5, tzinfo=UTC)
    assert (len(found.moments), found.every, found.metric) == (10, "2d", "roc_auc")
    assert found.end == datetime(2025, 2, 25, tzinfo=UTC)
    assert found.dataset.end is not None
    assert found.dataset.end <= found.end + timedelta(microseconds=1)


def test_without_a_champion_it_trains_with_xgboosts_defaults(ingested: Path) -> None:
    recipe = plan(ingested).recipe
    assert (recipe.params, recipe.rounds) == ({}, None)
    assert recipe.origin == "XGBoost's defaults, as there is no champion"


def test_a_long_history_is_thinned(ingested: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "MOST_ROWS", 250)
    assert plan(ingested).rows == 250


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"metric": "roc_aux"},
            "--metric: no metric 'roc_aux' of a binary model; did you mean 'roc_auc'? "
            "(one of logloss, roc_auc, pr_auc, brier, accuracy)",
        ),
        (
            {"metric": "rmse"},
            "--metric: no metric 'rmse' of a binary model "
            "(one of logloss, roc_auc, pr_auc, brier, accuracy)",
        ),
        (
            {"every": "weekly"},
            "--every: 'weekly' is not a duration; write a number and a unit: 90s, 10m, 6h, 2d, 1w",
        ),
        ({"every": "0d"}, "--every: this duration must be above 0"),
        (
            {"every": "1m"},
            "--every: 41,617 steps of 1m; at most 1,000 are walked "
            "(take longer steps, or a later --start)",
        ),
        (
            {"every": "5w"},
            "rides: events from 2025-01-01 00:00 to 2025-03-01 21:36 leave 1 step of 5w after a "
            "first version of 2025-02-01 00:00; at least 2 are needed "
            "(wait for more data, or give an earlier --start or a shorter --every)",
        ),
        (
            {"start": datetime(2025, 6, 1)},
            "--start: 2025-06-01 00:00 is not before the end, 2025-03-01 21:36 "
            "(give an earlier start)",
        ),
    ],
)
def test_bad_input_is_told_with_what_to_do(
    ingested: Path, changes: dict[str, object], said: str
) -> None:
    assert refusal(ingested, **changes) == said


def test_a_model_that_is_not_there_or_was_never_ingested(ingested: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model 'riders'; did you mean 'rides'"):
        plan_backtest(Project(ingested), "riders", None, None, "7d", None)
    shutil.copytree(ingested / "models", tmp_path / "models")
    assert refusal(tmp_path) == (
        "rides: nothing was ingested yet, so there is no past "
        "(perennial train rides ingests its source)"
    )


def test_a_model_without_event_time_has_no_past(tmp_path: Path) -> None:
    text = turning.MODEL_YAML.replace(", event_time: at", "").replace(
        "split: {kind: time, validation: 7d, test: 7d, window: 21d}",
        "split: {kind: random, validation: 0.2, test: 0.2}",
    )
    text = text.replace("label: {column: late, delay: 1d}", "label: {column: late}")
    turning.write_project(tmp_path, turning.rides(days=2, a_day=10), text)
    assert refusal(tmp_path) == (
        "model.yaml, source: rides has no event time, so no past to walk through "
        "(name its column as source.event_time)"
    )


def test_an_ensemble_has_no_past_that_could_be_walked(tmp_path: Path) -> None:
    text = turning.MODEL_YAML + "ensemble: {of: [a, b]}\n"
    turning.write_project(tmp_path, turning.rides(days=2, a_day=10), text)
    assert refusal(tmp_path) == (
        "model.yaml, ensemble: rides is an ensemble, and versions of its members at past moments "
        "are not known (backtest its members)"
    )
