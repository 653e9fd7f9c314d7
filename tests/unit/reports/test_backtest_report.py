"""The page of a backtest: what is recommended, in figures and pictures."""

from __future__ import annotations

import re
from datetime import timedelta
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from perennial.contracts.backtest import BacktestResult
from perennial.reports.backtest import headline, policy_rows, render_html, render_markdown, span
from perennial.reports.timeline import cost_picture, front_picture, metric_picture
from tests import backtest_examples as examples

SVG = "{http://www.w3.org/2000/svg}"


def test_the_page_begins_with_the_policy_to_have_and_why() -> None:
    result = examples.ordinary()
    page = render_html(result)
    assert result.choice.policy == "perennial"
    assert re.search(r"<b>perennial</b>\s*<span>roc_auc 0\.6\d+ with 8 ret", page)
    assert headline(result).startswith("perennial: roc_auc 0.6")
    assert '<p class="soft">2013-03-04 to 2014-01-02 23:00 in 44 steps of 1w</p>' in page
    assert result.notes[0] in page


def test_each_policy_is_a_row_with_its_metric_and_its_cost() -> None:
    never, schedule, _, perennial = policy_rows(examples.ordinary())
    assert (never.trainings, never.rows, never.on_front) == (0, "0", True)
    assert schedule.accepted + schedule.refused == schedule.trainings == 43
    assert perennial.chosen
    assert not schedule.chosen
    text = render_markdown(examples.ordinary())
    row = f"| **perennial** | {perennial.metric} | 8 | {perennial.accepted} | {perennial.refused} |"
    assert row in text
    assert text.startswith("# flight-delay: perennial\n")


def test_the_page_tells_each_retraining_of_perennial_with_its_verdict() -> None:
    page = render_html(examples.ordinary())
    assert page.count('<td class="told">harmful drift: temp moved</td>') == 8
    assert '<td class="told">refused<small>kept: gain 0.0123' in page
    assert '<td class="told">took over<small>promoted: gain' in page
    assert '<td class="told">failed<small>failed: gain' in page


def test_every_retraining_is_marked_by_what_became_of_it() -> None:
    result = examples.ordinary()
    picture = ElementTree.fromstring(metric_picture(result))
    marks: dict[str, int] = {}
    for element in picture.iter():
        css = element.get("class", "")
        if css.split()[0:1] and css.split()[0] in ("promoted", "kept", "failed"):
            marks[css] = marks.get(css, 0) + 1
    for policy in result.policies:
        for outcome in ("promoted", "kept", "failed"):
            wanted = sum(a.outcome == outcome for a in policy.attempts)
            assert marks.get(f"{outcome} {policy.policy}", 0) == wanted
    assert marks["failed perennial"] == 1


def test_lines_lie_inside_their_frame_and_better_is_higher() -> None:
    result = examples.ordinary()
    picture = ElementTree.fromstring(metric_picture(result))
    heights = {}
    for line in picture.iter(f"{SVG}polyline"):
        points = [tuple(map(float, p.split(","))) for p in line.get("points", "").split()]
        assert len(points) == 44
        assert all(84 <= x <= 936 and 12 <= y <= 262 for x, y in points)
        heights[line.get("class")] = points[22][1]
    assert heights["schedule"] < heights["never"]  # SVG counts from above


def test_costs_only_rise_and_end_at_the_total() -> None:
    picture = ElementTree.fromstring(cost_picture(examples.ordinary()))
    ends = {}
    for line in picture.iter(f"{SVG}polyline"):
        ys = [float(p.split(",")[1]) for p in line.get("points", "").split()]
        assert ys == sorted(ys, reverse=True)
        ends[line.get("class")] = ys[-1]
    assert ends["schedule"] < ends["drift"] < ends["perennial"] < ends["never"]


@pytest.mark.parametrize("example", [examples.ordinary(), examples.hostile()])
def test_the_same_result_is_the_same_page_and_nothing_in_it_runs(example: BacktestResult) -> None:
    page = render_html(example)
    assert page == render_html(example)
    assert "<script" not in page
    assert "<img" not in page
    for line in render_markdown(example).splitlines():
        assert not re.search(r"(?<!\\)<script", line)
        if line.startswith("|") and "---" not in line:
            assert len(re.findall(r"(?<!\\)\|", line)) == 8


@pytest.mark.parametrize("steps", [2, 3, 9, 52, 300])
def test_pictures_of_any_length_can_be_drawn_with_readable_dates(steps: int) -> None:
    result = examples.ordinary(steps)
    for picture in (metric_picture(result, alone=True), cost_picture(result, alone=True)):
        dates = [
            t.text
            for t in ElementTree.fromstring(picture).iter(f"{SVG}text")
            if re.fullmatch(r"20\d\d|(\d\d )?[A-Z][a-z]{2}", t.text or "")
        ]
        assert 2 <= len(dates) <= 13
        assert all(one != next_one for one, next_one in pairwise(dates))
    assert "polyline" in front_picture(result)


def test_steps_of_an_hour_are_drawn_too() -> None:
    result = examples.ordinary(20)
    hour = timedelta(hours=1)
    moments = tuple(examples.START + i * hour for i in range(20))
    plan = result.plan.model_copy(
        update={"moments": moments, "end": moments[-1] + hour, "every": "1h"}
    )
    policies = tuple(
        p.model_copy(update={"attempts": (), "serving": (moments[0],) * 20})
        for p in result.policies
    )
    quick = result.model_copy(update={"plan": plan, "policies": policies})
    assert span(quick) == "2013-03-04 to 2013-03-04 20:00 in 20 steps of 1h"
    assert "04 Mar 06:00" in metric_picture(quick)
