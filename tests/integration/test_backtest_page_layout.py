"""The page of a backtest as a real browser shows it: on a phone, on a desk, in the dark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from perennial.contracts.backtest import BacktestResult
from perennial.reports.backtest import render_html
from tests import backtest_examples, browser

BROWSERS = [found for found in [browser.chromium()] if found]
WIDTHS = [360, 720, 1280]

pytestmark = pytest.mark.parametrize("chromium", BROWSERS, ids=lambda path: path.name)


@pytest.mark.parametrize("example", [backtest_examples.ordinary, backtest_examples.hostile])
def test_nothing_overflows_runs_or_is_fetched(
    chromium: Path, example: Callable[[], BacktestResult], tmp_path: Path
) -> None:
    layouts = browser.lay_out(chromium, render_html(example()), WIDTHS, tmp_path)

    assert [layout.width for layout in layouts] == WIDTHS
    for layout in layouts:
        assert layout.outside == []
        assert layout.spilling == []
        assert layout.active == []


def test_the_page_is_dark_where_the_readers_system_is(chromium: Path, tmp_path: Path) -> None:
    page = render_html(backtest_examples.ordinary())

    [light] = browser.lay_out(chromium, page, [1280], tmp_path)
    [dark] = browser.lay_out(chromium, page, [1280], tmp_path, dark=True)

    assert (light.background, dark.background) == ("rgb(255, 255, 255)", "rgb(18, 22, 29)")
