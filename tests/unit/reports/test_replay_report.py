"""The page of a replay: what retraining was worth, and each decision."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from perennial.contracts.runs import Decision, ReplayPeriod, ReplaySummary
from perennial.reports.replay import render_replay


def _period(month: int, action: Literal["promoted", "kept"], reason: str) -> ReplayPeriod:
    return ReplayPeriod(
        start=datetime(2013, month, 1, tzinfo=UTC), end=datetime(2013, month + 1, 1, tzinfo=UTC),
        rows=28_834, metric="roc_auc", stale=0.66312, current=0.74049, current_version=2,
        decision=Decision(action=action, version=None, reason=reason), report_uri=None,
    )  # fmt: skip


def test_each_training_is_a_row_with_both_scores_and_its_decision() -> None:
    periods = (_period(6, "promoted", "passed"), _period(7, "kept", "roc_auc | too low"))
    text = render_replay(ReplaySummary(model="rides", periods=periods, seconds=1.0))
    assert text.startswith("# rides: 1 of 2 trainings took over\n")
    assert "roc\\_auc on what came after each training" in text
    row = "| 2013-07-01 | 28,834 | 0.6631 | 0.7405 | version 2 | **kept**: roc\\_auc \\| too low |"
    assert row in text.splitlines()


def test_a_replay_of_no_stretch_has_no_rows() -> None:
    text = render_replay(ReplaySummary(model="rides", periods=(), seconds=1.0))
    assert text.startswith("# rides: 0 of 0 trainings took over\n")
    assert text.count("\n|") == 2
