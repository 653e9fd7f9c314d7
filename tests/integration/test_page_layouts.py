"""Every page as a real browser shows it: on a phone, on a desk, in the dark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from perennial.reports import backtest, drift
from perennial.serving.status import render_status
from tests import backtest_examples, browser, drift_examples, rollout_examples, status_examples

BROWSERS = [found for found in [browser.chromium()] if found]
WIDTHS = [360, 720, 721, 1280]  # a phone, both sides of the pages' own limit, a desk
PAGES: dict[str, Callable[[], str]] = {
    "backtest": lambda: backtest.render_html(backtest_examples.ordinary()),
    "hostile backtest": lambda: backtest.render_html(backtest_examples.hostile()),
    "drift, with hostile names": lambda: drift.render_html(drift_examples.look()),
    "rollout": rollout_examples.page,
    "status": lambda: render_status(*status_examples.ordinary(), status_examples.NOW),
    "hostile status": lambda: render_status(*status_examples.hostile(), status_examples.NOW),
}
TIMELINES = ("backtest", "hostile backtest")  # months side by side: a phone scrolls
HAVE_SCHEMES = [name for name in PAGES if not name.startswith("hostile")]

pytestmark = pytest.mark.parametrize("chromium", BROWSERS, ids=lambda path: path.name)


@pytest.mark.parametrize("name", PAGES)
def test_nothing_overflows_runs_or_is_fetched(chromium: Path, name: str, tmp_path: Path) -> None:
    layouts = browser.lay_out(chromium, PAGES[name](), WIDTHS, tmp_path)

    assert [layout.width for layout in layouts] == WIDTHS
    for layout in layouts:
        assert layout.cut == [] or name in TIMELINES
        assert layout.outside == []
        assert layout.spilling == []
        assert layout.active == []


@pytest.mark.parametrize("name", HAVE_SCHEMES)
def test_a_page_is_dark_where_the_readers_system_is(
    chromium: Path, name: str, tmp_path: Path
) -> None:
    [light] = browser.lay_out(chromium, PAGES[name](), [1280], tmp_path)
    [dark] = browser.lay_out(chromium, PAGES[name](), [1280], tmp_path, dark=True)

    assert (light.background, dark.background) == ("rgb(255, 255, 255)", "rgb(18, 22, 29)")
