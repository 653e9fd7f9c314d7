"""Whether a version does as well as was expected of it: one metric, observed against expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot, isfinite

from perennial.contracts.metrics import METRICS
from perennial.contracts.performance import Change, PerformanceChange
from perennial.contracts.verdicts import Estimate, Evidence
from perennial.decisions.wording import counted, figure, percent, unlike

MAX_RISE = 0.1
"""The rise of a metric's distance from perfect that counts, as a share: of a logloss of 0.40 to
0.44, of an accuracy of 0.90 to 0.89."""
MIN_ROWS = 100
MIN_RARER = 30
"""Labels of a classifier's rarer classes: of fewer, a bootstrap's intervals are too narrow, however
many rows they are among."""


@dataclass(frozen=True)
class Rarer:
    """How many labels are not of the commonest class, where labels are classes; None: not known, or
    a regression. ``production`` counts those that an observed metric rests on, ``holdout`` those
    that what was promised or estimated rests on."""

    production: int | None = None
    holdout: int | None = None


def against_promise(
    metric: str,
    observed: Sequence[Estimate],
    promised: Sequence[Estimate],
    *,
    rarer: Rarer = Rarer(),
    max_rise: float = MAX_RISE,
    min_rows: int = MIN_ROWS,
    confidence: float = 0.95,
) -> PerformanceChange:
    """A version's metric in production, realised or estimated, against its evaluation's.

    ``observed`` and ``promised`` are of different rows, with two-sided intervals at ``confidence``;
    a promise known without its interval has ``low == value == high``. The interval of their
    difference puts the two together by the method of variance estimates recovery (Zou and Donner,
    Statistics in Medicine 27, 2008), which needs no symmetry. *Worse* is surely a loss, and one
    that counts; *as expected* is surely no loss that counts; *better* is surely a gain, and one
    that counts. What lies between, or rests on fewer than ``min_rows`` rows or on fewer than 30
    labels of the rarer classes, is inconclusive.
    """
    return _compared(
        f"{metric} as promised", metric, observed, promised, rarer,
        (max_rise, min_rows, confidence), "promised",
    )  # fmt: skip


def unexplained(
    metric: str,
    realised: Sequence[Estimate],
    estimated: Sequence[Estimate],
    *,
    rarer: Rarer = Rarer(),
    max_rise: float = MAX_RISE,
    min_rows: int = MIN_ROWS,
    confidence: float = 0.95,
) -> PerformanceChange:
    """What labels say, against what the inputs alone led to expect, **on the same rows**.

    ``estimated`` comes from ``perennial.learning.estimation.estimate`` with ``fixed_rows``: where
    the realised metric will lie if labels follow from inputs as they did on the holdout. *Worse* is
    then **concept drift**: not who comes has changed but what they do. It is surely beyond the
    interval, and by a loss that counts. Rules as ``against_promise``; the realised value has no
    interval of its own here, its rows being the ones asked about.
    """
    exact = [e.model_copy(update={"low": e.value, "high": e.value}) for e in realised]
    return _compared(
        f"{metric} as inputs explain", metric, exact, estimated, rarer,
        (max_rise, min_rows, confidence), "estimated from the inputs",
    )  # fmt: skip


def _compared(
    rule: str,
    metric: str,
    observed: Sequence[Estimate],
    expected: Sequence[Estimate],
    rarer: Rarer,
    settings: tuple[float, int, float],
    by_whom: str,
) -> PerformanceChange:
    max_rise, min_rows, confidence = settings
    new, old = _of(metric, observed), _of(metric, expected)
    evidence = Evidence(rule=rule, confidence=confidence, n=new.n if new else 0)
    if new is None or old is None:
        lacking = "is not known in production" if new is None else f"was not {by_whom}"
        return _change("inconclusive", f"{metric} {lacking}", evidence, new, old)

    better = METRICS[metric].greater_is_better
    sign = 1.0 if better else -1.0
    gain = sign * (new.value - old.value)
    worst, best = (new.low, new.high) if better else (new.high, new.low)
    old_worst, old_best = (old.low, old.high) if better else (old.high, old.low)
    low = gain - hypot(worst - new.value, old_best - old.value)
    high = gain + hypot(best - new.value, old_worst - old.value)
    margin = max_rise * abs((1.0 if better else 0.0) - old.value)
    evidence = evidence.model_copy(
        update={"value": gain, "low": low, "high": high, "limit": -margin}
    )
    told = f"{metric} is {unlike(new.value, old.value)}, {figure(old.value)} was {by_whom}"
    on = f"on {new.n:,} rows"
    sure = f"{percent(confidence)}: {figure(low)} to {figure(high)}"
    if new.n < min_rows:
        few = f"{told}, but {on}, fewer than the {min_rows:,} asked for"
        return _change("inconclusive", few, evidence, new, old)
    for labels, whose in ((rarer.production, "from production"), (rarer.holdout, "of the holdout")):
        if labels is not None and labels < MIN_RARER:
            what = f"{counted(labels, 'label')} {whose} not of the commonest class"
            few = f"{told}, but on {what}, fewer than the {MIN_RARER} asked for"
            return _change("inconclusive", few, evidence, new, old)
    if high < 0 and gain <= -margin:
        reason = f"{told} {on}: worse by {figure(-gain)} (gain at {sure})"
        return _change("worse", reason, evidence, new, old)
    if low > 0 and gain >= margin:
        reason = f"{told} {on}: better by {figure(gain)} (gain at {sure})"
        return _change("better", reason, evidence, new, old)
    if low >= -margin:
        reason = f"{told} {on}: no loss of {figure(margin)} (gain at {sure})"
        return _change("as expected", reason, evidence, new, old)
    reason = f"{told} {on}: too few to tell a loss of {figure(margin)} (gain at {sure})"
    return _change("inconclusive", reason, evidence, new, old)


def _of(metric: str, estimates: Sequence[Estimate]) -> Estimate | None:
    found = next((e for e in estimates if e.metric == metric), None)
    return found if found and isfinite(found.value + found.low + found.high) else None


def _change(
    change: Change,
    reason: str,
    evidence: Evidence,
    observed: Estimate | None,
    expected: Estimate | None,
) -> PerformanceChange:
    return PerformanceChange(
        change=change, reason=reason, evidence=evidence, observed=observed, expected=expected
    )
