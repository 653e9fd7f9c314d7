"""What a window means for a model: drift and performance taken together.

Faults come first: nothing is learned from a broken upstream. Then labels, which know everything;
without them the estimate, which knows who comes but not whether they still behave as they did. A
loss alone is *harmful drift* where the inputs explain it and *concept drift* where they don't. Two
signs must agree before a world has changed: realised worse than promised, and worse than the inputs
led to expect, of the same rows; one of them surely (docs/adr/0021).
"""

from __future__ import annotations

from perennial.contracts.drift import DriftOutcome, DriftVerdict
from perennial.contracts.performance import JoinCounts, LabelCounts, PerformanceChange
from perennial.contracts.retraining import Finding
from perennial.decisions.wording import percent

MAX_ODD_LABELS = 0.1
"""The share of labels that may contradict each other, or be older than what they tell of."""
ENOUGH_COVERED = 0.5
"""The share of the window's rows that labels must be known of, to say that all is well."""
_FEWEST_LABELS = 30

Found = tuple[Finding, str]


def find(
    drift: DriftVerdict | None,
    *,
    realised: PerformanceChange | None = None,
    estimated: PerformanceChange | None = None,
    unexplained: PerformanceChange | None = None,
    covered: float = 1.0,
    labels: LabelCounts | None = None,
    joined: JoinCounts | None = None,
) -> Found:
    """The finding and its reason.

    ``realised`` and ``estimated`` are against the promise, ``unexplained`` is the realised against
    the estimated metric of the same rows. None, where nothing could be measured, is as good as
    inconclusive; but with ``unexplained`` None drift alone can be the second sign, also by not
    being there. ``covered`` is the share of the window's rows that ``realised`` rests on: labels of
    older rows can tell of a loss, not that the newest rows do well. ``labels`` and ``joined`` are
    counted over the rows that labels were looked for. Raises nothing.
    """
    if drift is not None and drift.outcome is DriftOutcome.FAULT:
        return Finding.FAULT, drift.reason
    if odd := _odd_labels(labels):
        return Finding.FAULT, odd
    if drift is None:
        return Finding.INCONCLUSIVE, "there is nothing to compare"
    if not drift.rows:
        return Finding.INCONCLUSIVE, "the window has no rows"
    strangers = _labels_of_others(labels, joined)
    if not strangers:
        by_labels = _by_labels(drift, realised, unexplained, covered)
        if by_labels is not None:
            return by_labels
    finding, reason = _by_estimate(drift, estimated, unexplained if not strangers else None)
    return finding, f"{reason}; {strangers}" if strangers else reason


def drifted(drift: DriftVerdict | None) -> bool:
    """Whether inputs or predictions drifted, or are broken: else a trigger is by performance."""
    return drift is not None and drift.outcome in (DriftOutcome.DRIFTED, DriftOutcome.FAULT)


def _by_labels(
    drift: DriftVerdict,
    realised: PerformanceChange | None,
    unexplained: PerformanceChange | None,
    covered: float,
) -> Found | None:
    """None where labels don't tell."""
    if realised is None:
        return None
    surely_unexplained = unexplained is not None and unexplained.change == "worse"
    if realised.change == "inconclusive" and not (surely_unexplained and _counts(realised)):
        return None
    moved = drift.outcome is DriftOutcome.DRIFTED
    if realised.change in ("worse", "inconclusive"):
        loss = f"by labels, {realised.reason}"
        match unexplained.change if unexplained else None:
            case "worse":
                assert unexplained is not None
                return Finding.CONCEPT, f"{loss}; inputs don't explain it: {unexplained.reason}"
            case "as expected" | "better":
                return Finding.HARMFUL, f"{loss}, as the inputs explain; {drift.reason}"
        if moved:
            return Finding.HARMFUL, f"{loss}; {drift.reason}"
        if unexplained is not None:  # a second sign is looked for, and not there
            open_ = f"whether inputs explain it is open: {unexplained.reason}"
            return Finding.INCONCLUSIVE, f"{loss}; {open_}; {drift.reason}"
        if drift.outcome is DriftOutcome.STABLE:
            return Finding.CONCEPT, f"{loss}, and the inputs are as they were: {drift.reason}"
        return Finding.HARMFUL, f"{loss}; what changed can't be told: {drift.reason}"
    if covered < ENOUGH_COVERED:
        return None
    well = f"by labels, {realised.reason}"
    if moved:
        return Finding.BENIGN, f"{drift.reason}; {well}"
    return Finding.NONE, f"{drift.reason}; {well}"


def _counts(change: PerformanceChange) -> bool:
    """Whether it looks like a loss that counts, certain or not."""
    value, limit = change.evidence.value, change.evidence.limit
    return value is not None and limit is not None and value <= limit


def _by_estimate(
    drift: DriftVerdict, estimated: PerformanceChange | None, unexplained: PerformanceChange | None
) -> Found:
    change = estimated.change if estimated else "inconclusive"
    told = f"estimated, {estimated.reason}" if estimated else "nothing tells its performance"
    if unexplained is not None and unexplained.change == "worse":
        why = f"the estimate is not to be trusted: {unexplained.reason}"
        return Finding.INCONCLUSIVE, f"{drift.reason}; {why}"
    reason = f"{drift.reason}; {told}"
    if drift.outcome is DriftOutcome.DRIFTED:
        finding = {
            "worse": Finding.HARMFUL,
            "as expected": Finding.BENIGN,
            "better": Finding.BENIGN,
            "inconclusive": Finding.INCONCLUSIVE,
        }[change]
        return finding, reason
    if drift.outcome is DriftOutcome.STABLE and change != "worse":
        return Finding.NONE, drift.reason if change == "inconclusive" else reason
    return Finding.INCONCLUSIVE, reason


def _odd_labels(labels: LabelCounts | None) -> str:
    """Why the labels look broken; "" when they don't."""
    if labels is None or labels.labelled < _FEWEST_LABELS:
        return ""
    of = f"of {labels.labelled:,} labels"
    if labels.contradicted > MAX_ODD_LABELS * labels.labelled:
        return f"{labels.contradicted:,} {of} contradict another label of the same prediction"
    if labels.early > MAX_ODD_LABELS * labels.labelled:
        came = f"{labels.early:,} {of} came before what they tell of had happened"
        return f"{came}: a clock is wrong, or they are of something else"
    return ""


def _labels_of_others(labels: LabelCounts | None, joined: JoinCounts | None) -> str:
    """Why the labels may be of other predictions; "" when they are not. Most of them being unknown
    is no fault where the source of labels covers more than was predicted; predictions then have
    their labels all the same."""
    if labels is None or joined is None or joined.unknown <= joined.labels / 2:
        return ""
    coverage = labels.coverage
    if coverage is None or coverage >= 0.5:
        return ""
    stray = f"{joined.unknown:,} of {joined.labels:,} labels are of no prediction"
    return (
        f"labels are not used: {stray}, and {percent(coverage)} of the predictions that are due "
        "have one"
    )
