"""The page of a rollout: what it says, that it stands alone, and that data stays data."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from perennial.contracts.comparing import Bin
from perennial.contracts.rollouts import Measurement, RolloutState
from perennial.reports.rollout import guard_rows, render_html, render_markdown
from perennial.reports.rollout_picture import draw_differences, draw_guard
from tests.rollout_examples import (
    COMPARED,
    ERRORS,
    HOSTILE,
    LOOKS,
    MINUTE,
    NOON,
    ROLLOUT,
    page,
)


def test_the_page_says_what_became_of_it_and_why() -> None:
    found = page()
    assert "parcels@4: rolled back" in found
    assert "5 % of requests failed &lt;b&gt;" in found
    for text in (
        "shadow", "canary 25 %", "not reached", "Rows at least", "90.0", "row-9", "8.25", "5 (1.0",
    ):  # fmt: skip
        assert text in found, text
    assert page() == found


def test_nothing_of_the_data_becomes_markup_and_nothing_is_fetched() -> None:
    found = page()
    assert HOSTILE not in found
    assert "&lt;script&gt;" in found
    for word in ("http://", "https://", "src=", "<script", "@import", "url("):
        assert word not in found, word


def test_each_guard_of_each_step_that_was_looked_at_is_told_as_it_was_last() -> None:
    rows = list(guard_rows(ROLLOUT, LOOKS))
    assert [(r.step, r.guard, r.outcome) for r in rows] == [
        ("shadow", "error_rate", "passed"),
        ("shadow", "prediction_shift", "passed"),
        ("canary 25 %", "error_rate", "failed"),
        ("canary 25 %", "prediction_shift", "error"),
    ]
    assert rows[0].interval == "0.0\u202f% to 2.0\u202f%"
    assert (rows[0].value, rows[0].limit) == ("0\u202f%", "1\u202f%")
    assert ">1\u202f%</text>" in rows[0].drawing
    assert (rows[1].value, rows[1].interval, rows[1].limit) == ("0.03", "0.000 to 0.110", "0.1")
    assert ">0.1</text>" in rows[1].drawing
    assert rows[3].reason == "the log can't be read"
    assert rows[3].drawing == ""


def test_the_markdown_tells_the_same_compactly() -> None:
    text = render_markdown(ROLLOUT, LOOKS, (COMPARED,))
    errors = "| canary 25 % | error\\_rate | failed | 5 % | 2.0 % to 9.0 % | 1 % | 800 |"
    assert errors in text.replace("\u202f", " ")
    assert "| limit | n challenger |" in text
    assert "| latency, 99th percentile, ms | 8.25 | 2.5 |" in text
    assert "- same class: 90.0 %" in text


def test_a_rollout_of_which_nothing_is_known_yet_has_a_page() -> None:
    running = ROLLOUT.model_copy(
        update={"state": RolloutState(phase="running", step=0, entered_at=NOON), "ended_at": None}
    )
    found = render_html(running, (), (), ())
    assert "shadow, step 1 of 3" in found
    assert "<svg" not in found


@pytest.mark.parametrize("low", [None, -1e9, 0.0])
@pytest.mark.parametrize("value", [0.0, 0.5, -3.0, 1e6])
def test_a_drawing_stays_inside_its_frame(value: float, low: float | None) -> None:
    high = None if low is None else 1e9
    one = Measurement(guard="error_rate", value=value, low=low, high=high)
    for looks in ([(NOON, one)], [(NOON + i * MINUTE, one) for i in range(700)]):
        for limit in (0.0, 0.01):
            guard = ERRORS.model_copy(update={"limit": limit})
            root = ElementTree.fromstring(draw_guard(guard, looks))
            (line,) = root.findall("polyline")
            points = [tuple(map(float, p.split(","))) for p in line.get("points", "").split()]
            assert 1 <= len(points) <= 202
            assert all(0 <= x <= 640 and 0 <= y <= 170 for x, y in points)


def test_no_differences_are_no_drawing() -> None:
    assert draw_differences(()) == ""
    drawn = draw_differences((Bin(low=0.0, high=0.0, rows=3),))
    assert drawn.count("<rect") == 1
