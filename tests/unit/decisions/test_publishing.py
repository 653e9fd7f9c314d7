"""Which versions and aliases a destination should hold."""

from __future__ import annotations

from typing import Any

import pytest

from perennial.contracts.routes import Arm, Route
from perennial.decisions.publishing import aliases_of, due


def route(champion: int | None, *arms: tuple[int, int], shadow: tuple[int, ...] = ()) -> Route:
    weights = tuple(Arm(version=version, weight=weight) for version, weight in arms)
    return Route(
        model="m", champion=champion, arms=weights, shadow=shadow, generation=1, updated_at=None
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (route(None), {}),
        (route(3, (3, 100)), {"champion": 3}),
        (route(3, (3, 95), (4, 5)), {"champion": 3, "challenger": 4}),
        (route(3, (3, 0), (4, 100)), {"champion": 3, "challenger": 4}),
        (route(3, (3, 100), shadow=(4,)), {"champion": 3, "challenger": 4}),
        (route(3, (3, 50), (4, 50), shadow=(5,)), {"champion": 3, "challenger": 4}),
        (route(3, (3, 50), (4, 25), (6, 25)), {"champion": 3, "challenger": 6}),
        (route(3, (3, 100), shadow=(3,)), {"champion": 3}),
    ],
)
def test_aliases_are_who_serves_and_who_earns_it(given: Route, expected: dict[str, int]) -> None:
    assert aliases_of(given) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"there": [], "aliased": [], "most": None}, [1, 2, 3, 4]),
        ({"there": [2, 4], "aliased": [], "most": None}, [1, 3]),
        ({"there": [], "aliased": [], "most": 2}, [3, 4]),
        ({"there": [], "aliased": [1], "most": 2}, [1, 4]),
        ({"there": [1], "aliased": [1], "most": 2}, [3, 4]),
        ({"there": [1, 2, 3, 4], "aliased": [1], "most": None}, []),
    ],
)
def test_what_is_not_there_is_due_the_aliased_and_the_newest_first(
    given: dict[str, Any], expected: list[int]
) -> None:
    assert due([4, 3, 2, 1], **given) == expected
