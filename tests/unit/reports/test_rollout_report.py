"""The page of a rollout: what it says, that it stands alone, and that data stays data."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest

from perennial.contracts.comparing import Apart, ArmFacts, Bin, SideBySide, StepComparison
from perennial.contracts.rollouts import (
    Check,
    Guard,
    Measurement,
    Plan,
    Rollout,
    RolloutState,
    Step,
)
from perennial.decisions.guards import judge
from perennial.reports.rollout import Happened, guard_rows, render_html, render_markdown
from perennial.reports.rollout_picture import draw_differences, draw_guard

NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ERRORS = Guard(name="error_rate", kind="error_rate", limit=0.01)
SHIFT = Guard(name="prediction_shift", kind="prediction", limit=0.1)


def step(strategy: str, weight: int) -> Step:
    return Step.model_validate(
        {
            "strategy": strategy, "weight": weight, "bake_seconds": 600, "timeout_seconds": 3600,
            "min_requests": 100, "guards": (ERRORS, SHIFT),
        }
    )  # fmt: skip


def look(number: int, minute: int, errors: Measurement, shift: Measurement) -> Check:
    own = ROLLOUT.plan.steps[number]
    return judge(number, own, (errors, shift), errors.n_challenger, NOON + minute * MINUTE)


ROLLOUT = Rollout(
    id=7, model="parcels", version=4, champion=3,
    plan=Plan(steps=(step("shadow", 0), step("canary", 25), step("canary", 100))),
    state=RolloutState(
        phase="rolled back", step=1, entered_at=NOON + 10 * MINUTE,
        reason="error_rate: 5 % of requests failed <b>",
    ),
    revision=9, actor="flow", reason="registered", started_at=NOON, updated_at=NOON,
    ended_at=NOON + 12 * MINUTE,
)  # fmt: skip
UNKNOWN = Measurement(guard="prediction_shift", n_challenger=3)
LOOKS = (
    look(
        0, 1, Measurement(guard="error_rate", n_challenger=50, value=0.0, low=0, high=0.2), UNKNOWN
    ),
    look(
        0, 9,
        Measurement(guard="error_rate", n_challenger=500, value=0.0, low=0, high=0.02),
        Measurement(guard="prediction_shift", n_challenger=500, value=0.03, low=0, high=0.11),
    ),
    look(
        1, 12,
        Measurement(guard="error_rate", n_challenger=800, value=0.05, low=0.02, high=0.09),
        Measurement(guard="prediction_shift", error="the log can't be read"),
    ),
)  # fmt: skip
HOSTILE = "<script>alert(1)</script>"
COMPARED = StepComparison(
    step=0,
    start=NOON,
    end=NOON + 10 * MINUTE,
    champion=ArmFacts(arm="champion", version=3, rows=500, requests=500, latency_p99_ms=8.25),
    challenger=ArmFacts(
        arm="challenger", version=4, rows=500, requests=500, failed=5, latency_p99_ms=2.5
    ),
    same_rows=SideBySide(
        rows=495, agree=0.9, mean=-0.01, p01=-0.2, p50=0.0, p99=0.1,
        bins=(Bin(low=-0.5, high=0.0, rows=400), Bin(low=0.0, high=0.5, rows=95)),
        apart=(
            Apart(
                id="row-9", champion="0.75", challenger="0.25", difference=-0.5,
                inputs={"remark": HOSTILE},
            ),
        ),
    ),
)  # fmt: skip
HISTORY = (Happened(NOON, "rollout begun", "flow", HOSTILE),)


def page() -> str:
    return render_html(ROLLOUT, HISTORY, LOOKS, (COMPARED,))


def test_the_page_says_what_became_of_it_and_why() -> None:
    found = page()
    assert "parcels@4: rolled back" in found
    assert "5 % of requests failed &lt;b&gt;" in found
    for text in ("shadow", "canary 25 %", "not reached", "90.0", "row-9", "8.25", "5 (1.0"):
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
    assert rows[0].interval == "0.000 to 0.020"
    assert rows[3].reason == "the log can't be read"
    assert rows[3].drawing == ""


def test_the_markdown_tells_the_same_compactly() -> None:
    text = render_markdown(ROLLOUT, LOOKS, (COMPARED,))
    assert "| canary 25 % | error\\_rate | failed | 0.05 | 0.020 to 0.090 | 0.01 | 800 |" in text
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
