"""The status page as a real browser shows it: on a phone, on a desk, in the dark."""

from __future__ import annotations

from pathlib import Path

import pytest

from perennial.serving.status import render_status
from tests import browser, status_examples

BROWSERS = [found for found in [browser.chromium()] if found]
WIDTHS = [360, 720, 721, 1280]

pytestmark = pytest.mark.parametrize("chromium", BROWSERS, ids=lambda path: path.name)


@pytest.mark.parametrize("example", [status_examples.ordinary, status_examples.hostile])
def test_nothing_overflows_on_a_phone_or_on_a_desk(
    chromium: Path, example: object, tmp_path: Path
) -> None:
    assert callable(example)
    page = render_status(*example(), status_examples.NOW)

    layouts = browser.lay_out(chromium, page, WIDTHS, tmp_path)

    assert [layout.width for layout in layouts] == WIDTHS
    for layout in layouts:
        assert layout.outside == []
        assert layout.spilling == []


def test_hostile_names_and_reasons_run_and_fetch_nothing(chromium: Path, tmp_path: Path) -> None:
    page = render_status(*status_examples.hostile(), status_examples.NOW)

    [layout] = browser.lay_out(chromium, page, [1280], tmp_path)

    assert layout.active == []


def test_the_page_is_dark_where_the_readers_system_is(chromium: Path, tmp_path: Path) -> None:
    page = render_status(*status_examples.ordinary(), status_examples.NOW)

    [light] = browser.lay_out(chromium, page, [1280], tmp_path)
    [dark] = browser.lay_out(chromium, page, [1280], tmp_path, dark=True)

    assert (light.background, dark.background) == ("rgb(255, 255, 255)", "rgb(18, 22, 29)")
