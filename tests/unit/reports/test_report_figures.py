"""Figures are rounded to what the measurement carries."""

from __future__ import annotations

import pytest

from perennial.reports.figures import alike, moment, number, percent, ranged
from perennial.reports.plots import ticks


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.71234, "0.7123"),
        (12345.6, "12,346"),
        (-0.5, "\u22120.5"),
        (0, "0"),
        (None, "\u2013"),
        (float("nan"), "\u2013"),
        (float("inf"), "\u2013"),
    ],
)
def test_a_number_has_four_digits_and_no_fraction_from_1000_on(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "low", "high", "texts"),
    [
        (0.741234, 0.7329, 0.7495, ("0.7412", "0.7329", "0.7495")),
        (54.321, 48.4, 59.6, ("54.3", "48.4", "59.6")),
        (12345.67, 11000.0, 13000.0, ("12,346", "11,000", "13,000")),
        (-0.0123, -0.02, 0.001, ("\u22120.012", "\u22120.020", "0.001")),
        (0.5, 0.5, 0.5, ("0.5", "0.5", "0.5")),
        (1e-12, -1e-12, 3e-12, ("0.00000000", "\u22120.00000000", "0.00000000")),
    ],
)
def test_a_value_has_the_decimals_of_two_digits_of_its_interval(value, low, high, texts):
    assert tuple(ranged(value, low, high)) == texts


def test_a_gain_has_its_sign_and_nothing_has_none():
    assert tuple(ranged(0.012, -0.001, 0.025, sign=True)) == ("+0.012", "\u22120.001", "+0.025")
    assert tuple(ranged(0.0, 0.0, 0.0, sign=True)) == ("0", "0", "0")
    assert ranged(-1e-12, -1e-11, 1e-11, sign=True).value == "0.00000000"


def test_another_value_is_shown_in_the_same_decimals():
    assert alike(0.65512, "0.550") == "0.655"
    assert alike(57.06, "54.0") == "57.1"
    assert alike(1234.5, "1,200") == "1,234"


def test_shares_are_percents_and_tiny_ones_say_so():
    assert percent(0.1784) == "17.8\u202f%"
    assert percent(0.0001) == "<\u202f0.1\u202f%"
    assert percent(0.0) == "0.0\u202f%"


def test_midnight_is_a_date():
    assert moment("2013-07-01T00:00:00+00:00") == "2013-07-01"
    assert moment("2013-07-01T12:30:00+00:00") == "2013-07-01 12:30"


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ((0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ((-120, 117), [-100, -50, 0, 50, 100]),
        ((0, 0.042), [0, 0.01, 0.02, 0.03, 0.04]),
        ((1e6, 1e6 + 3), [1e6, 1e6 + 1, 1e6 + 2, 1e6 + 3]),
    ],
)
def test_ticks_are_round_numbers_inside_the_span(span, expected):
    assert ticks(span) == pytest.approx(expected)
