"""One metric, observed against expected: better, as expected, worse, or too few rows to tell."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from perennial.contracts.verdicts import Estimate
from perennial.decisions.performance import Rarer, against_promise, unexplained


def at(value: float, half: float, n: int = 5000, metric: str = "logloss") -> list[Estimate]:
    return [Estimate(metric=metric, value=value, low=value - half, high=value + half, n=n)]


@pytest.mark.parametrize(
    ("observed", "promised", "change"),
    [
        (at(0.40, 0.01), at(0.40, 0.01), "as expected"),
        (at(0.50, 0.01), at(0.40, 0.01), "worse"),
        (at(0.30, 0.01), at(0.40, 0.01), "better"),
        (at(0.43, 0.001), at(0.40, 0.001), "as expected"),  # surely a loss, none that counts
        (at(0.38, 0.001), at(0.40, 0.001), "as expected"),  # surely a gain, none that counts
        (at(0.43, 0.02), at(0.40, 0.02), "inconclusive"),  # perhaps one that counts
        (at(0.45, 0.10), at(0.40, 0.01), "inconclusive"),  # counts, perhaps by chance
        (at(0.30, 0.20), at(0.40, 0.01), "inconclusive"),
        (at(0.50, 0.01, n=99), at(0.40, 0.01), "inconclusive"),
        (at(0.50, 0.01, n=100), at(0.40, 0.01), "worse"),
        (at(0.45, 0.0), at(0.40, 0.0), "worse"),
        (at(0.0, 0.0), at(0.0, 0.0), "as expected"),
        ([], at(0.40, 0.01), "inconclusive"),
        (at(0.40, 0.01), [], "inconclusive"),
        (at(float("nan"), 0.01), at(0.40, 0.01), "inconclusive"),
    ],
)
def test_a_loss_is_compared_with_its_promise(
    observed: Sequence[Estimate], promised: Sequence[Estimate], change: str
) -> None:
    assert against_promise("logloss", observed, promised).change == change


@pytest.mark.parametrize(
    ("observed", "promised", "change"),
    [
        (0.720, 0.720, "as expected"),
        (0.680, 0.720, "worse"),
        (0.760, 0.720, "better"),
        (0.700, 0.720, "as expected"),
    ],
)
def test_a_score_has_a_tenth_of_what_it_lacks_to_lose(
    observed: float, promised: float, change: str
) -> None:
    found = against_promise(
        "roc_auc", at(observed, 0.002, metric="roc_auc"), at(promised, 0.002, metric="roc_auc")
    )
    assert found.change == change
    assert found.evidence.limit == pytest.approx(-0.028)


def test_the_interval_of_the_gain_has_each_side_from_its_own_halves() -> None:
    observed = [Estimate(metric="logloss", value=0.5, low=0.47, high=0.54, n=900)]
    promised = [Estimate(metric="logloss", value=0.4, low=0.36, high=0.43, n=900)]
    evidence = against_promise("logloss", observed, promised).evidence
    assert evidence.value == pytest.approx(-0.1)
    # A loss's gain is low where it was observed high and promised low.
    assert evidence.low == pytest.approx(-0.1 - (0.04**2 + 0.04**2) ** 0.5)
    assert evidence.high == pytest.approx(-0.1 + (0.03**2 + 0.03**2) ** 0.5)


def test_the_reason_tells_both_values_the_rows_and_the_interval() -> None:
    worse = against_promise("logloss", at(0.5, 0.01), at(0.4, 0.01))
    assert worse.reason == (
        "logloss is 0.5, 0.4 was promised on 5,000 rows: worse by 0.1 "
        "(gain at 95 %: -0.1141 to -0.08586)"
    )
    few = against_promise("logloss", at(0.5, 0.01, n=7), at(0.4, 0.01))
    assert few.reason == (
        "logloss is 0.5, 0.4 was promised, but on 7 rows, fewer than the 100 asked for"
    )
    assert against_promise("logloss", [], at(0.4, 0.01)).reason == (
        "logloss is not known in production"
    )
    assert unexplained("logloss", at(0.4, 0.01), []).reason == (
        "logloss was not estimated from the inputs"
    )


def test_a_metric_is_found_among_others() -> None:
    observed = [*at(0.9, 0.1, metric="brier"), *at(0.4, 0.01)]
    assert against_promise("logloss", observed, at(0.4, 0.01)).change == "as expected"
    assert against_promise("accuracy", observed, at(0.4, 0.01)).observed is None


def test_what_labels_say_beyond_the_interval_of_the_estimate_is_concept_drift() -> None:
    estimated = at(0.40, 0.02)
    assert unexplained("logloss", at(0.45, 0.5), estimated).change == "worse"
    assert unexplained("logloss", at(0.41, 0.5), estimated).change == "as expected"
    assert unexplained("logloss", at(0.30, 0.5), estimated).change == "better"


def test_what_counts_and_how_many_rows_may_be_set() -> None:
    observed, promised = at(0.5, 0.01, n=60), at(0.4, 0.01)
    assert against_promise("logloss", observed, promised, min_rows=50).change == "worse"
    lenient = against_promise("logloss", observed, promised, min_rows=50, max_rise=0.3)
    assert (lenient.change, lenient.evidence.limit) == ("as expected", pytest.approx(-0.12))


def test_few_labels_of_the_rarer_classes_are_too_few_however_many_rows_there_are() -> None:
    far = at(0.5, 0.01), at(0.4, 0.01)
    for rarer in (Rarer(), Rarer(30, 30), Rarer(None, 30)):
        assert against_promise("logloss", *far, rarer=rarer).change == "worse"
        assert unexplained("logloss", *far, rarer=rarer).change == "worse"
    promised = against_promise("logloss", *far, rarer=Rarer(400, 5))
    assert (promised.change, promised.evidence.value) == ("inconclusive", pytest.approx(-0.1))
    assert promised.reason == (
        "logloss is 0.5, 0.4 was promised, but on 5 labels of the holdout not of the commonest "
        "class, fewer than the 30 asked for"
    )
    assert unexplained("logloss", *far, rarer=Rarer(1, 400)).reason == (
        "logloss is 0.5, 0.4 was estimated from the inputs, but on 1 label from production not of "
        "the commonest class, fewer than the 30 asked for"
    )
