"""The page of a look as a real browser shows it: on a phone, on a desk, in the dark."""

from __future__ import annotations

from pathlib import Path

import pytest

from perennial.reports.drift import render_html
from tests import browser
from tests.drift_examples import look

BROWSERS = [found for found in [browser.chromium()] if found]
WIDTHS = [360, 720, 1280]

pytestmark = pytest.mark.parametrize("chromium", BROWSERS, ids=lambda path: path.name)


def test_nothing_overflows_runs_or_is_fetched(chromium: Path, tmp_path: Path) -> None:
    layouts = browser.lay_out(chromium, render_html(look()), WIDTHS, tmp_path)

    assert [layout.width for layout in layouts] == WIDTHS
    for layout in layouts:
        assert layout.outside == []
        assert layout.spilling == []
        assert layout.active == []


def test_the_page_is_dark_where_the_readers_system_is(chromium: Path, tmp_path: Path) -> None:
    [light] = browser.lay_out(chromium, render_html(look()), [1280], tmp_path)
    [dark] = browser.lay_out(chromium, render_html(look()), [1280], tmp_path, dark=True)

    assert (light.background, dark.background) == ("rgb(255, 255, 255)", "rgb(18, 22, 29)")
