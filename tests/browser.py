"""A real browser for tests, where the machine has one: Chromium, headless."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

# Each page is laid out in a frame of its own width, and measured from outside: it has no scripts.
_MEASURE = """
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map((frame) => {
    const page = frame.contentDocument, width = frame.clientWidth;
    const name = (e) => e.tagName.toLowerCase() + " " + e.textContent.trim().slice(0, 60);
    const clipped = (e) => { for (; e; e = e.parentElement)
      if (frame.contentWindow.getComputedStyle(e).overflowX !== "visible") return true; };
    const all = [...page.body.querySelectorAll("*")].filter((e) => !clipped(e));
    return {
      width: page.documentElement.scrollWidth,
      cut: [...page.querySelectorAll("svg")]
        .filter((e) => e.getBoundingClientRect().right > width + 0.5).map(name),
      outside: all.filter((e) => e.getBoundingClientRect().right > width + 0.5).map(name),
      spilling: all.filter((e) => e.clientWidth && e.scrollWidth > e.clientWidth + 1).map(name),
      active: [...page.querySelectorAll("script, img, iframe, [onerror]")].map(name),
      background: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
    };
  });
  document.body.innerHTML = "<pre></pre>";
  document.querySelector("pre").textContent = JSON.stringify(found);
});
"""


@dataclass(frozen=True, slots=True)
class Layout:
    """A page as the browser laid it out, in CSS pixels. Elements are told by tag and text.

    ``outside`` reach beyond the page's right edge; ``cut`` are pictures that do, also where one can
    scroll to the rest; what ``spilling`` ones hold is wider than they
    are; ``active`` are elements that run or fetch something.
    """

    width: int
    cut: list[str]
    outside: list[str]
    spilling: list[str]
    active: list[str]
    background: str


def chromium() -> Path | None:
    """None where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    return Path(found) if found else None


def lay_out(
    browser: Path, page: str, widths: Sequence[int], folder: Path, *, dark: bool = False
) -> list[Layout]:
    """Lay a page out in windows of some widths. ``folder`` is for the browser's own files."""
    style = "height: 800px; border: 0"
    frames = "".join(
        f'<iframe srcdoc="{html.escape(page)}" style="width: {width}px; {style}"></iframe>'
        for width in widths
    )
    wrapper = folder / "wrapper.html"
    wrapper.write_text(
        f'<!doctype html><meta charset="utf-8"><body>{frames}<script>{_MEASURE}</script>',
        encoding="utf-8",
    )
    command = [
        str(browser),
        "--headless",
        "--no-sandbox",  # which root can't have
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        "--dump-dom",
        wrapper.as_uri(),
    ]
    run = subprocess.run(command, capture_output=True, check=True, timeout=120)
    result = re.search(r"<pre>(.*)</pre>", run.stdout.decode(), re.DOTALL)
    assert result is not None
    return [Layout(**found) for found in json.loads(html.unescape(result[1]))]
