"""A look on paper: the finding first; nothing that is in the data becomes markup."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET

import pytest

from perennial.contracts.retraining import Finding
from perennial.reports.drift import headline, render_html, render_markdown
from perennial.reports.drift_picture import draw
from tests.drift_examples import BAD, look


@pytest.mark.parametrize(
    ("finding", "said"),
    [
        (Finding.NONE, "parcels@3: no drift"),
        (Finding.CONCEPT, "parcels@3: concept drift"),
        (Finding.FAULT, "parcels@3: data quality fault"),
    ],
)
def test_the_headline_says_of_whom_what_was_found(finding: Finding, said: str) -> None:
    assert headline(look(finding)) == said
    assert f"<h1>{said}</h1>" in render_html(look(finding))
    assert said.replace("_", "\\_") in render_markdown(look(finding)).splitlines()[0]


def test_the_page_is_whole_and_nothing_in_the_data_becomes_markup() -> None:
    page = render_html(look())
    assert page == render_html(look())
    assert "<img" not in page
    assert "<script" not in page
    assert "default-src 'none'" in page
    for said in (
        "2026-05-08 06:00 to 2026-05-15 06:00 UTC, 900 rows",
        "700 of 800 that are due, 100 to come",
        "drawn from at most 20,000 rows a side",
        "12 labels are of no prediction",
        "unseen categories",
        '<a href="evidently-drift.html">',
        "−0.100",
    ):
        assert said in page, said


def test_the_artifact_has_the_finding_tables_picture_and_places() -> None:
    text = render_markdown(look())
    assert text.startswith("# ✗ parcels@3: harmful drift\n\na loss, \\<img src=x")
    lines = text.splitlines()
    assert "| items | stable | 50.0 % | 0 | 0.1 | 2.0 % |" in lines
    assert any(
        line.startswith("| logloss by labels, against the promise | worse |") for line in lines
    )
    assert "The page: `/p/drift/a/drift.html`" in lines
    assert "Its history: `evidently ui --workspace /p/evidently`" in lines
    pictures = re.findall(r"\(data:image/svg\+xml;base64,([^)]+)\)", text)
    assert len(pictures) == 2
    assert all(ET.fromstring(base64.b64decode(each)).tag.endswith("svg") for each in pictures)
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1


def test_a_look_at_nothing_can_be_shown() -> None:
    nothing = look(
        Finding.INCONCLUSIVE, version=None, drift=None, realised=None, labels=None, pictures={},
        reports=None, notes=(), rows=0,
    )  # fmt: skip
    assert "<h1>parcels: inconclusive</h1>" in render_html(nothing)
    assert render_markdown(nothing).startswith("# ? parcels: inconclusive\n")


def test_each_picture_stands_alone_and_shows_shares_by_length() -> None:
    drawn = draw(look().pictures, {BAD: "drifted"})
    assert list(drawn) == [BAD, "items"]
    shares = {}
    for name, text in drawn.items():
        svg = ET.fromstring(text)
        bars = [
            float(bar.get("width", ""))
            for bar in svg.iter("{http://www.w3.org/2000/svg}rect")
            if bar.get("class") in ("before", "after")
        ]
        assert svg.get("aria-label") == f"{name} before and after"
        shares[svg.get("class")] = [round(bar / max(bars), 2) for bar in bars]
    assert shares == {"drift drifted": [0.25, 1.0, 0.75, 0.0], "drift stable": [1.0, 1.0]}
    assert draw({}, {}) == {}
