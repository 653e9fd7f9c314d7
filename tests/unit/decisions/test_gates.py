"""Each gate by a table: what was measured, the verdict, the sentence a person reads."""

from __future__ import annotations

import pytest

from perennial.contracts.verdicts import (
    Comparison,
    Estimate,
    Judgement,
    Outcome,
    ServingCheck,
    SliceEstimate,
    Verdict,
)
from perennial.decisions.gates import judge
from perennial.learning.evaluation import Measurement
from perennial.spec.gates import Beats, Floor, Latency, Slices

PASSED, FAILED = Outcome.PASSED, Outcome.FAILED
INCONCLUSIVE, ERROR = Outcome.INCONCLUSIVE, Outcome.ERROR

SERVING = ServingCheck(
    loaded=True, identical=True, rows=2000, max_abs_difference=0.0, p50_ms=0.4, p99_ms=1.25
)


def estimate(value, low=None, high=None, n=13_204, metric="roc_auc"):
    low, high = value if low is None else low, value if high is None else high
    return Estimate(metric=metric, value=value, low=low, high=high, n=n)


def comparison(gain, low, high, n=13_204, metric="logloss", confidence=0.95):
    return Comparison(
        metric=metric,
        champion=0.5,
        challenger=0.5 - gain,
        gain=gain,
        low=low,
        high=high,
        confidence=confidence,
        n=n,
    )


def sliced(level, gain, half, n=1000, column="origin", metric="logloss"):
    compared = comparison(gain, gain - half, gain + half, n=n, metric=metric)
    measured = estimate(0.5 - gain, n=n, metric=metric)
    return SliceEstimate(column=column, level=level, estimate=measured, comparison=compared)


def judged(
    *gates, serving=SERVING, has_champion=True, unread="", left_out="", probed=True, **measured
) -> Judgement:
    return judge(
        gates,
        Measurement(**measured),
        serving=serving,
        has_champion=has_champion,
        unread=unread,
        left_out=left_out,
        probed=probed,
    )


def first(*gates, **measured) -> Verdict:
    return judged(*gates, **measured).verdicts[0]


FLOOR = Floor(metric="roc_auc", min=0.65)
CEILING = Floor(metric="logloss", max=0.5)


@pytest.mark.parametrize(
    ("gate", "found", "outcome", "reason"),
    [
        (FLOOR, estimate(0.7123), PASSED, "roc_auc 0.7123 is at least 0.65 on 13,204 rows"),
        (FLOOR, estimate(0.65), PASSED, "roc_auc 0.65 is at least 0.65 on 13,204 rows"),
        (FLOOR, estimate(0.612), FAILED, "roc_auc 0.612 is below 0.65 on 13,204 rows"),
        (
            FLOOR,
            estimate(0.649999),
            FAILED,
            "roc_auc 0.649999 is below 0.65 on 13,204 rows",
        ),
        (
            FLOOR,
            estimate(0.9, n=49),
            INCONCLUSIVE,
            "roc_auc 0.9 rests on 49 rows, fewer than the 50 asked for",
        ),
        (FLOOR, estimate(float("nan")), INCONCLUSIVE, None),
        (
            FLOOR,
            estimate(0.9, metric="pr_auc"),
            INCONCLUSIVE,
            "roc_auc could not be measured on these rows",
        ),
        (
            CEILING,
            estimate(0.5, metric="logloss"),
            PASSED,
            "logloss 0.5 is at most 0.5 on 13,204 rows",
        ),
        (
            CEILING,
            estimate(0.51, metric="logloss"),
            FAILED,
            "logloss 0.51 is above 0.5 on 13,204 rows",
        ),
        (
            Floor(metric="rmse", max=1500),
            estimate(1612.4, metric="rmse"),
            FAILED,
            "rmse 1,612 is above 1,500 on 13,204 rows",
        ),
    ],
)
def test_a_floor_without_confidence_asks_the_estimate(gate, found, outcome, reason):
    verdict = first(gate, estimates=[found])
    assert verdict.outcome is outcome
    assert reason is None or verdict.reason == reason


SURE_FLOOR = Floor(metric="roc_auc", min=0.65, confidence=0.9)
SURE_CEILING = Floor(metric="logloss", max=0.5, confidence=0.9)


