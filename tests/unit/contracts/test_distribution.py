"""What a reader of the docs, an error or an export is told to install is ours, nobody else's."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from perennial import __version__
from perennial.contracts.distribution import DISTRIBUTION, pip_install

ROOT = Path(__file__).parents[3]
PLACES = ("README.md", "docs/**/*.md", "perennial/**/*.py", "deployments/**/*", "tasks/*.py")


def test_the_name_is_that_of_the_project_and_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == DISTRIBUTION
    assert version(DISTRIBUTION) == __version__
    assert set(re.findall(r"\w+", pip_install("otel", "dask").split("[")[1])) <= set(
        project["optional-dependencies"]
    )


@pytest.mark.parametrize("place", PLACES)
def test_no_text_asks_for_the_project_of_another_that_has_the_short_name(place: str) -> None:
    texts = {
        path: path.read_text()
        for path in ROOT.glob(place)
        if path.suffix != ".pyc" and path.is_file()
    }
    wrong = re.compile(r"\bperennial\[|pip install [^#\n]*?(?<![./\w-])'?perennial(?![\w-])")
    assert texts
    assert [path.name for path, text in texts.items() if wrong.search(text)] == []
