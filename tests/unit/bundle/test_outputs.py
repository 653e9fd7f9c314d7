"""Predictions of several versions in one order, and which of them may be compared."""

from __future__ import annotations

import numpy as np
import pytest

from perennial.bundle.outputs import aligned
from perennial.bundle.targets import Target, alike

P = np.array([0.25, 1.0], dtype=np.float32)


def test_of_two_classes_the_last_is_the_one_that_is_told() -> None:
    assert aligned(P, ("no", "yes"), ("no", "yes")) is P
    turned = aligned(P, ("yes", "no"), ("no", "yes"))
    assert (turned.tolist(), turned.dtype) == ([0.75, 0.0], P.dtype)
    assert aligned(P, None, None) is P


def test_probabilities_are_put_where_their_class_is() -> None:
    values = np.array([[0.1, 0.9]])
    assert aligned(values, ("b", "a"), ("a", "b", "c")).tolist() == [[0.9, 0.1, 0.0]]


BINARY = Target("binary", "y", ("no", "yes"))
SEVERAL = Target("multiclass", "y", ("a", "b", "c"))
NUMBER = Target("regression", "y", None)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (BINARY, BINARY, True),
        (BINARY, BINARY._replace(classes=("yes", "no")), True),
        (BINARY, BINARY._replace(classes=("0", "1")), False),
        (BINARY, BINARY._replace(label="z"), False),
        (SEVERAL, SEVERAL._replace(classes=("b", "c", "d")), True),
        (SEVERAL, SEVERAL._replace(classes=("d", "e")), False),
        (SEVERAL, BINARY._replace(classes=("a", "b")), False),
        (NUMBER, NUMBER, True),
        (NUMBER, NUMBER._replace(label="z"), False),
        (NUMBER, BINARY, False),
    ],
)
def test_only_predictions_of_the_same_thing_are_alike(
    one: Target, other: Target, expected: bool
) -> None:
    assert alike(one, other) is expected
    assert alike(other, one) is expected
