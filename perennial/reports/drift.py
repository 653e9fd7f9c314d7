"""A look of the drift watch as a page and as Markdown: the finding first, then why."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import PurePath
from typing import NamedTuple

from markupsafe import Markup

from perennial.contracts.drift import ColumnDrift
from perennial.contracts.performance import PerformanceChange
from perennial.contracts.retraining import Finding
from perennial.contracts.watching import Look
from perennial.reports.drift_picture import draw
from perennial.reports.figures import number, percent, ranged
from perennial.reports.markdown import code, picture, plain, row
from perennial.reports.pages import template

SIGNS = {
    Finding.NONE: "✓",
    Finding.BENIGN: "✓",
    Finding.HARMFUL: "✗",
    Finding.CONCEPT: "✗",
    Finding.FAULT: "!",
    Finding.INCONCLUSIVE: "?",
}
_CSS = {"✓": "passed", "✗": "failed", "!": "error", "?": "inconclusive"}
_COLUMN_CSS = {"drifted": "failed", "stable": "passed", "fault": "error"}
_CHANGE_CSS = {"worse": "failed", "as expected": "passed", "better": "passed"}
_MOST_COLUMNS = 200
_MOST_COLUMNS_IN_MARKDOWN = 15


class ColumnRow(NamedTuple):
    column: str
    outcome: str
    css: str
    weight: str
    effect: str
    limit: str
    shows: str
    reason: str


class PerformanceRow(NamedTuple):
    what: str
    change: str
    css: str
    observed: str
    expected: str
    gain: str
    n: str
    reason: str


def headline(look: Look) -> str:
    """What the look came to: ``flight-delay@3: harmful drift``."""
    found = "no drift" if look.finding is Finding.NONE else str(look.finding)
    return f"{_name(look)}: {found}"


def render_html(look: Look) -> str:
    """One self-contained page: no script, nothing fetched. Same look, same text."""
    sign = SIGNS[look.finding]
    rows = list(column_rows(look))
    return template("perennial.reports", "drift.html.j2").render(
        title=headline(look),
        look=look,
        sign=sign,
        css=_CSS[sign],
        window=window(look),
        facts=list(_facts(look)),
        performance=list(performance_rows(look)),
        columns=rows[:_MOST_COLUMNS],
        hidden=len(rows[_MOST_COLUMNS:]),
        drawings=list(_drawings(look).values()),
        links=list(_links(look)),
    )


def render_markdown(look: Look) -> str:
    """The same, compact, for a Prefect artifact."""
    text = [f"# {SIGNS[look.finding]} {plain(headline(look))}", "", plain(look.reason), ""]
    text += [f"- **{what}**: {plain(fact)}" for what, fact in _facts(look)]
    if measured := list(performance_rows(look)):
        heads = ("performance", "", "observed", "expected", "gain", "rows")
        text += ["", row(*heads), "|---|---|--:|--:|--:|--:|"]
        for p in measured:
            cells = (p.what, p.change, p.observed, p.expected, p.gain, p.n)
            text.append(row(*map(plain, cells)))
    columns = list(column_rows(look))
    if columns:
        heads = ("column", "", "importance", "effect", "limit", "shows from")
        text += ["", row(*heads), "|---|---|--:|--:|--:|--:|"]
    for c in columns[:_MOST_COLUMNS_IN_MARKDOWN]:
        cells = (c.column, c.outcome, c.weight, c.effect, c.limit, c.shows)
        text.append(row(*map(plain, cells)))
    if hidden := len(columns[_MOST_COLUMNS_IN_MARKDOWN:]):
        text += ["", f"… and {hidden:,} more, on the page."]
    if drawings := _drawings(look):
        shown = (picture(f"{name} before (grey) and after", svg) for name, svg in drawings.items())
        text += ["", " ".join(shown)]
    if look.notes:
        text += ["", *(f"- {plain(note)}" for note in look.notes)]
    if look.reports:
        text += ["", f"The page: {code(look.reports.html_uri)}"]
        pages = look.reports.evidently.items()
        text += [f"Evidently, {plain(what)}: {code(at)}" for what, at in pages]
    if look.reports and look.reports.workspace:
        text.append(f"Its history: {code(f'evidently ui --workspace {look.reports.workspace}')}")
    return "\n\n".join(_paragraphs(text)) + "\n"


def column_rows(look: Look) -> Iterator[ColumnRow]:
    for c in look.drift.columns if look.drift else ():
        yield ColumnRow(
            column=c.column,
            outcome=str(c.fault or c.outcome),
            css=_COLUMN_CSS.get(c.outcome, "inconclusive"),
            weight=percent(c.weight) if c.weight else "",
            effect="" if c.effect is None else number(c.effect, 2),
            limit="" if c.limit is None else number(c.limit, 2),
            shows=_shows(c),
            reason=c.reason,
        )


def performance_rows(look: Look) -> Iterator[PerformanceRow]:
    """By labels, estimated, and labels against the estimate; what was not measured is left out."""
    for what, change in (
        ("by labels, against the promise", look.realised),
        ("estimated, against the promise", look.estimated),
        ("by labels, against the estimate", look.unexplained),
    ):
        if change is not None:
            yield _performance_row(what, change)


def window(look: Look) -> str:
    start, end = (_moment(moment) for moment in look.window)
    return f"{start} to {end} UTC"


def _performance_row(what: str, change: PerformanceChange) -> PerformanceRow:
    e = change.evidence
    gain = ""
    if e.value is not None and e.low is not None and e.high is not None:
        gain = str(ranged(e.value, e.low, e.high, sign=True))
    metric = next((x.metric for x in (change.observed, change.expected) if x is not None), "")
    return PerformanceRow(
        what=f"{metric} {what}".strip(),
        change=change.change,
        css=_CHANGE_CSS.get(change.change, "inconclusive"),
        observed=number(change.observed.value if change.observed else None),
        expected=number(change.expected.value if change.expected else None),
        gain=gain,
        n=f"{e.n:,}" if e.n else "",
        reason=change.reason,
    )


def _facts(look: Look) -> Iterator[tuple[str, str]]:
    yield "window", f"{window(look)}, {look.rows:,} rows"
    if look.drift is not None:
        share = percent(look.drift.drifted_share)
        allowed = percent(look.drift.max_drifted_share)
        yield "importance that drifted", f"{share}, {allowed} allowed"
        yield "reference", f"{look.drift.reference_rows:,} training rows"
    if look.labels is not None:
        counts = look.labels
        of = f"{counts.labelled_due:,} of {counts.due:,} that are due"
        yield "labels", f"{of}, {counts.pending:,} to come"
    if look.reports is not None and look.reports.evidently:
        yield "Evidently", f"drawn from at most {look.reports.sampled_rows:,} rows a side"


def _links(look: Look) -> Iterator[tuple[str, str]]:
    """Pages beside this one."""
    if look.reports is not None:
        for what, place in look.reports.evidently.items():
            yield f"Evidently: {what}", PurePath(place).name
        yield "this look as JSON", PurePath(look.reports.json_uri).name


def _drawings(look: Look) -> dict[str, Markup]:
    outcomes = {c.column: str(c.outcome) for c in (look.drift.columns if look.drift else ())}
    return draw(look.pictures, outcomes)


def _shows(column: ColumnDrift) -> str:
    """The least change that windows of this size would show nine times of ten."""
    if column.found_as is None:
        return ""
    value, unit = column.found_as
    return percent(value) if unit == "share" else f"{number(value, 2)} spreads"


def _name(look: Look) -> str:
    return f"{look.model}@{look.version.version}" if look.version else look.model


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}".removesuffix(":00")


def _paragraphs(lines: list[str]) -> Iterator[str]:
    """Lines of a list or a table stay together; what is not of one stands by itself."""
    block: list[str] = []
    for line in lines:
        kin = line.startswith(("| ", "|-", "- "))
        if block and not (kin and block[-1].startswith(line[:1])):
            yield "\n".join(block)
            block = []
        if line:
            block.append(line)
    if block:
        yield "\n".join(block)
