"""What drift and performance together are found to be."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from perennial.contracts.drift import DriftOutcome, DriftVerdict
from perennial.contracts.performance import JoinCounts, LabelCounts, PerformanceChange
from perennial.contracts.retraining import Finding
from perennial.contracts.verdicts import Evidence
from perennial.decisions.watch import drifted, find

NOW = datetime(2026, 3, 14, tzinfo=UTC)
DRIFTED, STABLE, FAULT, UNSURE = (
    DriftOutcome.DRIFTED,
    DriftOutcome.STABLE,
    DriftOutcome.FAULT,
    DriftOutcome.INCONCLUSIVE,
)
OK, BAD, GOOD, OPEN = "as expected", "worse", "better", "inconclusive"


def verdict(outcome: DriftOutcome, rows: int = 1000) -> DriftVerdict:
    return DriftVerdict(
        outcome=outcome, reason=f"drift is {outcome}", rows=rows, reference_rows=7500,
        drifted_share=0.0, max_drifted_share=0.3, false_alarm_rate=0.01, min_effect=0.1,
        found=0.1, columns=(),
    )  # fmt: skip


def change(what: Any) -> PerformanceChange | None:
    if what is None:
        return None
    evidence = Evidence(rule="logloss")
    return PerformanceChange(
        change=what, reason=f"logloss {what}", evidence=evidence, observed=None, expected=None
    )


def vague(value: float) -> PerformanceChange:
    """A loss that counts from 0.05 on, with an interval that tells nothing."""
    evidence = Evidence(rule="logloss", value=value, limit=-0.05, low=value - 1, high=value + 1)
    return PerformanceChange(
        change="inconclusive", reason="logloss vague", evidence=evidence, observed=None,
        expected=None,
    )  # fmt: skip


def labels(**counts: int) -> LabelCounts:
    usual = {
        "predictions": 1000, "due": 1000, "labelled": 1000, "labelled_due": 1000, "overdue": 0,
        "pending": 0, "early": 0, "repeated": 0, "contradicted": 0,
    }  # fmt: skip
    return LabelCounts(**{**usual, **counts})


def joins(labels: int, unknown: int) -> JoinCounts:
    return JoinCounts(start=NOW, end=NOW, as_of=NOW, labels=labels, unknown=unknown, versions={})


@pytest.mark.parametrize(
    ("drift", "realised", "unexplained", "estimated", "finding"),
    [
        # labels: all is well, whatever was estimated
        (STABLE, OK, None, None, Finding.NONE),
        (STABLE, GOOD, OK, BAD, Finding.NONE),
        (DRIFTED, OK, OK, BAD, Finding.BENIGN),
        (DRIFTED, GOOD, None, None, Finding.BENIGN),
        (UNSURE, OK, None, None, Finding.NONE),
        # labels: a loss
        (STABLE, BAD, BAD, OK, Finding.CONCEPT),
        (DRIFTED, BAD, BAD, BAD, Finding.CONCEPT),
        (UNSURE, BAD, BAD, None, Finding.CONCEPT),
        (DRIFTED, BAD, OK, BAD, Finding.HARMFUL),
        (STABLE, BAD, OK, BAD, Finding.HARMFUL),
        (STABLE, BAD, GOOD, None, Finding.HARMFUL),
        (DRIFTED, BAD, None, None, Finding.HARMFUL),
        (DRIFTED, BAD, OPEN, OPEN, Finding.HARMFUL),
        (STABLE, BAD, None, None, Finding.CONCEPT),
        (UNSURE, BAD, None, None, Finding.HARMFUL),
        # labels: a loss, and no second sign though one was looked for
        (STABLE, BAD, OPEN, OK, Finding.INCONCLUSIVE),
        (STABLE, BAD, OPEN, BAD, Finding.INCONCLUSIVE),
        (UNSURE, BAD, OPEN, None, Finding.INCONCLUSIVE),
        # no labels that tell: the estimate
        (DRIFTED, None, None, BAD, Finding.HARMFUL),
        (DRIFTED, OPEN, None, OK, Finding.BENIGN),
        (DRIFTED, None, None, GOOD, Finding.BENIGN),
        (DRIFTED, None, None, OPEN, Finding.INCONCLUSIVE),
        (DRIFTED, None, None, None, Finding.INCONCLUSIVE),
        (STABLE, None, None, OK, Finding.NONE),
        (STABLE, None, None, None, Finding.NONE),
        (STABLE, OPEN, OPEN, OPEN, Finding.NONE),
        (STABLE, None, None, BAD, Finding.INCONCLUSIVE),
        (UNSURE, None, None, OK, Finding.INCONCLUSIVE),
        (UNSURE, None, None, BAD, Finding.INCONCLUSIVE),
        # labels say that the estimate is wrong, not yet whether the promise is kept
        (DRIFTED, OPEN, BAD, OK, Finding.INCONCLUSIVE),
        (STABLE, OPEN, BAD, OK, Finding.INCONCLUSIVE),
        # a broken upstream is that, however well or badly it goes
        (FAULT, BAD, BAD, BAD, Finding.FAULT),
        (FAULT, OK, OK, OK, Finding.FAULT),
        (FAULT, None, None, None, Finding.FAULT),
    ],
)
def test_labels_outrank_the_estimate_and_a_fault_outranks_both(
    drift: DriftOutcome, realised: Any, unexplained: Any, estimated: Any, finding: Finding
) -> None:
    found, reason = find(
        verdict(drift),
        realised=change(realised),
        unexplained=change(unexplained),
        estimated=change(estimated),
    )
    assert found is finding
    assert reason


def test_labels_of_older_rows_tell_of_a_loss_but_not_that_the_newest_do_well() -> None:
    drift = verdict(DRIFTED)
    well, badly, foretold = change(OK), change(BAD), change(BAD)
    assert find(drift, realised=well, estimated=foretold, covered=0.5)[0] is Finding.BENIGN
    assert find(drift, realised=well, estimated=foretold, covered=0.4)[0] is Finding.HARMFUL
    assert find(verdict(STABLE), realised=badly, covered=0.0)[0] is Finding.CONCEPT


def test_two_signs_must_agree_before_a_world_has_changed() -> None:
    kept = find(verdict(STABLE), realised=change(OK), unexplained=change(BAD))
    assert kept == (Finding.NONE, "drift is stable; by labels, logloss as expected")
    lost = find(verdict(STABLE), realised=change(BAD), unexplained=change(BAD))
    assert lost == (
        Finding.CONCEPT,
        "by labels, logloss worse; inputs don't explain it: logloss worse",
    )
    alone = find(verdict(STABLE), realised=change(BAD), unexplained=change(OPEN))
    assert alone == (
        Finding.INCONCLUSIVE,
        "by labels, logloss worse; whether inputs explain it is open: logloss inconclusive; "
        "drift is stable",
    )


def test_a_window_without_rows_tells_nothing() -> None:
    empty = find(verdict(UNSURE, rows=0), realised=change(BAD), estimated=change(BAD))
    assert empty == (Finding.INCONCLUSIVE, "the window has no rows")
    nothing = find(None, realised=change(BAD))
    assert nothing == (Finding.INCONCLUSIVE, "there is nothing to compare")


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        (
            {"contradicted": 101},
            "101 of 1,000 labels contradict another label of the same prediction",
        ),
        (
            {"early": 200},
            "200 of 1,000 labels came before what they tell of had happened: a clock is wrong, or "
            "they are of something else",
        ),
    ],
)
def test_labels_that_can_t_be_right_are_a_fault(counts: dict[str, int], reason: str) -> None:
    found = find(verdict(DRIFTED), realised=change(BAD), labels=labels(**counts))
    assert found == (Finding.FAULT, reason)


def test_a_few_odd_labels_or_doubled_ones_are_none() -> None:
    some = labels(contradicted=100, early=100, repeated=1000)
    assert find(verdict(STABLE), realised=change(OK), labels=some)[0] is Finding.NONE
    few = labels(labelled=29, labelled_due=29, early=29)
    assert find(verdict(STABLE), labels=few)[0] is Finding.NONE


def test_labels_that_are_mostly_of_no_prediction_are_not_used_unless_predictions_have_theirs() -> (
    None
):
    seen = {"realised": change(BAD), "unexplained": change(BAD), "estimated": change(OK)}
    sparse = labels(labelled=100, labelled_due=100, overdue=900)
    found = find(verdict(STABLE), **seen, labels=sparse, joined=joins(1000, 900))
    assert found == (
        Finding.NONE,
        "drift is stable; estimated, logloss as expected; labels are not used: 900 of 1,000 labels "
        "are of no prediction, and 10 % of the predictions that are due have one",
    )
    full = find(verdict(STABLE), **seen, labels=labels(), joined=joins(9000, 8000))
    assert full[0] is Finding.CONCEPT  # the source of labels knows more than was predicted


def test_a_trigger_is_by_drift_where_inputs_or_predictions_drifted() -> None:
    assert [drifted(verdict(each)) for each in (DRIFTED, FAULT, STABLE, UNSURE)] == [
        True, True, False, False,
    ]  # fmt: skip
    assert not drifted(None)


def test_a_loss_that_inputs_surely_dont_explain_counts_though_the_promise_is_vague() -> None:
    def found(value: float, unexplained: str) -> Finding:
        realised = vague(value)
        return find(verdict(DRIFTED), realised=realised, unexplained=change(unexplained))[0]

    assert found(-0.08, BAD) is Finding.CONCEPT
    assert found(-0.02, BAD) is Finding.INCONCLUSIVE, "it is no loss that counts"
    assert found(-0.08, OPEN) is Finding.INCONCLUSIVE, "neither sign is sure"
    assert found(+0.08, BAD) is Finding.INCONCLUSIVE, "the signs don't agree"
