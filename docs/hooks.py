"""What the docs site needs besides its pages: MkDocs calls these functions by their names.

The pages link to files of the repository beside ``docs`` as GitHub shows them. Those that have a
place on the site (``_BESIDE``) get it here; of a link to another file only its text is left. One to
a file that isn't there stays, and fails a strict build.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_BESIDE = {"benchmarks/README.md": "benchmarks.md", "CHANGELOG.md": "changelog.md"}
"""Files of the repository that are pages of the site, by their path from the repository's root."""
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Every page is in the navigation: ``adr/`` stands for all decisions, and ``*`` for the pages
    of ``docs`` itself that have no place of their own."""
    docs = Path(config.docs_dir)
    named = {*_named(config.nav), *_BESIDE.values()}
    rest = sorted(path.name for path in docs.glob("*.md") if path.name not in named)
    config.nav = [_expanded(item, docs, rest) for item in config.nav or []]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie beside ``docs``."""
    root = Path(config.docs_dir).parent
    for source, place in _BESIDE.items():
        files.append(File.generated(config, place, abs_src_path=str(root / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Point links at the site's places. ``page`` may itself come from beside ``docs``."""
    root = Path(config.docs_dir).parent
    place = page.file.src_uri
    origin = next((source for source, at in _BESIDE.items() if at == place), f"docs/{place}")

    def there(link: re.Match[str]) -> str:
        text, target, anchor = link.groups(default="")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
        if "://" in target or not (root / path).exists():
            return link.group()
        on_site = _BESIDE.get(path) or (path[5:] if path.startswith("docs/") else None)
        if on_site is None:
            return text
        way = posixpath.relpath(on_site, posixpath.dirname(place) or ".")
        return f"[{text}]({way}{anchor})"

    return _LINK.sub(there, markdown)


def _named(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for item in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from _named(item)


def _expanded(item: Any, docs: Path, rest: list[str]) -> Any:
    if not isinstance(item, dict):
        return item
    ((title, below),) = item.items()
    if isinstance(below, list):
        pages = [each for entry in below for each in (rest if entry == "*" else [entry])]
        return {title: [_expanded(each, docs, rest) for each in pages]}
    if below.endswith("/"):
        pages = sorted(path.name for path in (docs / below).glob("[0-9]*.md"))
        return {title: [f"{below}README.md", *(f"{below}{name}" for name in pages)]}
    return item
