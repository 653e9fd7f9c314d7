"""What the tables of an evaluation say, in words and figures, for the page and for Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from perennial.contracts.metrics import METRICS
from perennial.contracts.verdicts import (
    Comparison,
    EvaluationReport,
    Outcome,
    SliceEstimate,
    Verdict,
)
from perennial.reports.figures import Ranged, alike, moment, number, percent, ranged

SIGNS = {
    Outcome.PASSED: "✓",
    Outcome.FAILED: "✗",
    Outcome.INCONCLUSIVE: "?",
    Outcome.ERROR: "!",
}


class GateRow(NamedTuple):
    """``reason`` doesn't repeat the rule. ``measured`` and ``bounds`` are empty where the rule
    looked at no figure, or at no bounds."""

    outcome: Outcome
    rule: str
    reason: str
    measured: str
    bounds: str
    limit: str
    n: str


class MetricRow(NamedTuple):
    """A metric on all rows, or (``column``, ``level``) on those of a slice.

    ``scale`` is how far a drawing of the comparison reaches.
    """

    metric: str
    better: str
    n: int
    candidate: Ranged
    column: str = ""
    level: str = ""
    champion: str = ""
    gain: Ranged | None = None
    comparison: Comparison | None = None
    scale: float = 0.0


def gate_row(verdict: Verdict) -> GateRow:
    e = verdict.evidence
    measured, bounds = "" if e.value is None else number(e.value), ""
    if e.value is not None and e.low is not None and e.high is not None:
        text = ranged(e.value, e.low, e.high)
        measured, bounds = text.value, f"{text.low} to {text.high}"
    limit = "" if e.limit is None else number(e.limit)
    rows = f"{e.n:,}" if e.n else ""
    reason = verdict.reason.removeprefix(f"{e.rule}: ")
    return GateRow(verdict.outcome, e.rule, reason, measured, bounds, limit, rows)


def metric_rows(report: EvaluationReport) -> Iterator[MetricRow]:
    """Every metric that was estimated; of several comparisons of one the first."""
    for e in report.estimates:
        row = MetricRow(
            metric=e.metric,
            better="higher" if METRICS[e.metric].greater_is_better else "lower",
            n=e.n,
            candidate=ranged(e.value, e.low, e.high),
        )
        compared = next((c for c in report.comparisons if c.metric == e.metric), None)
        yield row if compared is None else _compared(row, compared, 1.15 * _reach(compared))


def slice_rows(report: EvaluationReport) -> Iterator[MetricRow]:
    """Every slice, what lost most first; those without a comparison last. The drawings of a
    metric share their scale."""
    reaches: dict[str, list[float]] = {}
    for s in report.slices:
        if s.comparison is not None:
            reaches.setdefault(s.estimate.metric, []).append(_reach(s.comparison))
    # Tiny slices reach far and would press the others together: they may end at the edge.
    scales = {m: 1.15 * sorted(r)[3 * (len(r) - 1) // 4] for m, r in reaches.items()}
    for s in sorted(report.slices, key=_gain_or_last):
        e = s.estimate
        row = MetricRow(
            metric=e.metric,
            better="higher" if METRICS[e.metric].greater_is_better else "lower",
            n=e.n,
            candidate=ranged(e.value, e.low, e.high),
            column=s.column,
            level=s.level,
        )
        yield row if s.comparison is None else _compared(row, s.comparison, scales[e.metric])


def importance_rows(report: EvaluationReport) -> list[tuple[str, str, float]]:
    """Feature, its share of the whole gain, and its length beside the longest; largest first."""
    total = sum(report.importance.values()) or 1.0
    ranked = sorted(report.importance.items(), key=lambda item: (-item[1], item[0]))
    longest = (ranked[0][1] if ranked else 0.0) or 1.0
    return [(name, percent(gain / total), gain / longest) for name, gain in ranked]


def window(report: EvaluationReport) -> str:
    """The event times of the holdout; empty where events have no time."""
    if report.holdout_start is None or report.holdout_end is None:
        return ""
    return f"{moment(report.holdout_start)} to {moment(report.holdout_end)} UTC"


def _compared(row: MetricRow, comparison: Comparison, scale: float) -> MetricRow:
    return row._replace(
        champion=alike(comparison.champion, row.candidate.value),
        gain=ranged(comparison.gain, comparison.low, comparison.high, sign=True),
        comparison=comparison,
        scale=scale,
    )


def _gain_or_last(found: SliceEstimate) -> float:
    return found.comparison.gain if found.comparison is not None else float("inf")


def _reach(comparison: Comparison) -> float:
    return max(abs(comparison.low), abs(comparison.high))
