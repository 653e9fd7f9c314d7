"""The page of a rollout as a real browser shows it: on a phone, on a desk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import browser
from tests.rollout_examples import page

BROWSERS = [found for found in [browser.chromium()] if found]
WIDTHS = [360, 720, 1280]


@pytest.mark.parametrize("chromium", BROWSERS, ids=lambda path: path.name)
def test_nothing_overflows_runs_or_is_fetched(chromium: Path, tmp_path: Path) -> None:
    layouts = browser.lay_out(chromium, page(), WIDTHS, tmp_path)

    assert [layout.width for layout in layouts] == WIDTHS
    for layout in layouts:
        assert layout.outside == []
        assert layout.spilling == []
        assert layout.active == []
