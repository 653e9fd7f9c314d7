"""Which version answers a key: what callers rely on, and figures that must never change."""

from __future__ import annotations

import math

import pytest

from perennial.contracts.routes import Arm
from perennial.decisions.routing import assign

KEYS = [f"shop-{number}" for number in range(40)]
# Written down once: another machine, Python or NumPy must come to the same.
GOLDEN = "2111112211112111112131111111112111121122"


def arms(**weights: int) -> tuple[Arm, ...]:
    return tuple(Arm(version=int(name[1:]), weight=weight) for name, weight in weights.items())


def test_the_assignment_is_the_same_on_every_machine_and_python() -> None:
    route = arms(v1=70, v2=20, v3=10)

    assert "".join(map(str, assign(KEYS, route, "demand"))) == GOLDEN
    assert "".join(str(assign([key], route, "demand")[0]) for key in KEYS) == GOLDEN


def test_an_arm_with_all_the_weight_gets_every_key_and_one_without_weight_gets_none() -> None:
    assert set(assign(KEYS, arms(v1=0, v7=100), "demand")) == {7}
    assert 4 not in assign(KEYS * 100, arms(v1=50, v4=0, v7=50), "demand")


def test_no_keys_need_no_arms() -> None:
    assert assign([], (), "demand") == []
    assert assign([], arms(v1=100), "demand") == []


@pytest.mark.parametrize("route", [(), arms(v1=0)])
def test_keys_without_an_arm_that_has_a_weight_are_refused(route: tuple[Arm, ...]) -> None:
    with pytest.raises(ValueError, match=r"^no arm has a weight above 0$"):
        assign(["north"], route, "demand")


def test_the_same_key_always_gets_the_same_version() -> None:
    route = arms(v1=50, v2=50)

    assert len(set(assign(["north"] * 1000, route, "demand"))) == 1
    assert len(set(assign(["north"] * 10, route, "demand"))) == 1


def test_two_models_share_their_keys_out_independently() -> None:
    """Else the users of one model's canary would be the users of every model's canary."""
    keys = [str(number) for number in range(20_000)]
    route = arms(v1=80, v2=20)
    one, two = assign(keys, route, "demand"), assign(keys, route, "prices")

    both = sum(a == b == 2 for a, b in zip(one, two, strict=True)) / len(keys)

    assert abs(both - 0.04) < 5 * math.sqrt(0.04 * 0.96 / len(keys))


def test_a_key_of_any_text_is_assigned() -> None:
    odd = ["", "\0", "ü", "\ud800", "x" * 100_000]

    assert set(assign(odd, arms(v1=50, v2=50), "demand")) <= {1, 2}
