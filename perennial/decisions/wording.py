"""Figures in the sentences that decisions give as their reasons."""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST = 60


def figure(value: float, digits: int = 4) -> str:
    """A number in four significant digits, from 1,000 on without a fraction."""
    value += 0.0  # -0.0 reads as 0
    if abs(value) >= 1000:
        return f"{value:,.{max(digits - 4, 0)}f}"
    short = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e+" in short else short


def unlike(value: float, limit: float) -> str:
    """A number in as many digits as show on which side of the limit it lies."""
    for digits in range(4, 17):
        if value == limit or figure(value, digits) != figure(limit, digits):
            return figure(value, digits)
    return repr(value)


def percent(share: float) -> str:
    """A confidence in four digits, in six where it would read 100."""
    return f"{100 * share:.{4 if share < 0.9995 else 6}g} %"


def counted(number: int, what: str = "row") -> str:
    """So many of what ``what`` is one of."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def listed(names: Iterable[str]) -> str:
    return ", ".join(shortened(name) for name in names)


def shortened(text: str) -> str:
    """A value from the data, bounded."""
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
