"""Which policy a backtest recommends: more retraining only where it bought more, beyond noise.

Policies are compared step by step, each step's rows being the same for both. What is resampled are
steps, not rows: rows of one time are alike, and what one week shows the next mostly shows too. So
stretches of steps are drawn, from a history closed to a circle (Politis and Romano, A circular
block-resampling procedure for stationary data, 1992), as long as the cube root of their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np

from perennial.contracts.backtest import Choice, Difference, PolicyResult
from perennial.decisions.wording import figure, percent

FEWEST_STEPS = 8
"""Of fewer nothing is certain."""
CONFIDENCE = 0.95
LEAST_GAIN = 0.01
"""The gain that counts, as a share of the metric's distance from perfect: of a ROC AUC of 0.70 it
is 0.003, of a logloss of 0.40 it is 0.004. A smaller one may be certain, and still not worth it."""
_REPLICATES = 2000


def mean_metric(values: Sequence[float | None], rows: Sequence[int]) -> float | None:
    """The mean of the steps that have a value, weighed by their rows; None where none has."""
    known = [(value, n) for value, n in zip(values, rows, strict=True) if value is not None]
    total = sum(n for _, n in known)
    return sum(value * n for value, n in known) / total if total else None


def difference(
    one: PolicyResult,
    other: PolicyResult,
    rows: Sequence[int],
    *,
    greater_is_better: bool,
    seed: int,
) -> Difference:
    """How much better ``one`` is than ``other``, with one-sided bounds at 95 % each."""
    sign = 1.0 if greater_is_better else -1.0
    pairs = [
        (sign * (a - b), n)
        for a, b, n in zip(one.values, other.values, rows, strict=True)
        if a is not None and b is not None
    ]
    gains, weights = np.array([g for g, _ in pairs]), np.array([n for _, n in pairs], float)
    low = high = None
    if len(pairs) >= FEWEST_STEPS:
        drawn = _circular_blocks(len(pairs), seed)
        means = (gains * weights)[drawn].sum(axis=1) / weights[drawn].sum(axis=1)
        low, high = map(float, np.quantile(means, [1 - CONFIDENCE, CONFIDENCE]))
    gain = float(gains @ weights / weights.sum()) if pairs else 0.0
    distance = abs((1.0 if greater_is_better else 0.0) - (other.metric or 0.0))
    return Difference(
        policy=one.policy,
        against=other.policy,
        gain=gain,
        low=low,
        high=high,
        confidence=CONFIDENCE,
        steps=int(np.count_nonzero(gains)),
        counts=low is not None and low > 0 and gain >= LEAST_GAIN * distance,
    )


def _circular_blocks(n: int, seed: int) -> np.ndarray:
    """Places of n steps, (replicates, n)."""
    length = max(1, round(n ** (1 / 3)))
    blocks = -(-n // length)
    starts = np.random.default_rng(seed).integers(0, n, (_REPLICATES, blocks))
    places = (starts[:, :, None] + np.arange(length)) % n
    drawn: np.ndarray = places.reshape(_REPLICATES, -1)[:, :n]
    return drawn


def front(results: Sequence[PolicyResult], *, greater_is_better: bool) -> list[PolicyResult]:
    """The policies that no other beats in metric without costing more, the cheapest first.

    Cost is rows read, which is the same in every run; of equal ones the one with fewer retrainings,
    and then the first given.
    """
    sign = 1.0 if greater_is_better else -1.0
    found: list[PolicyResult] = []
    for result in sorted(results, key=lambda r: (_cost(r), -sign * (r.metric or 0.0))):
        if result.metric is None:
            continue
        best = found[-1].metric if found else None
        if best is None or sign * result.metric > sign * best:
            found.append(result)
    return found


def _cost(result: PolicyResult) -> tuple[int, int]:
    return result.rows, len(result.attempts)


def choose(
    metric: str,
    results: Sequence[PolicyResult],
    rows: Sequence[int],
    *,
    greater_is_better: bool,
    seed: int,
) -> Choice:
    """The cheapest policy of the front that no policy is better than, certainly and by a gain that
    counts.

    ``results`` have different policies, and as many values as ``rows``; the first of them is what
    is left to recommend when nothing was measured.
    """
    differences = [
        difference(one, other, rows, greater_is_better=greater_is_better, seed=seed)
        for one, other in permutations(results, 2)
    ]
    on_front = front(results, greater_is_better=greater_is_better)
    beaten = {d.against for d in differences if d.counts}
    chosen = next((r for r in on_front if r.policy not in beaten), results[0])
    against = [d for d in differences if d.policy == chosen.policy]
    order = {result.policy: place for place, result in enumerate(results)}
    return Choice(
        policy=chosen.policy,
        reason=_reason(metric, chosen, results, against),
        front=tuple(result.policy for result in on_front),
        differences=tuple(d for d in differences if order[d.policy] > order[d.against]),
    )


def _reason(
    metric: str,
    chosen: PolicyResult,
    results: Sequence[PolicyResult],
    differences: Sequence[Difference],
) -> str:
    """One sentence about the chosen policy, and one about each other."""
    if chosen.metric is None:
        return f"{metric} could not be measured in any step"
    told = [f"{metric} {figure(chosen.metric)} with {_trainings(len(chosen.attempts))}"]
    by_policy = {result.policy: result for result in results}
    for d in differences:
        told.append(_beside(d, chosen, by_policy[d.against]))
    return "; ".join(told)


def _beside(d: Difference, chosen: PolicyResult, other: PolicyResult) -> str:
    if not d.steps:
        cost = "at the same cost" if _cost(chosen) == _cost(other) else _at(other, chosen)
        return f"{d.against} would have served the same {cost}"
    if d.low is None or d.high is None:
        return f"{d.against} can't be told apart in fewer than {FEWEST_STEPS} steps"
    sure = percent(d.confidence)
    if d.low > 0:
        return f"better than {d.against} by {figure(d.gain)} ({sure} at least {figure(d.low)})"
    bounds = f"{sure} each: {_signed(0.0 - d.high)} to {_signed(0.0 - d.low)}"
    gain = f"gain {_signed(0.0 - d.gain)} ({bounds})"
    beyond = "gains too little to count" if d.high < 0 else "is not certainly better"
    return f"{d.against}, {_at(other, chosen)}, {beyond}: {gain}"


def _at(other: PolicyResult, chosen: PolicyResult) -> str:
    """What the other costs."""
    if not (other.rows and chosen.rows):
        return f"with {_trainings(len(other.attempts))}"
    return f"at {figure(other.rows / chosen.rows, 2)} times the rows"


def _signed(value: float) -> str:
    return f"+{figure(value)}" if value > 0 else figure(value)


def _trainings(count: int) -> str:
    return f"{count or 'no'} retraining{'' if count == 1 else 's'}"
