"""The page of a study: the best parameters, how much each mattered, the trials best first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perennial.learning.studies import TrialRecord
from perennial.learning.tuning import StudyResult
from perennial.reports.study import render_study


def _trial(number: int, value: float | None, **changes: Any) -> TrialRecord:
    fields: dict[str, Any] = {
        "number": number, "origin": "search", "params": {"max_depth": 8, "learning_rate": 0.06227},
        "state": "complete", "value": value, "rounds": 59, "curve": {}, "stopped": "", "error": "",
        "importance": {}, "seconds": 1.0,
    }  # fmt: skip
    return TrialRecord(**{**fields, **changes})


def _study(
    *records: TrialRecord, metric: str = "logloss", places: Mapping[str, str] | None = None
) -> StudyResult:
    return StudyResult(
        study="rides-1", metric=metric, best=records[0], records=records,
        importances={"max_depth": 0.25}, places=places or {},
    )  # fmt: skip


def _trials(text: str) -> list[str]:
    """The trials' numbers in the order of the table."""
    table = text[text.index("| trial |") :].splitlines()[2:]
    return [line.split("|")[1].strip() for line in table if line.startswith("|")]


def test_the_page_begins_with_what_was_reached() -> None:
    text = render_study("rides", _study(_trial(0, 0.48885), _trial(1, 0.5, state="pruned")))
    assert text.startswith("# rides: logloss 0.48885 after 59 rounds\n")
    assert "2 trials (1 complete, 1 pruned) on the validation part. Study `rides-1`." in text
    assert "| max\\_depth | 8 | 25.0\u202f% |" in text
    assert "| learning\\_rate | 0.06227 |  |" in text


def test_trials_come_best_first_and_those_that_did_not_complete_last() -> None:
    records = (
        _trial(0, 0.4), _trial(1, 0.6), _trial(2, None, state="failed"),
        _trial(3, 0.3, state="pruned"), _trial(4, 0.5),
    )  # fmt: skip
    assert _trials(render_study("rides", _study(*records))) == ["0", "4", "1", "3", "2"]


def test_best_first_means_the_greatest_where_greater_is_better() -> None:
    records = (_trial(0, 0.7), _trial(1, 0.6), _trial(2, 0.65))
    text = render_study("rides", _study(*records, metric="roc_auc"))
    assert _trials(text) == ["0", "2", "1"]
    assert text.startswith("# rides: roc\\_auc 0.70000")


def test_a_long_study_shows_its_best_trials_and_says_how_many_more() -> None:
    text = render_study("rides", _study(*(_trial(i, 0.1 + i / 100) for i in range(60))))
    assert _trials(text) == [str(i) for i in range(25)]
    assert text.endswith("… and 35 more, in the study's database.\n")


def test_where_it_is_tracked_is_a_link_online_and_a_path_offline() -> None:
    trial = _trial(0, 0.4)
    online = render_study("rides", _study(trial, places={"study": "https://wandb.ai/a/runs/1"}))
    assert "[tracked in W&B](<https://wandb.ai/a/runs/1>)." in online
    offline = render_study("rides", _study(trial, places={"study": "/p/wandb/offline-run-1"}))
    assert "tracked by W&B (offline) in `/p/wandb/offline-run-1`." in offline


def test_a_parameter_that_is_text_is_not_markup() -> None:
    trial = _trial(0, 0.4, params={"grow_policy": "a|b"})
    text = render_study("rides", _study(trial))
    assert "| grow\\_policy | a\\|b |  |" in text