@pytest.mark.parametrize(
    ("gate", "found", "outcome", "reason"),
    [
        (
            SURE_FLOOR,
            estimate(0.7, 0.65, 0.75),
            PASSED,
            "roc_auc 0.7 (90 % at least 0.65) is at least 0.65 on 13,204 rows",
        ),
        (
            SURE_FLOOR,
            estimate(0.7, 0.64, 0.76),
            INCONCLUSIVE,
            "roc_auc 0.7 (90 % at least 0.64) is not clearly at least 0.65 on 13,204 rows",
        ),
        (
            SURE_FLOOR,
            estimate(0.6, 0.56, 0.65),
            INCONCLUSIVE,
            "roc_auc 0.6 (90 % at least 0.56) is not clearly at least 0.65 on 13,204 rows",
        ),
        (
            SURE_FLOOR,
            estimate(0.6, 0.56, 0.64),
            FAILED,
            "roc_auc 0.6 (90 % at most 0.64) is below 0.65 on 13,204 rows",
        ),
        (
            SURE_CEILING,
            estimate(0.48, 0.47, 0.49, metric="logloss"),
            PASSED,
            "logloss 0.48 (90 % at most 0.49) is at most 0.5 on 13,204 rows",
        ),
        (
            SURE_CEILING,
            estimate(0.49, 0.47, 0.51, metric="logloss"),
            INCONCLUSIVE,
            "logloss 0.49 (90 % at most 0.51) is not clearly at most 0.5 on 13,204 rows",
        ),
        (
            SURE_CEILING,
            estimate(0.53, 0.51, 0.55, metric="logloss"),
            FAILED,
            "logloss 0.53 (90 % at least 0.51) is above 0.5 on 13,204 rows",
        ),
    ],
)
def test_a_floor_with_confidence_asks_the_bound_on_the_unfavourable_side(
    gate, found, outcome, reason
):
    verdict = first(gate, floors={gate: found})
    assert (verdict.outcome, verdict.reason) == (outcome, reason)
    assert verdict.evidence.confidence == 0.9
    assert (verdict.evidence.low, verdict.evidence.high) == (found.low, found.high)


def test_a_floor_with_confidence_is_not_satisfied_by_an_estimate_at_another_confidence():
    assert first(SURE_FLOOR, estimates=[estimate(0.9)]).outcome is INCONCLUSIVE
    other = SURE_FLOOR.model_copy(update={"confidence": 0.8})
    assert first(SURE_FLOOR, floors={other: estimate(0.9)}).outcome is INCONCLUSIVE


BEATS = Beats(beats="champion", metric="logloss")


@pytest.mark.parametrize(
    ("gate", "found", "outcome", "reason"),
    [
        (
            BEATS,
            comparison(0.0123, 0.0051, 0.02),
            PASSED,
            "beats champion on logloss: gain 0.0123 (95 % at least 0.0051) exceeds 0 "
            "on 13,204 rows",
        ),
        (
            BEATS,
            comparison(-0.0123, -0.02, -0.0051),
            FAILED,
            "beats champion on logloss: gain -0.0123 (95 % at most -0.0051) does not exceed 0 "
            "on 13,204 rows",
        ),
        (
            BEATS,
            comparison(0.0012, -0.001, 0.0034),
            INCONCLUSIVE,
            "beats champion on logloss: gain 0.0012 (95 % at least -0.001) does not clearly "
            "exceed 0 on 13,204 rows",
        ),
        (BEATS, comparison(0.0, 0.0, 0.0), INCONCLUSIVE, None),
        (
            BEATS.model_copy(update={"min_gain": -0.01}),
            comparison(-0.001, -0.004, 0.002),
            PASSED,
            None,
        ),
        (
            BEATS,
            comparison(0.3, 0.2, 0.4, n=20),
            INCONCLUSIVE,
            "beats champion on logloss: gain 0.3 rests on 20 rows, fewer than the 50 asked for",
        ),
        (
            BEATS,
            comparison(0.3, 0.2, 0.4, confidence=0.9),
            INCONCLUSIVE,
            "beats champion on logloss: the two could not be compared on these rows",
        ),
        (BEATS, comparison(0.3, 0.2, 0.4, metric="brier"), INCONCLUSIVE, None),
        (BEATS, comparison(*[float("nan")] * 3), INCONCLUSIVE, None),
    ],
)
def test_a_champion_is_beaten_when_the_lower_bound_of_the_gain_exceeds_the_limit(
    gate, found, outcome, reason
):
    verdict = first(gate, comparisons=[found])
    assert verdict.outcome is outcome
    assert reason is None or verdict.reason == reason


