"""A batch's audit as Markdown: what each check found, then what the columns hold."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from perennial.reports.figures import moment, number, percent
from perennial.reports.markdown import lines, plain, row

_MOST_COLUMNS = 100
_COMMONEST = 3
_SIGNS = {"passed": "✓", "warned": "⚠", "failed": "✗"}


class _Finding(Protocol):
    @property
    def check(self) -> str: ...
    @property
    def outcome(self) -> str: ...
    @property
    def what(self) -> str: ...
    @property
    def fix(self) -> str: ...


class Audit(Protocol):
    """What is rendered of an audit (``perennial.data.audit.ValidationReport``)."""

    @property
    def model(self) -> str: ...
    @property
    def passed(self) -> bool: ...
    @property
    def findings(self) -> tuple[_Finding, ...]: ...


def verdict(audit: Audit) -> str:
    """What the audit came to, in a few words."""
    outcomes = [finding.outcome for finding in audit.findings]
    if not audit.passed:
        failed = dict.fromkeys(f.check for f in audit.findings if f.outcome == "failed")
        return f"batch refused, nothing was published: {', '.join(failed)}"
    warned = outcomes.count("warned")
    return "batch accepted" + (f", {warned} warning{'s' * (warned > 1)}" if warned else "")


def render_validation(audit: Audit, profile: Mapping[str, Any]) -> str:
    """Markdown for a Prefect artifact. ``profile`` is ``BatchStats.profile``: of the good rows."""
    text = [
        f"# {plain(audit.model)}: {plain(verdict(audit))}",
        "",
        "| | check | finding |",
        "|---|---|---|",
    ]
    for finding in audit.findings:
        what = lines(finding.what)
        if finding.fix and finding.outcome != "passed":
            what += f"<br>*{plain(finding.fix)}*"
        text.append(row(_SIGNS.get(finding.outcome, "?"), plain(finding.check), what))
    columns: Mapping[str, Mapping[str, Any]] = profile.get("columns", {})
    if not profile.get("rows"):
        return "\n".join(text) + "\n"

    text += [
        "",
        f"## {profile['rows']:,} good rows",
        "",
        "| column | type | missing | values |",
        "|---|---|--:|---|",
    ]
    for name, column in list(columns.items())[:_MOST_COLUMNS]:
        text.append(row(plain(name), plain(column["type"]), _missing(column), _values(column)))
    hidden = len(columns) - _MOST_COLUMNS
    if hidden > 0:
        text += ["", f"… and {hidden:,} more columns."]
    return "\n".join(text) + "\n"


def _missing(column: Mapping[str, Any]) -> str:
    missing = column["missing"]
    share = percent(missing / (missing + column["count"])) if missing else ""
    return f"{missing:,} ({share})" if missing else "0"


def _values(column: Mapping[str, Any]) -> str:
    """``0 to 42.6, mean 12.6, median 11.5`` · ``16 different: UA 17.3 %, …`` · a span of time."""
    count = column["count"]
    if not count:
        return "none"
    if column["type"] == "datetime":
        return f"{moment(column['min'])} to {moment(column['max'])}{_zone(column['max'])}"
    if "levels" in column:
        levels = list(column["levels"].items())
        shown = ", ".join(f"{plain(str(k))} {percent(n / count)}" for k, n in levels[:_COMMONEST])
        more = ", …" if len(levels) > _COMMONEST or column["other"] else ""
        about = "about " if column["other"] else ""
        return f"{about}{column['distinct']:,} different: {shown}{more}"
    if column["type"] == "boolean":
        return f"true in {percent(column['mean'])}"
    median = column["quantiles"].get("0.5")
    middle = f", median {number(median)}" if median is not None else ""
    low, high = number(column["min"]), number(column["max"])
    return f"{low} to {high}, mean {number(column['mean'])}{middle}"


def _zone(text: str) -> str:
    return " UTC" if datetime.fromisoformat(text).tzinfo else ""
