"""The docs site: links lead somewhere, every page is in the navigation, nothing is fetched."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BESIDE = ("README.md", "CHANGELOG.md", "benchmarks/README.md")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LOADED = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. A warning (a dead link or anchor, a page that the navigation lacks) is an
    error, as in `make site`."""
    place = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return place


class _Resources(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and given.get("rel") in ("next", "prev", "canonical"):
            return
        self.found.append(given.get(_LOADED.get(tag, "")) or "")


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40

    foreign = [
        f"{page.relative_to(site)}: {resource}"
        for page in pages
        for resource in _Resources(page.read_text(encoding="utf-8")).found
        if re.match(r"(?:[a-z]+:)?//", resource)
    ]
    assert foreign == []
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert re.findall(r"url\(['\"]?(?:https?:)?//[^)]*\)", styles) == []


def test_the_source_of_no_page_and_no_code_is_on_the_site(site: Path) -> None:
    assert [path for path in site.rglob("*") if path.suffix in (".py", ".pyc", ".md")] == []


def test_files_that_the_pages_name_are_there() -> None:
    """A threat model that points to tests which are gone would say more than is true."""
    named = re.compile(r"`((?:tests|perennial|tasks|flows|deployments|benchmarks)/[\w./-]+)`")
    pages = sorted((ROOT / "docs").rglob("*.md"))
    found = {(page.name, path) for page in pages for path in named.findall(page.read_text("utf-8"))}

    assert ("security.md", "tests/unit/bundle/test_signing.py") in found
    assert sorted(each for each in found if not (ROOT / each[1]).exists()) == []


def _anchors(path: Path) -> set[str]:
    """Those that GitHub gives to a page's headings."""
    text = _FENCE.sub("", path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for heading in _HEADING.findall(text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        while slug in found:
            slug += "-1"
        found.add(slug)
    return found


@pytest.mark.parametrize("name", BESIDE)
def test_links_of_pages_beside_the_docs_lead_somewhere(name: str) -> None:
    page = ROOT / name
    dead = []
    for link in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            dead.append(link)
    assert dead == []