@pytest.mark.parametrize(
    ("first_version", "outcome", "reason"),
    [
        ("passed", PASSED, "there is no champion yet, which first_version lets pass"),
        (
            "inconclusive",
            INCONCLUSIVE,
            "there is no champion yet; first_version: passed lets the first version in",
        ),
    ],
)
def test_without_a_champion_first_version_decides(first_version, outcome, reason):
    beats = BEATS.model_copy(update={"first_version": first_version})
    slices = SLICES.model_copy(update={"first_version": first_version})
    for gate, rule in (
        (beats, "beats champion on logloss"),
        (slices, "slices of origin on logloss"),
    ):
        verdict = first(gate, has_champion=False)
        assert (verdict.outcome, verdict.reason) == (outcome, f"{rule}: {reason}")


SLICES = Slices(slices=("origin",), metric="logloss", max_regression=0.02)


@pytest.mark.parametrize(
    ("gate", "rule"),
    [(BEATS, "beats champion on logloss"), (SLICES, "slices of origin on logloss")],
)
def test_a_champion_that_cannot_read_the_rows_leaves_its_gates_inconclusive_and_says_why(
    gate, rule
):
    why = "version 1 can't read these rows: model.yaml no longer has w"
    judgement = judged(gate, unread=why, levels={"origin": {"JFK": 1000}})
    assert judgement.outcome is INCONCLUSIVE
    assert judgement.reason == f"inconclusive: {rule}: {why}"


LEVELS = {"origin": {"EWR": 1000, "JFK": 1000, "LGA": 1000, "tiny": 12}}
GOOD = (sliced("EWR", 0.01, 0.01), sliced("JFK", 0.0, 0.01), sliced("LGA", -0.01, 0.005))


def test_slices_pass_when_none_is_clearly_worse_than_allowed():
    verdict = first(SLICES, slices=GOOD, levels=LEVELS)
    assert verdict.outcome is PASSED
    assert verdict.reason == (
        "slices of origin on logloss: none of 3 is clearly worse by more than 0.02; "
        "nearest origin=LGA loses 0.01 on 1,000 rows"
    )


def test_one_slice_that_is_clearly_worse_fails_the_gate_and_is_named():
    bad = (*GOOD[:2], sliced("LGA", -0.05, 0.01))
    verdict = first(SLICES, slices=bad, levels=LEVELS)
    assert verdict.outcome is FAILED
    assert verdict.reason == (
        "slices of origin on logloss: origin=LGA loses 0.05 (98.33 % at least 0.03706), "
        "above the 0.02 allowed on 1,000 rows"
    )
    assert verdict.evidence.value == pytest.approx(0.05)
    assert verdict.evidence.confidence == pytest.approx(1 - 0.05 / 3)
    assert verdict.evidence.n == 1000


def test_a_loss_that_is_clear_for_one_slice_is_not_for_the_worst_of_many():
    loss = sliced("a", -0.032, 0.01)
    alone = first(SLICES, slices=[loss], levels={"origin": {"a": 1000}})
    many = [loss, *(sliced(f"b{i}", 0.0, 0.01) for i in range(40))]
    among = first(SLICES, slices=many, levels={"origin": {s.level: 1000 for s in many}})
    assert (alone.outcome, among.outcome) == (FAILED, PASSED)


@pytest.mark.parametrize(
    ("slices", "levels", "reason"),
    [
        ((), {}, "slices of origin on logloss: origin was not measured"),
        (
            GOOD,
            {"origin": {"EWR": 100, "JFK": 199}},
            "slices of origin on logloss: none of 2 slices has the 200 rows asked for",
        ),
        (
            GOOD[:2],
            LEVELS,
            "slices of origin on logloss: 1 of 3 could not be compared, such as origin=LGA",
        ),
        (
            (*GOOD[:2], GOOD[2].model_copy(update={"comparison": None})),
            LEVELS,
            "slices of origin on logloss: 1 of 3 could not be compared, such as origin=LGA",
        ),
        (
            (*GOOD[:2], sliced("LGA", float("nan"), 0.1)),
            LEVELS,
            "slices of origin on logloss: 1 of 3 could not be compared, such as origin=LGA",
        ),
        (
            (*GOOD[:2], sliced("LGA", 0.1, 0.1, metric="brier")),
            LEVELS,
            "slices of origin on logloss: 1 of 3 could not be compared, such as origin=LGA",
        ),
    ],
)
def test_slices_that_could_not_be_compared_are_inconclusive(slices, levels, reason):
    verdict = first(SLICES, slices=slices, levels=levels)
    assert (verdict.outcome, verdict.reason) == (INCONCLUSIVE, reason)


