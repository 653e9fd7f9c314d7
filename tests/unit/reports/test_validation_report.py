"""The page of an audit: the findings with what to do, then what the columns hold."""

from __future__ import annotations

from typing import Literal

import pandas as pd
import pyarrow as pa

from perennial.data.audit import BatchStats, Finding, ValidationReport
from perennial.data.frames import arrow_schema, table_columns
from perennial.data.profile import Profile
from perennial.reports.validation import render_validation, verdict
from perennial.spec import parse_spec

SPEC = parse_spec("""\
name: rides
objective: binary
source: {kind: csv, uri: x.csv, event_time: at}
label: {column: late}
columns:
  at: {type: datetime, nullable: false}
  city: {type: category}
  km: {type: float}
  empty: {type: float}
  "a|b": {type: float}
  late: {type: boolean}
split: {kind: time, validation: 1d, test: 1d}
""")


def _profile() -> dict[str, object]:
    columns = table_columns(SPEC)
    frame = pd.DataFrame(
        {
            "at": pd.to_datetime(["2024-01-01T10:00Z"] * 3 + ["2024-02-01T00:00Z"]),
            "city": ["Ulm", "<b>", "Ulm", None],
            "km": [1.5, 2.5, 12_345.0, None],
            "empty": [None] * 4,
            "a|b": [1.0] * 4,
            "late": [True, False, False, False],
        }
    )
    profile = Profile(columns)
    profile.add(pa.Table.from_pandas(frame, preserve_index=False).cast(arrow_schema(columns)))
    return profile.as_dict()


def _report(*findings: Finding) -> ValidationReport:
    stats = BatchStats(
        source="x.csv", full=True, whole=True, rows=4, bad_rows=0, before=0, after=0, start=None,
        end=None, ordered=True, repeats=0, conflicts=0, conflict_examples=(), undeclared=(),
        faults=(), profile=_profile(),
    )  # fmt: skip
    passed = all(finding.outcome != "failed" for finding in findings)
    return ValidationReport(model="rides", passed=passed, findings=findings, stats=stats)


def _finding(
    outcome: Literal["passed", "warned", "failed"], check: str = "label", what: str = "x"
) -> Finding:
    return Finding(check=check, outcome=outcome, what=what, fix="mend the source")


def _page(report: ValidationReport) -> list[str]:
    return render_validation(report, report.stats.profile).splitlines()


def test_the_verdict_counts_warnings_and_names_failed_checks_once() -> None:
    assert verdict(_report(_finding("passed"))) == "batch accepted"
    assert verdict(_report(_finding("warned"))) == "batch accepted, 1 warning"
    assert verdict(_report(_finding("warned"), _finding("warned"))) == "batch accepted, 2 warnings"
    failed = _report(_finding("failed"), _finding("failed"), _finding("failed", "rows"))
    assert verdict(failed) == "batch refused, nothing was published: label, rows"
    assert _page(failed)[0] == "# rides: batch refused, nothing was published: label, rows"


def test_a_finding_that_is_not_fine_says_what_to_do() -> None:
    page = _page(_report(_finding("passed"), _finding("warned"), _finding("failed")))
    assert "| ✓ | label | x |" in page
    assert "| ⚠ | label | x<br>*mend the source* |" in page
    assert "| ✗ | label | x<br>*mend the source* |" in page


def test_findings_of_several_lines_stay_in_their_row_and_are_text() -> None:
    page = _page(_report(_finding("passed", what="3 rows\n'a|b' is <not> a number")))
    assert r"| ✓ | label | 3 rows<br>'a\|b' is \<not\> a number |" in page


def test_each_column_says_what_is_missing_and_what_it_holds() -> None:
    page = _page(_report(_finding("passed")))
    assert "## 4 good rows" in page
    rows = dict(line.strip("| ").split(" | ", 1) for line in page if line.startswith("| "))
    assert rows["at"] == "datetime | 0 | 2024-01-01 10:00 to 2024-02-01 UTC"
    assert rows["city"] == (
        "category | 1 (25.0\u202f%) | 2 different: Ulm 66.7\u202f%, \\<b\\> 33.3\u202f%"
    )
    assert rows["km"].startswith("float | 1 (25.0\u202f%) | 1.5 to 12,345, mean 4,116, median ")
    assert rows["empty"] == "float | 4 (100.0\u202f%) | none"
    assert rows["a\\|b"].startswith("float | 0 | 1 to 1, mean 1")
    assert rows["late"] == "boolean | 0 | true in 25.0\u202f%"


def test_a_batch_without_good_rows_has_no_table_of_columns() -> None:
    report = _report(_finding("failed"))
    assert "good rows" not in render_validation(report, {"rows": 0, "columns": {}})


def test_a_table_of_very_many_columns_is_cut_and_says_so() -> None:
    column = {"type": "float", "missing": 4, "count": 0}
    profile = {"rows": 4, "columns": {f"c{i}": column for i in range(130)}}
    text = render_validation(_report(_finding("passed")), profile)
    assert text.count("| float |") == 100
    assert text.endswith("… and 30 more columns.\n")
