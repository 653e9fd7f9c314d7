"""What commands print is what they were given."""

from __future__ import annotations

import pytest

from perennial.cli.outcome import print_run
from perennial.cli.output import console, table_of
from perennial.contracts.runs import Decision, RunSummary


def test_brackets_and_colons_in_a_row_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    texts = ("[/b]", '["red"]', "[red]", ":warning:", "x" * 300)
    table = table_of("f1[macro]", *"abcd")
    table.add_row(*texts)
    out = console()
    out.print(table)
    out.print(" ".join(texts), style="bold")
    heading, row, line = capsys.readouterr().out.splitlines()
    assert heading.split() == ["f1[macro]", *"abcd"]
    assert row.split() == line.split() == [*texts]


def test_a_run_tells_what_its_data_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    summary = RunSummary(
        model="rides", as_of=None, trigger="by hand", champion=None, bundle_digest="d",
        decision=Decision(action="kept", version=None, reason="a gate said no"),
        bundle_uri="/bundles/d", report_uri=None, study="s", tracking_group="s", rows=3, stages=(),
        warnings=("2 rows come again, such as id=[red]",),
    )  # fmt: skip
    print_run(summary)
    printed = capsys.readouterr().out
    assert "\nwarning: 2 rows come again, such as id=[red]\n" in printed
    assert printed.index("warning: ") < printed.index("a gate said no")