def test_small_slices_are_not_judged():
    awful = (*GOOD, sliced("tiny", -5.0, 0.1, n=12))
    assert first(SLICES, slices=awful, levels=LEVELS).outcome is PASSED


@pytest.mark.parametrize(("gain", "told"), [(0.0, "loses 0"), (0.03, "gains 0.03")])
def test_the_nearest_slice_is_said_to_lose_or_to_gain(gain, told):
    found = [sliced("EWR", gain, 0.01)]
    reason = first(SLICES, slices=found, levels={"origin": {"EWR": 500}}).reason
    assert reason.endswith(f"; nearest origin=EWR {told} on 1,000 rows")


@pytest.mark.parametrize(
    ("p99_ms", "outcome", "reason"),
    [
        (1.25, PASSED, "p99 latency at most 2 ms: a one-row request took 1.25 ms"),
        (2.0, PASSED, "p99 latency at most 2 ms: a one-row request took 2 ms"),
        (2.00001, FAILED, "p99 latency at most 2 ms: a one-row request took 2.00001 ms, too long"),
        (None, INCONCLUSIVE, "p99 latency at most 2 ms: it was not measured"),
        (float("nan"), INCONCLUSIVE, "p99 latency at most 2 ms: it was not measured"),
    ],
)
def test_latency_is_the_99th_percentile_of_a_request(p99_ms, outcome, reason):
    serving = SERVING.model_copy(update={"p99_ms": p99_ms})
    verdict = first(Latency(p99_ms=2), serving=serving)
    assert (verdict.outcome, verdict.reason) == (outcome, reason)


NOT_LOADED = ServingCheck(loaded=False, error="manifest.json: digest differs")


@pytest.mark.parametrize(
    ("serving", "outcomes", "reasons"),
    [
        (
            SERVING,
            [PASSED, PASSED],
            [
                "the bundle loads in a fresh process",
                "2,000 rows predict alike bit for bit when served",
            ],
        ),
        (
            NOT_LOADED,
            [FAILED, INCONCLUSIVE],
            [
                "the bundle does not load in a fresh process: manifest.json: digest differs",
                "predictions of training and serving could not be compared: "
                "manifest.json: digest differs",
            ],
        ),
        (
            SERVING.model_copy(update={"identical": False, "max_abs_difference": 1.2e-7}),
            [PASSED, FAILED],
            [
                "the bundle loads in a fresh process",
                "predictions when served differ from training by up to 1.2e-07 on 2,000 rows",
            ],
        ),
        (
            SERVING.model_copy(update={"identical": False, "error": "served (2,), training (3,)"}),
            [PASSED, FAILED],
            [
                "the bundle loads in a fresh process",
                "predictions when served differ from training by up to 0 on 2,000 rows: "
                "served (2,), training (3,)",
            ],
        ),
        (
            SERVING.model_copy(update={"identical": None}),
            [PASSED, INCONCLUSIVE],
            [
                "the bundle loads in a fresh process",
                "predictions of training and serving could not be compared",
            ],
        ),
        (SERVING.model_copy(update={"rows": 0}), [PASSED, INCONCLUSIVE], None),
        (
            None,
            [ERROR, ERROR],
            [
                "serving: the check in a fresh process could not be run",
                "predictions: the check in a fresh process could not be run",
            ],
        ),
    ],
)
def test_the_serving_check_is_always_judged(serving, outcomes, reasons):
    judgement = judged(FLOOR, estimates=[estimate(0.7)], serving=serving)
    verdicts = judgement.verdicts[1:]
    assert [v.evidence.rule for v in verdicts] == [
        "serving: loads",
        "serving: identical predictions",
    ]
    assert [v.outcome for v in verdicts] == outcomes
    assert reasons is None or [v.reason for v in verdicts] == reasons


def test_a_spec_without_gates_never_passes():
    judgement = judged()
    assert judgement.outcome is INCONCLUSIVE
    assert judgement.reason == (
        "inconclusive: model.yaml has no gates, so nothing was asked of the candidate: add some"
    )


def test_passing_says_how_the_champion_was_beaten():
    judgement = judged(
        FLOOR,
        BEATS,
        estimates=[estimate(0.7)],
        comparisons=[comparison(0.0123, 0.0051, 0.02)],
    )
    assert judgement.outcome is PASSED
    assert judgement.reason == (
        "passed all 4 checks: beats champion on logloss: gain 0.0123 (95 % at least 0.0051) "
        "exceeds 0 on 13,204 rows"
    )


