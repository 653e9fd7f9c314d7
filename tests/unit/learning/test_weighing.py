"""The weights of a mean: the least loss there is, and the same ones everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perennial.learning.metrics import scores
from perennial.learning.weighing import DECIMALS, fit_weights

METRIC = {"binary": "logloss", "multiclass": "logloss", "regression": "rmse"}


def example(objective: str, rows: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and three members: two that each know half of what there is to know, and noise."""
    random = np.random.default_rng(5)
    one, two, noise = random.normal(size=(3, rows))
    if objective == "regression":
        y = one + 2 * two + random.normal(scale=0.3, size=rows)
        return y, np.stack([2 * one, 3.5 * two, noise], axis=1).astype(np.float32)
    if objective == "binary":
        y = (random.random(rows) < 1 / (1 + np.exp(-one - two))).astype(float)
        p = 1 / (1 + np.exp(-np.stack([1.2 * one, 0.9 * two, 3 * noise], axis=1)))
        return y, p.astype(np.float32)
    logits = np.stack([one, two, noise * 0], axis=1)
    chance = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = (random.random((rows, 1)) > chance.cumsum(axis=1)).sum(axis=1).clip(max=2).astype(float)
    members = [logits * [1, 0, 1], logits * [0, 1, 1], random.normal(size=(rows, 3))]
    p = [np.exp(m) / np.exp(m).sum(axis=1, keepdims=True) for m in members]
    return y, np.stack(p, axis=1).astype(np.float32)


def loss(objective: Any, y: np.ndarray, predictions: np.ndarray, weights: Any) -> float:
    mixed = np.tensordot(predictions.astype(float), np.asarray(weights), axes=([1], [0]))
    return scores(objective, y, mixed)[METRIC[objective]]


@pytest.mark.parametrize("objective", METRIC)
def test_no_other_weights_have_a_smaller_loss(objective: Any) -> None:
    y, predictions = example(objective)
    weights = fit_weights(objective, y, predictions)
    assert sum(weights) == pytest.approx(1, abs=1e-12)
    assert min(weights) >= 0
    assert weights[2] < 0.1 < min(weights[:2])
    least = loss(objective, y, predictions, weights)
    steps = np.linspace(0, 1, 21)
    grid = [(a, b, 1 - a - b) for a in steps for b in steps if a + b <= 1 + 1e-9]
    assert least <= min(loss(objective, y, predictions, np.clip(g, 0, 1)) for g in grid) + 1e-7


def test_a_member_that_is_always_right_gets_all() -> None:
    y = np.array([0.0, 1.0] * 50)
    predictions = np.stack([np.where(y == 1, 0.99, 0.01), np.full(100, 0.5)], axis=1)
    assert fit_weights("binary", y, predictions) == [1.0, 0.0]


def test_members_that_say_the_same_share_alike() -> None:
    y, predictions = example("binary")
    assert fit_weights("binary", y, predictions[:, [0, 0]]) == [0.5, 0.5]


@pytest.mark.parametrize("objective", METRIC)
def test_weights_are_short_numbers_that_add_up(objective: Any) -> None:
    y, predictions = example(objective, 300)
    weights = fit_weights(objective, y, predictions)
    assert weights == [round(weight, DECIMALS) for weight in weights]
    assert fit_weights(objective, y, np.asfortranarray(predictions)) == weights


def test_labels_that_never_differ_and_certain_members_are_no_trouble() -> None:
    flat = np.full(20, 3.0)
    members = np.stack([flat, flat + 1], axis=1)
    assert fit_weights("regression", flat, members) == [1.0, 0.0]
    wrong = np.stack([np.zeros(20), np.ones(20)], axis=1)
    assert fit_weights("binary", np.ones(20), wrong) == [0.0, 1.0]
