"""What holds of findings, whatever was measured."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.contracts.drift import DriftOutcome, DriftVerdict
from perennial.contracts.performance import JoinCounts, LabelCounts, PerformanceChange
from perennial.contracts.retraining import Finding, Trigger
from perennial.contracts.verdicts import Evidence
from perennial.decisions.retraining import decide
from perennial.decisions.watch import drifted, find
from perennial.spec.production import Retrain

NOW = datetime(2026, 3, 14, tzinfo=UTC)
LOSS = {Finding.HARMFUL, Finding.CONCEPT}
counts = st.integers(0, 2000)

verdicts = st.builds(
    DriftVerdict,
    outcome=st.sampled_from(DriftOutcome),
    reason=st.just("as it is"),
    rows=st.sampled_from([0, 1, 5000]),
    reference_rows=st.just(7500),
    drifted_share=st.floats(0, 1),
    max_drifted_share=st.just(0.3),
    false_alarm_rate=st.just(0.01),
    min_effect=st.just(0.1),
    found=st.none(),
    columns=st.just(()),
)
changes = st.builds(
    PerformanceChange,
    change=st.sampled_from(["better", "as expected", "worse", "inconclusive"]),
    reason=st.just("measured"),
    evidence=st.builds(
        Evidence, rule=st.just("logloss"), value=st.floats(-1, 1), limit=st.just(-0.1)
    ),
    observed=st.none(),
    expected=st.none(),
)
labels = st.builds(
    LabelCounts,
    predictions=counts, due=counts, labelled=counts, labelled_due=counts, overdue=counts,
    pending=counts, early=counts, repeated=counts, contradicted=counts,
)  # fmt: skip
joins = st.builds(
    JoinCounts,
    start=st.just(NOW), end=st.just(NOW), as_of=st.just(NOW), labels=counts, unknown=counts,
    versions=st.just({}),
)  # fmt: skip
seen = st.fixed_dictionaries(
    {
        "realised": st.none() | changes,
        "estimated": st.none() | changes,
        "unexplained": st.none() | changes,
        "covered": st.floats(0, 1),
        "labels": st.none() | labels,
        "joined": st.none() | joins,
    }
)


@settings(deadline=None, max_examples=300)
@given(st.none() | verdicts, seen)
def test_a_finding_always_comes_with_its_reason_and_a_loss_with_a_measured_one(
    drift: DriftVerdict | None, evidence: dict[str, Any]
) -> None:
    finding, reason = find(drift, **evidence)
    assert reason
    assert (finding, reason) == find(drift, **evidence)
    if drift is not None and drift.outcome is DriftOutcome.FAULT:
        assert finding is Finding.FAULT
    if finding in LOSS:
        measured = (evidence["realised"], evidence["estimated"], evidence["unexplained"])
        assert any(change and change.change == "worse" for change in measured), "one sign is sure"
        assert drift is not None
        assert drift.rows
    if finding is Finding.CONCEPT:
        realised = evidence["realised"]  # labels only
        assert realised.change == "worse" or (
            realised.change == "inconclusive" and realised.evidence.value <= -0.1
        )


@settings(deadline=None, max_examples=200)
@given(st.none() | verdicts, seen)
def test_nothing_is_retrained_on_a_fault_or_on_nothing(
    drift: DriftVerdict | None, evidence: dict[str, Any]
) -> None:
    finding, reason = find(drift, **evidence)
    trigger = Trigger(
        kind="drift" if drifted(drift) else "performance",
        reason=reason,
        at=NOW,
        finding=finding,
        data="seen",
    )
    answer = decide(trigger, Retrain(on=("drift", "performance")), [], NOW)
    assert (answer.answer == "retrain") == (finding in LOSS)


@settings(deadline=None, max_examples=200)
@given(verdicts, changes, st.none() | changes, st.none() | changes, st.none() | changes)
def test_a_loss_by_labels_is_found_whatever_is_estimated(
    drift: DriftVerdict,
    realised: PerformanceChange,
    unexplained: PerformanceChange | None,
    estimated: PerformanceChange | None,
    other: PerformanceChange | None,
) -> None:
    realised = realised.model_copy(update={"change": "worse"})
    by_labels = {"realised": realised, "unexplained": unexplained}
    one, _ = find(drift, estimated=estimated, **by_labels)
    assert one is find(drift, estimated=other, **by_labels)[0]
    if drift.rows and drift.outcome is not DriftOutcome.FAULT:
        alone = unexplained is not None and unexplained.change == "inconclusive"
        if alone and drift.outcome is not DriftOutcome.DRIFTED:
            assert one is Finding.INCONCLUSIVE, "one sign is none"
        else:
            assert one in LOSS
