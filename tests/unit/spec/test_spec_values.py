"""Names in a message are bounded, and what is left out is counted."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from perennial.spec.values import some


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", "b", "c"], "a, b, c"),
        (["a", "b", "c", "d"], "a, b, c and 1 more"),
        (iter("abcdefgh"), "a, b, c and 5 more"),
    ],
)
def test_the_first_names_are_told_and_the_others_counted(names: Iterable[str], told: str) -> None:
    assert some(names, 3) == told
