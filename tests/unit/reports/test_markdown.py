"""Text from data stays text in Markdown."""

from __future__ import annotations

import pytest

from perennial.reports.markdown import code, lines, plain


@pytest.mark.parametrize("mark", list(r"\`*_[]<>|#~&"))
def test_a_mark_is_escaped(mark: str) -> None:
    assert plain(f"a{mark}b") == f"a\\{mark}b"


def test_a_line_break_would_end_a_table_so_it_becomes_a_space() -> None:
    assert plain("a\n\n| b\r\nc") == r"a \| b c"


def test_line_breaks_may_be_kept() -> None:
    assert lines("a|b\n<c>") == r"a\|b<br>\<c\>"


def test_a_path_is_shown_as_it_is_even_with_a_backtick_in_it() -> None:
    assert code("/tmp/my_model") == "`/tmp/my_model`"
    assert code("/tmp/a`b") == "`` /tmp/a`b ``"
