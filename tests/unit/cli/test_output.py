"""What commands print is what they were given."""

from __future__ import annotations

import pytest

from perennial.cli.output import console, table_of


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
