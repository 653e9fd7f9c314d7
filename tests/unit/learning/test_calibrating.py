"""Probabilities made true on holdout rows."""

from __future__ import annotations

import numpy as np
import pytest

from perennial.learning.calibrating import choose_method, fit_calibration

N = 4000


def pair(p: np.ndarray) -> np.ndarray:
    return np.column_stack([1 - p, p])


def drawn(true: np.ndarray, seed: int = 1) -> np.ndarray:
    return (np.random.default_rng(seed).random(len(true)) < true).astype(float)


def too_sure(true: np.ndarray) -> np.ndarray:
    """Probabilities with the logit twice as large, and shifted."""
    logit = 2 * np.log(true / (1 - true)) + 0.5
    return 1 / (1 + np.exp(-logit))


@pytest.fixture
def true() -> np.ndarray:
    return np.random.default_rng(5).uniform(0.05, 0.95, N)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_a_model_that_is_too_sure_is_corrected(method: str, true: np.ndarray) -> None:
    scores = too_sure(true)
    curve = fit_calibration(method, drawn(true), pair(scores), np.ones(N))
    new = np.linspace(0.1, 0.9, 9)
    corrected = curve(pair(too_sure(new)))[:, 1]
    assert np.abs(corrected - new).max() < 0.06
    assert np.abs(too_sure(new) - new).max() > 0.15


def test_cross_validation_chooses_the_sigmoid_where_it_is_right(true: np.ndarray) -> None:
    assert choose_method(drawn(true), pair(too_sure(true)), seed=1) == "sigmoid"


def test_cross_validation_chooses_isotonic_regression_where_no_sigmoid_fits(
    true: np.ndarray,
) -> None:
    steps = np.where(true < 0.3, 0.05, np.where(true < 0.7, 0.5, 0.55))
    assert choose_method(drawn(steps), pair(true), seed=1) == "isotonic"


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_a_row_that_counts_twice_is_two_rows(method: str, true: np.ndarray) -> None:
    true = true[:500]
    y, p = drawn(true), pair(too_sure(true))
    counts = np.random.default_rng(2).integers(0, 3, 500)
    weighted = fit_calibration(method, y, p, counts.astype(float))(p)
    rows = np.repeat(np.arange(500), counts)
    repeated = fit_calibration(method, y[rows], p[rows], np.ones(len(rows)))(p)
    assert weighted == pytest.approx(repeated, abs=1e-4)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_no_event_becomes_impossible_and_probabilities_sum_to_one(method: str) -> None:
    p = np.random.default_rng(3).dirichlet([1, 2, 3], 600)
    y = p.argmax(axis=1).astype(float)  # the classes are parted without an error
    found = fit_calibration(method, y, p, np.ones(600))(np.eye(3))
    assert found.sum(axis=1) == pytest.approx(np.ones(3))
    assert 0 < found.min() < found.max() < 1
    assert found.argmax(axis=1).tolist() == [0, 1, 2]


def test_a_class_too_rare_to_calibrate_is_taken_as_predicted() -> None:
    p = np.random.default_rng(4).dirichlet([5, 5, 0.1], 600)
    y = (np.random.default_rng(5).random(600) < 0.5).astype(float)
    found = fit_calibration("isotonic", y, p, np.ones(600))(p)
    assert np.corrcoef(found[:, 2], p[:, 2])[0, 1] > 0.99
