"""Whether a candidate may go on: each gate's verdict from what was measured, and the worst of them.

A rule passes only on evidence for it. What was not measured, or is too uncertain to tell, is
inconclusive; what could not be measured because the measuring itself broke is an error. Neither
passes. A confidence is one-sided, in gates and in ``Evidence``: of ``low`` and of ``high``, each
taken alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isclose, isfinite
from statistics import NormalDist
from typing import Literal, Protocol

from perennial.contracts.verdicts import (
    Comparison,
    Estimate,
    Evidence,
    Judgement,
    Outcome,
    ServingCheck,
    SliceEstimate,
    Verdict,
)
from perennial.decisions.wording import figure, listed, percent, shortened, unlike
from perennial.spec.gates import Beats, Floor, Gate, Latency, Slices

_WORST_FIRST = (Outcome.ERROR, Outcome.FAILED, Outcome.INCONCLUSIVE, Outcome.PASSED)
_NOT_RUN = "the check in a fresh process could not be run"
_WAY_OUT = (
    "wait for newer rows or train as of a later moment, or leave this gate out of model.yaml until "
    "a version with this split has taken over"
)


class Measured(Protocol):
    """``perennial.learning.evaluation.Measurement``, as far as gates ask; what could not be
    measured is absent from it."""

    @property
    def estimates(self) -> Sequence[Estimate]: ...
    @property
    def comparisons(self) -> Sequence[Comparison]: ...
    @property
    def slices(self) -> Sequence[SliceEstimate]: ...
    @property
    def floors(self) -> Mapping[Floor, Estimate]: ...
    @property
    def levels(self) -> Mapping[str, Mapping[str, int]]: ...


def judge(
    gates: Sequence[Gate],
    found: Measured,
    *,
    serving: ServingCheck | None,
    has_champion: bool,
    unread: str = "",
    left_out: str = "",
    probed: bool = True,
) -> Judgement:
    """The verdicts of all gates and of the serving check, in this order, and what they come to.

    ``serving`` is None when its probe could not be run. ``has_champion``: a version serves now,
    whether or not the candidate could be compared with it; ``unread`` says why it could not predict
    these rows, ``left_out`` on how many of them the two were not compared, and why ("the 3 rows
    that version 1 was fitted to"). Not ``probed``: the candidate is judged as one of the past that
    nobody will serve, so what only a fresh process tells, latency and the serving check, is not
    asked.
    """
    if not probed:
        asked = [gate for gate in gates if not isinstance(gate, Latency)]
        if gates and not asked:
            reason = "passed: every gate is about serving, which was not asked"
            return Judgement(outcome=Outcome.PASSED, reason=reason, verdicts=())
        gates = asked
    verdicts = []
    for gate in gates:
        match gate:
            case Floor():
                verdicts.append(_floor(gate, found.estimates, found.floors))
            case Beats():
                verdicts.append(_beats(gate, found.comparisons, has_champion, unread, left_out))
            case Slices():
                verdicts.append(_slices(gate, found, has_champion, unread, left_out))
            case Latency():
                verdicts.append(_latency(gate, serving))
    if not gates:
        reason = "model.yaml has no gates, so nothing was asked of the candidate: add some"
        verdicts.append(_inconclusive(Evidence(rule="gates"), reason))
    if probed:
        verdicts += [_loads(serving), _identical(serving)]
    outcome = next(o for o in _WORST_FIRST if any(v.outcome is o for v in verdicts))
    return Judgement(
        outcome=outcome, reason=_summary(outcome, gates, verdicts), verdicts=tuple(verdicts)
    )


def _summary(outcome: Outcome, gates: Sequence[Gate], verdicts: Sequence[Verdict]) -> str:
    """One sentence: what decided, in figures, and which other checks did not pass."""
    if outcome is Outcome.PASSED:
        beaten = (v for g, v in zip(gates, verdicts, strict=False) if isinstance(g, Beats))
        telling = next((v for v in beaten if v.evidence.n), verdicts[0])
        return f"passed all {len(verdicts)} checks: {telling.reason}"
    decided = next(v for v in verdicts if v.outcome is outcome)
    others = [v for v in verdicts if v.outcome is not Outcome.PASSED and v is not decided]
    more = "".join(f"; {v.outcome}: {v.evidence.rule}" for v in others)
    return f"{outcome}: {decided.reason}{more}"


def _floor(gate: Floor, estimates: Sequence[Estimate], floors: Mapping[Floor, Estimate]) -> Verdict:
    """Without a confidence the estimate decides, otherwise the bound on its unfavourable side."""
    limit, sign, asked, beyond = (
        (gate.min, 1, "at least", "below")
        if gate.min is not None
        else (gate.max, -1, "at most", "above")
    )
    assert limit is not None
    rule = f"{gate.metric} {asked} {figure(limit)}"
    if gate.confidence is None:
        found = next((e for e in estimates if e.metric == gate.metric), None)
    else:
        rule += f" at {percent(gate.confidence)} confidence"
        found = floors.get(gate)
    evidence = Evidence(rule=rule, limit=limit, confidence=gate.confidence)
    if found is None:
        return _inconclusive(evidence, f"{gate.metric} could not be measured on these rows")
    evidence = evidence.model_copy(update={"value": found.value, "n": found.n})
    worst = best = found.value
    if gate.confidence is not None:
        evidence = evidence.model_copy(update={"low": found.low, "high": found.high})
        worst, best = (found.low, found.high)[::sign]
    if found.n < gate.min_rows:
        return _few_rows(evidence, f"{gate.metric} {figure(found.value)}", gate.min_rows)

    def measured(bound: float, side: str) -> str:
        text = f"{gate.metric} {unlike(found.value, limit)}"
        if gate.confidence is None:
            return text
        return f"{text} ({percent(gate.confidence)} {side} {unlike(bound, limit)})"

    on = f"{figure(limit)} on {found.n:,} rows"
    if sign * (worst - limit) >= 0:
        return _passed(evidence, f"{measured(worst, asked)} is {asked} {on}")
    if sign * (best - limit) < 0:
        other = "at most" if sign == 1 else "at least"
        return _failed(evidence, f"{measured(best, other)} is {beyond} {on}")
    return _inconclusive(evidence, f"{measured(worst, asked)} is not clearly {asked} {on}")


def _beats(
    gate: Beats, comparisons: Sequence[Comparison], has_champion: bool, unread: str, left_out: str
) -> Verdict:
    """Passed when the lower bound of the gain is above the limit, failed when the upper is below;
    between them the rows can't tell."""
    rule, without = f"beats champion on {gate.metric}", _without(left_out)
    evidence = Evidence(
        rule=rule, limit=gate.min_gain, confidence=gate.confidence, detail=without.strip(", ")
    )
    if not has_champion:
        return _first_version(evidence, gate.first_version)
    found = next(
        (
            c
            for c in comparisons
            if c.metric == gate.metric and isclose(c.confidence, gate.confidence, rel_tol=1e-9)
        ),
        None,
    )
    if found is None:
        on = f"without {left_out} ({_WAY_OUT})" if left_out else "on these rows"
        why = unread or f"the two could not be compared {on}"
        return _inconclusive(evidence, f"{rule}: {why}")
    evidence = evidence.model_copy(
        update={"value": found.gain, "low": found.low, "high": found.high, "n": found.n}
    )
    limit, sure = gate.min_gain, percent(gate.confidence)
    gain = f"{rule}: gain {unlike(found.gain, limit)}"
    if found.n < gate.min_rows:
        return _few_rows(evidence, gain, gate.min_rows, left_out)
    least, most = f"at least {unlike(found.low, limit)}", f"at most {unlike(found.high, limit)}"
    on = f"{figure(limit)} on {found.n:,} rows{without}"
    if found.low > limit:
        return _passed(evidence, f"{gain} ({sure} {least}) exceeds {on}")
    if found.high < limit:
        return _failed(evidence, f"{gain} ({sure} {most}) does not exceed {on}")
    return _inconclusive(evidence, f"{gain} ({sure} {least}) does not clearly exceed {on}")


def _slices(
    gate: Slices, found: Measured, has_champion: bool, unread: str, left_out: str
) -> Verdict:
    """Failed when some slice is surely worse than allowed.

    With m slices to judge, each bound is taken at confidence 1 - (1 - confidence) / m (Bonferroni;
    for "is any slice worse" Holm's first step is the same). So of models that are nowhere worse
    than allowed at most 1 - confidence are refused, however many slices there are.
    """
    rule = f"slices of {listed(gate.slices)} on {gate.metric}"
    evidence = Evidence(rule=rule, limit=gate.max_regression, confidence=gate.confidence)
    if not has_champion:
        return _first_version(evidence, gate.first_version)
    if unread:
        return _inconclusive(evidence, f"{rule}: {unread}")
    levels = found.levels
    if unknown := [column for column in gate.slices if column not in levels]:
        return _inconclusive(evidence, f"{rule}: {listed(unknown)} was not measured")
    present = {(c, level): n for c in gate.slices for level, n in levels[c].items()}
    judged = {key for key, n in present.items() if n >= gate.min_rows}
    if not judged:
        asked = f"has the {gate.min_rows:,} rows asked for"
        none = f"none of {len(present)} slices {asked}{_stuck(left_out)}"
        return _inconclusive(evidence, f"{rule}: {none}")

    limit, confidence = gate.max_regression, 1 - (1 - gate.confidence) / len(judged)
    losses = {
        (s.column, s.level): _loss(evidence, s, s.comparison, confidence)
        for s in found.slices
        if s.comparison is not None and s.comparison.metric == gate.metric
        if (s.column, s.level) in judged and isfinite(s.comparison.low + s.comparison.high)
    }
    low, loss = max(losses.values(), key=lambda loss: loss[0], default=(-inf, evidence))
    if low > limit:
        bound = f"({percent(confidence)} at least {unlike(low, limit)})"
        over = f"above the {figure(limit)} allowed on {loss.n:,} rows{_without(left_out)}"
        return _failed(loss, f"{rule}: {_told(loss)} {bound}, {over}")
    if missing := sorted(judged - losses.keys()):
        example = f"such as {missing[0][0]}={shortened(missing[0][1])}"
        reason = f"{len(missing)} of {len(judged)} could not be compared, {example}"
        return _inconclusive(evidence, f"{rule}: {reason}{_without(left_out)}")
    none = f"none of {len(judged)} is clearly worse by more than {figure(limit)}"
    on = f"{loss.n:,} rows{_without(left_out)}"
    return _passed(loss, f"{rule}: {none}; nearest {_told(loss)} on {on}")


def _loss(
    evidence: Evidence, found: SliceEstimate, comparison: Comparison, confidence: float
) -> tuple[float, Evidence]:
    """The lower bound of what a slice loses, moved to a confidence as a normal interval's is."""
    normal = NormalDist()
    reach = normal.inv_cdf(confidence) / normal.inv_cdf(comparison.confidence)
    half = reach * (comparison.high - comparison.low) / 2
    loss = 0.0 - comparison.gain  # not -gain: a loss of nothing reads 0, not -0
    low, high = loss - half, loss + half
    return low, evidence.model_copy(
        update={
            "value": loss,
            "low": low,
            "high": high,
            "confidence": confidence,
            "n": comparison.n,
            "detail": f"{found.column}={shortened(found.level)}",
        }
    )


def _told(loss: Evidence) -> str:
    value, limit = loss.value or 0.0, loss.limit or 0.0
    return f"{loss.detail} {'loses' if value >= 0 else 'gains'} {unlike(abs(value), limit)}"


def _latency(gate: Latency, serving: ServingCheck | None) -> Verdict:
    limit = gate.p99_ms
    rule = f"p99 latency at most {figure(limit)} ms"
    evidence = Evidence(rule=rule, limit=limit)
    if serving is None:
        return _error(evidence, f"{rule}: {_NOT_RUN}")
    if serving.p99_ms is None or not isfinite(serving.p99_ms):
        return _inconclusive(evidence, f"{rule}: it was not measured")
    evidence = evidence.model_copy(update={"value": serving.p99_ms})
    taken = f"{rule}: a one-row request took {unlike(serving.p99_ms, limit)} ms"
    if serving.p99_ms <= limit:
        return _passed(evidence, taken)
    return _failed(evidence, f"{taken}, too long")


def _loads(serving: ServingCheck | None) -> Verdict:
    evidence = Evidence(rule="serving: loads")
    if serving is None:
        return _error(evidence, f"serving: {_NOT_RUN}")
    if not serving.loaded:
        why = f": {serving.error}" if serving.error else ""
        return _failed(evidence, f"the bundle does not load in a fresh process{why}")
    return _passed(evidence, "the bundle loads in a fresh process")


def _identical(serving: ServingCheck | None) -> Verdict:
    evidence = Evidence(rule="serving: identical predictions")
    if serving is None:
        return _error(evidence, f"predictions: {_NOT_RUN}")
    evidence = evidence.model_copy(
        update={"limit": 0.0, "value": serving.max_abs_difference, "n": serving.rows}
    )
    if serving.identical is None or serving.rows == 0:
        reason = "predictions of training and serving could not be compared"
        return _inconclusive(evidence, f"{reason}: {serving.error}" if serving.error else reason)
    if serving.identical:
        return _passed(evidence, f"{serving.rows:,} rows predict alike bit for bit when served")
    apart = serving.max_abs_difference
    by = "" if apart is None else f" by up to {figure(apart)}"
    reason = f"predictions when served differ from training{by} on {serving.rows:,} rows"
    return _failed(evidence, f"{reason}: {serving.error}" if serving.error else reason)


def _first_version(evidence: Evidence, first_version: Literal["passed", "inconclusive"]) -> Verdict:
    none = f"{evidence.rule}: there is no champion yet"
    if first_version == "passed":
        return _passed(evidence, f"{none}, which first_version lets pass")
    return _inconclusive(evidence, f"{none}; first_version: passed lets the first version in")


def _few_rows(evidence: Evidence, measured: str, min_rows: int, left_out: str = "") -> Verdict:
    rows = f"{evidence.n:,} rows, fewer than the {min_rows:,} asked for{_stuck(left_out)}"
    return _inconclusive(evidence, f"{measured} rests on {rows}")


def _without(left_out: str) -> str:
    return f", without {left_out}" if left_out else ""


def _stuck(left_out: str) -> str:
    """The same where too few rows are left, with the way out."""
    return f"{_without(left_out)} ({_WAY_OUT})" if left_out else ""


def _passed(evidence: Evidence, reason: str) -> Verdict:
    return Verdict(outcome=Outcome.PASSED, reason=reason, evidence=evidence)


def _failed(evidence: Evidence, reason: str) -> Verdict:
    return Verdict(outcome=Outcome.FAILED, reason=reason, evidence=evidence)


def _inconclusive(evidence: Evidence, reason: str) -> Verdict:
    return Verdict(outcome=Outcome.INCONCLUSIVE, reason=reason, evidence=evidence)


def _error(evidence: Evidence, reason: str) -> Verdict:
    return Verdict(outcome=Outcome.ERROR, reason=reason, evidence=evidence)
