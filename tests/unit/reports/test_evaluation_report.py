"""The page and the Markdown say what the report holds, safely and always the same."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from perennial.contracts.verdicts import (
    Estimate,
    EvaluationReport,
    Evidence,
    Judgement,
    Outcome,
    ServingCheck,
    SliceEstimate,
    Verdict,
)
from perennial.learning.bootstrap import score
from perennial.learning.curves import calibration, curves
from perennial.reports.evaluation import render_html, render_markdown

HOSTILE = "<img src=x onerror=alert(1)>|`*_[a](b)\nnew line"
SERVING = ServingCheck(
    loaded=True, identical=True, rows=1200, max_abs_difference=0.0, p50_ms=0.41, p99_ms=1.234
)


def verdict(outcome: Outcome, rule: str = "roc_auc at least 0.65", reason: str = "") -> Verdict:
    evidence = Evidence(rule=rule, limit=0.65, value=0.71234, low=0.7, high=0.72, n=1200)
    return Verdict(outcome=outcome, reason=reason or f"{rule}: 0.7123", evidence=evidence)


def report(objective: str = "binary", *, champion: bool = True, **changed) -> EvaluationReport:
    rng = np.random.default_rng(0)
    n = 1200
    truth = rng.normal(size=n)
    if objective == "regression":
        y, models = truth, [truth + rng.normal(size=n) * s for s in (0.3, 0.6)]
    elif objective == "binary":
        y = (rng.random(n) < 1 / (1 + np.exp(-truth))).astype(float)
        models = [1 / (1 + np.exp(-truth - rng.normal(size=n) * s)) for s in (0.1, 0.9)]
    else:
        y = rng.integers(0, 3, n).astype(float)
        models = []
        for strength in (2.0, 1.0):
            logits = rng.normal(size=(n, 3))
            logits[np.arange(n), y.astype(int)] += strength
            models.append(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    scored = score(objective, y, models, seed=1, replicates=100)
    metric = next(iter(scored[0].values))
    shop = pd.Series(rng.choice(["north", "south", HOSTILE], n))
    slices = []
    for level in shop.unique():
        at = (shop == level).to_numpy()
        part = score(objective, y[at], [m[at] for m in models], seed=1, replicates=50)
        compared = part[0].against(part[1], metric, 0.95, normal=True) if champion else None
        estimate = part[0].estimate(metric)
        assert estimate is not None
        slices.append(
            SliceEstimate(column="shop", level=level, estimate=estimate, comparison=compared)
        )
    compared = [scored[0].against(scored[1], m, 0.95) for m in scored[0].values]
    fields = {
        "model": "demand",
        "objective": objective,
        "bundle_digest": "c" * 64,
        "champion": 3 if champion else None,
        "champion_digest": "d" * 64 if champion else None,
        "holdout_rows": n,
        "holdout_start": "2013-07-01T00:00:00+00:00",
        "holdout_end": "2013-07-15T12:30:00+00:00",
        "estimates": scored[0].estimates(),
        "comparisons": [c for c in compared if c is not None] if champion else [],
        "slices": slices,
        "calibration": calibration(objective, y, models[0]),
        "curves": curves(objective, y, models[0], models[1]),
        "champion_curves": curves(objective, y, models[1], models[0]) if champion else [],
        "importance": {f"feature_{i}": float(i) for i in range(25)},
        "unseen_categories": {"dest": 1234},
        "serving": SERVING,
        "judgement": Judgement(
            outcome=Outcome.PASSED,
            reason="passed all 3 checks: roc_auc 0.7123",
            verdicts=(verdict(Outcome.PASSED),),
        ),
    }
    return EvaluationReport(**{**fields, **changed})


class Page(HTMLParser):
    """Text, tags and whether they nest."""

    VOID = ("meta", "br", "img", "link")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += " ".join(data.split()) + "\n" if data.strip() else ""


@pytest.mark.parametrize("champion", [True, False])
@pytest.mark.parametrize("objective", ["binary", "multiclass", "regression"])
def test_the_page_is_one_well_formed_file_that_fetches_nothing(objective, champion):
    html = render_html(report(objective, champion=champion))
    page = Page(html)
    assert html.startswith("<!doctype html>")
    assert len(html.encode()) < 100_000
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "img", "iframe", "object"}
    assert "url(" not in html
    assert "nan" not in page.text.lower().split()
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        ElementTree.fromstring(svg)
    headings = re.findall(r"<h3>(.*?)</h3>", html)
    assert (
        headings
        == {
            "binary": ["ROC", "Precision-recall", "Calibration"],
            "multiclass": ["ROC, mean over classes", "Calibration"],
            "regression": ["Residuals", "Predicted and observed", "Calibration"],
        }[objective]
    )
    assert ('class="champion"' in html) == champion


@pytest.mark.parametrize("objective", ["binary", "regression"])
def test_the_same_report_gives_the_same_bytes(objective):
    one, again = report(objective), report(objective)
    assert render_html(one) == render_html(again)
    assert render_markdown(one) == render_markdown(again)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_the_verdict_and_its_reason_come_before_all_figures(outcome):
    judgement = Judgement(
        outcome=outcome, reason=f"{outcome}: gain -0.0123", verdicts=(verdict(outcome),)
    )
    page = Page(render_html(report(judgement=judgement)))
    lines = page.text.split("\n")
    at = next(i for i, line in enumerate(lines) if line.endswith(str(outcome).capitalize()))
    assert lines[at + 1] == "gain -0.0123"
    assert at < lines.index("Gates")
    markdown = render_markdown(report(judgement=judgement)).split("\n")
    assert markdown[0].endswith(f"demand: {outcome}")
    assert markdown[2] == f"{outcome}: gain -0.0123"


def test_gates_show_value_bounds_limit_rows_and_the_reason_without_its_rule():
    lines = Page(render_html(report())).text.split("\n")
    at = lines.index("roc_auc at least 0.65")
    assert lines[at - 1 : at + 7] == [
        "✓ passed",
        "roc_auc at least 0.65",
        "0.7123",
        "0.712",
        "0.700 to 0.720",
        "0.65",
        "1,200",
        "Metrics, challenger against champion",
    ]


def test_what_comes_from_the_data_is_text_and_never_markup():
    bad = Judgement(
        outcome=Outcome.FAILED,
        reason=HOSTILE,
        verdicts=(verdict(Outcome.FAILED, rule=HOSTILE, reason=HOSTILE),),
    )
    hostile = report(
        model=HOSTILE,
        judgement=bad,
        importance={HOSTILE: 1.0},
        unseen_categories={HOSTILE: 1},
        serving=SERVING.model_copy(update={"identical": False, "error": HOSTILE}),
    )
    html = render_html(hostile, title=HOSTILE, links={HOSTILE: "javascript:alert(1)"})
    page = Page(html)
    assert "img" not in {tag for tag, _ in page.tags}
    assert "onerror=alert(1)>" in page.text
    assert not [a for tag, a in page.tags if tag == "a"]
    assert "javascript:alert(1)" in page.text
    markdown = render_markdown(hostile)
    assert re.search(r"(?<!\\)<", markdown) is None
    for line in markdown.split("\n"):
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (5, 6)


def test_links_that_are_safe_are_links():
    links = {"Prefect run": "https://prefect.example/runs/1", "Bundle": "../bundle"}
    page = Page(render_html(report(), links=links))
    assert [a["href"] for tag, a in page.tags if tag == "a"] == list(links.values())


def test_the_slice_that_lost_most_comes_first():
    made = report()
    gains = {s.level: s.comparison.gain for s in made.slices if s.comparison}
    worst = min(gains, key=lambda level: gains[level])
    text = Page(render_html(made)).text
    shown = re.findall(r"^shop\n(.*)$", text, re.MULTILINE)
    assert shown[0] == " ".join(worst.split())
    assert len(shown) == 3
    first = next(x for x in render_markdown(made).split("\n") if x.startswith("| shop"))
    assert first.startswith("| shop = " + worst.split("\n")[0][:5].replace("<", "\\<"))


def test_long_lists_are_bounded_and_say_how_much_is_hidden():
    estimate = Estimate(metric="logloss", value=0.5, low=0.4, high=0.6, n=10)
    many = [SliceEstimate(column="c", level=str(i), estimate=estimate) for i in range(100)]
    text = Page(render_html(report(slices=many))).text
    assert "40 more in the JSON beside this page." in text
    assert "5 more in the JSON beside this page." in text


def test_without_a_champion_nothing_is_compared_in_the_page():
    text = Page(render_html(report(champion=False))).text
    assert "there is no champion yet" in text
    assert "Gain" not in text
    assert "against champion" not in render_markdown(report(champion=False))


def test_rows_that_were_left_out_of_the_comparison_are_told_of():
    some, none = report(left_out_rows=1040), report()
    assert "Compared without1,040 rows that the champion was fitted to" in Page(
        render_html(some)
    ).text.replace("\n", "")
    assert " Compared without the 1,040 that the champion was fitted to." in render_markdown(some)
    for text in (render_html(none), render_markdown(none)):
        assert "ompared without" not in text


def test_a_report_with_nothing_measured_still_says_why():
    parts = ("estimates", "comparisons", "slices", "calibration", "curves", "champion_curves")
    empty = dict.fromkeys(parts, ())
    judgement = Judgement(
        outcome=Outcome.ERROR,
        reason="error: the probe could not be run",
        verdicts=(
            Verdict(
                outcome=Outcome.ERROR,
                reason="the probe could not be run",
                evidence=Evidence(rule="serving: loads"),
            ),
        ),
    )
    nothing = report(
        **empty,
        importance={},
        unseen_categories={},
        holdout_start=None,
        holdout_end=None,
        judgement=judgement,
        serving=ServingCheck(loaded=False, error="no space left"),
    )
    text = Page(render_html(nothing)).text
    for shown in ("the probe could not be run", "not compared", "no space left"):
        assert shown in text
    assert "None" not in text + render_markdown(nothing)


def test_markdown_holds_gates_metrics_and_the_worst_slices():
    made = report()
    text = render_markdown(made)
    assert "Candidate `cccccccccccc` against champion version 3 on 1,200 rows" in text
    assert ", 2013-07-01 to 2013-07-15 12:30 UTC." in text
    assert "| ✓ | roc\\_auc at least 0.65 | 0.712 (0.700 to 0.720) | 0.65 | 1,200 |" in text
    rows = [line for line in text.split("\n") if line.startswith("| logloss |")]
    assert len(rows) == 1
    figure, gain = r"0\.\d+", r"\+0\.\d+"
    candidate, gains = rf"{figure} \({figure} to {figure}\)", rf"{gain} \({gain} to {gain}\)"
    assert re.fullmatch(rf"\| logloss \| {candidate} \| {figure} \| {gains} \|", rows[0])
