"""What holds of every judgement, whatever was measured."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.contracts.metrics import METRICS
from perennial.contracts.verdicts import (
    Comparison,
    Estimate,
    Judgement,
    Outcome,
    ServingCheck,
    SliceEstimate,
)
from perennial.decisions.gates import judge
from perennial.learning.evaluation import Measurement
from perennial.spec.gates import Beats, Floor, Latency, Slices

WORST_FIRST = [Outcome.ERROR, Outcome.FAILED, Outcome.INCONCLUSIVE, Outcome.PASSED]
NAMES = ("logloss", "roc_auc", "brier")
COLUMNS = ("origin", "carrier")
CONFIDENCES = (0.9, 0.95)

numbers = st.floats(-1, 1)
widths = st.floats(0, 0.5)
counts = st.integers(1, 400)
metrics = st.sampled_from(NAMES)
confidences = st.sampled_from(CONFIDENCES)
first_versions = st.sampled_from(["passed", "inconclusive"])


@st.composite
def floor_gates(draw: st.DrawFn) -> Floor:
    metric = draw(metrics)
    limit = "min" if METRICS[metric].greater_is_better else "max"
    confidence = draw(st.none() | confidences)
    return Floor(**{"metric": metric, limit: draw(numbers), "confidence": confidence})


gates = st.lists(
    floor_gates()
    | st.builds(
        Beats,
        beats=st.just("champion"),
        metric=metrics,
        min_gain=numbers,
        confidence=confidences,
        first_version=first_versions,
    )
    | st.builds(
        Slices,
        slices=st.sampled_from([("origin",), ("carrier", "origin")]),
        metric=metrics,
        max_regression=st.floats(0, 0.3),
        confidence=confidences,
        first_version=first_versions,
    )
    | st.builds(Latency, p99_ms=st.floats(0.1, 5)),
    max_size=5,
)


@st.composite
def estimates(draw: st.DrawFn, metric: str) -> Estimate:
    value, half = draw(numbers), draw(widths)
    return Estimate(metric=metric, value=value, low=value - half, high=value + half, n=draw(counts))


@st.composite
def comparisons(
    draw: st.DrawFn, metric: str, confidence: float, n: int | None = None
) -> Comparison:
    gain, half = draw(numbers), draw(widths)
    return Comparison(
        metric=metric,
        champion=0.5,
        challenger=0.5 + gain,
        gain=gain,
        low=gain - half,
        high=gain + half,
        confidence=confidence,
        n=draw(counts) if n is None else n,
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Any], dict[str, Any]]:
    """Gates, and all that could be measured for them."""
    chosen = draw(gates)
    sizes = {c: draw(st.lists(st.integers(150, 400), min_size=1, max_size=3)) for c in COLUMNS}
    levels = {c: {f"{c}{i}": n for i, n in enumerate(sizes[c])} for c in COLUMNS}
    measured = {
        "estimates": [draw(estimates(m)) for m in NAMES],
        "comparisons": [draw(comparisons(m, c)) for m in NAMES for c in CONFIDENCES],
        "slices": [
            SliceEstimate(
                column=column,
                level=level,
                estimate=draw(estimates(m)),
                comparison=draw(comparisons(m, 0.95, n)),
            )
            for column in COLUMNS
            for level, n in levels[column].items()
            for m in NAMES
        ],
        "floors": {
            gate: draw(estimates(gate.metric))
            for gate in chosen
            if isinstance(gate, Floor) and gate.confidence is not None
        },
        "levels": levels,
        "serving": ServingCheck(
            loaded=draw(st.booleans()),
            identical=draw(st.sampled_from([True, True, False])),
            rows=draw(st.integers(0, 2)),
            max_abs_difference=draw(st.none() | st.just(0.1)),
            p50_ms=0.1,
            p99_ms=draw(st.none() | st.floats(0.1, 5)),
        ),
        "has_champion": draw(st.sampled_from([True, True, True, False])),
    }
    return chosen, measured


def judged(chosen, *, serving, has_champion, **measured) -> Judgement:
    return judge(chosen, Measurement(**measured), serving=serving, has_champion=has_champion)


def without(draw: st.DataObject, measured: dict[str, Any]) -> dict[str, Any]:
    """The same with some of the evidence gone: measurements, the rows of a column, the probe."""

    def kept(items: list[Any]) -> list[Any]:
        return draw.draw(st.lists(st.sampled_from(items), unique_by=id)) if items else []

    left = {key: kept(measured[key]) for key in ("estimates", "comparisons", "slices")}
    left["slices"] = [
        s if draw.draw(st.booleans()) else s.model_copy(update={"comparison": None})
        for s in left["slices"]
    ]
    left["floors"] = dict(kept(list(measured["floors"].items())))
    left["levels"] = dict(kept(list(measured["levels"].items())))
    gone = draw.draw(st.sets(st.sampled_from(["probe", "identical", "p99_ms"])))
    serving = measured["serving"].model_copy(update=dict.fromkeys(gone - {"probe"}))
    left["serving"] = None if "probe" in gone else serving
    return {**measured, **left}


@settings(deadline=None, max_examples=100)
@given(cases(), st.data())
def test_removing_evidence_never_turns_a_refusal_into_a_pass(case, data):
    chosen, measured = case
    before = judged(chosen, **measured)
    after = judged(chosen, **without(data, measured))
    assert len(before.verdicts) == len(after.verdicts)
    for full, less in zip(before.verdicts, after.verdicts, strict=True):
        assert less.outcome is not Outcome.PASSED or full.outcome is Outcome.PASSED
    assert after.outcome is not Outcome.PASSED or before.outcome is Outcome.PASSED


@settings(deadline=None, max_examples=100)
@given(cases())
def test_the_outcome_is_the_worst_verdict_and_passing_needs_every_one(case):
    chosen, measured = case
    judgement = judged(chosen, **measured)
    outcomes = [v.outcome for v in judgement.verdicts]
    assert judgement.outcome is min(outcomes, key=WORST_FIRST.index)
    assert (judgement.outcome is Outcome.PASSED) == (set(outcomes) == {Outcome.PASSED})
    assert len(outcomes) == max(len(chosen), 1) + 2
    assert judgement.reason.startswith(str(judgement.outcome))
    assert judged(chosen, **measured) == judgement


def better(measured: dict[str, Any], by: float) -> dict[str, Any]:
    """Every value better by the same amount, intervals moved along."""

    def moved(e: Estimate) -> Estimate:
        step = by if METRICS[e.metric].greater_is_better else -by
        return e.model_copy(
            update={"value": e.value + step, "low": e.low + step, "high": e.high + step}
        )

    def gained(c: Comparison) -> Comparison:
        return c.model_copy(update={"gain": c.gain + by, "low": c.low + by, "high": c.high + by})

    serving = measured["serving"]
    if serving.p99_ms is not None:
        serving = serving.model_copy(update={"p99_ms": serving.p99_ms / (1 + by)})
    return {
        **measured,
        "estimates": [moved(e) for e in measured["estimates"]],
        "comparisons": [gained(c) for c in measured["comparisons"]],
        "slices": [
            s.model_copy(update={"comparison": gained(s.comparison)}) for s in measured["slices"]
        ],
        "floors": {gate: moved(e) for gate, e in measured["floors"].items()},
        "serving": serving,
    }


@settings(deadline=None, max_examples=100)
@given(cases(), st.floats(0, 2))
def test_a_better_value_never_gets_a_worse_verdict(case, by):
    chosen, measured = case
    before = judged(chosen, **measured)
    after = judged(chosen, **better(measured, by))
    for less, more in zip(before.verdicts, after.verdicts, strict=True):
        assert WORST_FIRST.index(more.outcome) >= WORST_FIRST.index(less.outcome)


@settings(deadline=None, max_examples=100)
@given(cases(), st.floats(1.01, 20))
def test_a_wider_interval_never_turns_a_refusal_into_a_pass(case, by):
    chosen, measured = case

    def wider(value: float, e: Any) -> Any:
        low, high = value - by * (value - e.low), value + by * (e.high - value)
        return e.model_copy(update={"low": low, "high": high})

    less_sure = {
        **measured,
        "comparisons": [wider(c.gain, c) for c in measured["comparisons"]],
        "floors": {gate: wider(e.value, e) for gate, e in measured["floors"].items()},
    }
    sure, unsure = judged(chosen, **measured), judged(chosen, **less_sure)
    assert unsure.outcome is not Outcome.PASSED or sure.outcome is Outcome.PASSED