def test_a_first_version_passes_by_what_was_measured_of_it():
    beats = BEATS.model_copy(update={"first_version": "passed"})
    judgement = judged(FLOOR, beats, estimates=[estimate(0.7)], has_champion=False)
    assert judgement.reason == ("passed all 4 checks: roc_auc 0.7 is at least 0.65 on 13,204 rows")


@pytest.mark.parametrize(
    ("floor", "gain", "serving", "outcome"),
    [
        (0.7, 0.1, SERVING, PASSED),
        (0.7, 0.0, SERVING, INCONCLUSIVE),
        (0.7, -0.1, SERVING, FAILED),
        (0.6, 0.0, SERVING, FAILED),
        (0.6, -0.1, None, ERROR),
    ],
)
def test_the_worst_verdict_is_the_outcome(floor, gain, serving, outcome):
    judgement = judged(
        FLOOR,
        BEATS,
        estimates=[estimate(floor)],
        comparisons=[comparison(gain, gain - 0.01, gain + 0.01)],
        serving=serving,
    )
    assert judgement.outcome is outcome


def test_the_reason_is_what_decided_and_then_what_else_did_not_pass():
    judgement = judged(
        BEATS,
        FLOOR,
        Latency(p99_ms=1),
        estimates=[estimate(0.6)],
        comparisons=[comparison(0.0, -0.01, 0.01)],
    )
    assert judgement.reason == (
        "failed: roc_auc 0.6 is below 0.65 on 13,204 rows; "
        "inconclusive: beats champion on logloss; failed: p99 latency at most 1 ms"
    )


def test_a_candidate_of_the_past_is_not_asked_what_only_serving_tells() -> None:
    quick = Latency(p99_ms=50)
    found = judged(
        FLOOR, quick, estimates=(estimate(0.7),), serving=None, has_champion=False, probed=False
    )
    assert found.outcome is PASSED
    assert [v.evidence.rule for v in found.verdicts] == ["roc_auc at least 0.65"]

    alone = judged(quick, serving=None, probed=False)
    assert (alone.outcome, alone.verdicts) == (PASSED, ())
    assert alone.reason == "passed: every gate is about serving, which was not asked"

    assert judged(serving=None, probed=False).outcome is INCONCLUSIVE  # no gates, no evidence


WITHOUT = "the 40 rows that version 1 was fitted to"
WAY_OUT = (
    "wait for newer rows or train as of a later moment, or leave this gate out of model.yaml until "
    "a version with this split has taken over"
)


@pytest.mark.parametrize(
    ("found", "outcome", "reason"),
    [
        (
            [comparison(0.02, 0.01, 0.03, n=960)],
            PASSED,
            f"gain 0.02 (95 % at least 0.01) exceeds 0 on 960 rows, without {WITHOUT}",
        ),
        (
            [comparison(0.02, 0.01, 0.03, n=12)],
            INCONCLUSIVE,
            "gain 0.02 rests on 12 rows, fewer than the 50 asked for, "
            f"without {WITHOUT} ({WAY_OUT})",
        ),
        (
            [],
            INCONCLUSIVE,
            f"the two could not be compared without {WITHOUT} ({WAY_OUT})",
        ),
    ],
)
def test_rows_that_the_champion_was_fitted_to_are_told_of(found, outcome, reason):
    gate = Beats(beats="champion", metric="logloss")
    verdict = first(gate, comparisons=found, left_out=WITHOUT)
    assert (verdict.outcome, verdict.reason) == (outcome, f"beats champion on logloss: {reason}")
    assert verdict.evidence.detail == f"without {WITHOUT}"
    assert first(gate, comparisons=found[:1]).evidence.detail == ""


@pytest.mark.parametrize(
    ("slices", "levels", "outcome", "end"),
    [
        ([sliced("JFK", -0.2, 0.01)], {"JFK": 1000}, FAILED, f"on 1,000 rows, without {WITHOUT}"),
        ([sliced("JFK", 0.2, 0.01)], {"JFK": 1000}, PASSED, f"on 1,000 rows, without {WITHOUT}"),
        ([], {"JFK": 1000}, INCONCLUSIVE, f"such as origin=JFK, without {WITHOUT}"),
        ([], {"JFK": 10}, INCONCLUSIVE, f"asked for, without {WITHOUT} ({WAY_OUT})"),
    ],
)
def test_slices_are_told_of_without_them_too(slices, levels, outcome, end):
    gate = Slices(slices=["origin"], metric="logloss", max_regression=0.05)
    verdict = first(gate, slices=slices, levels={"origin": levels}, left_out=WITHOUT)
    assert verdict.outcome is outcome
    assert verdict.reason.endswith(end)
