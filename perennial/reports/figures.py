"""Numbers and times as a reader wants them: no more digits than the measurement carries."""

from __future__ import annotations

from datetime import datetime
from math import floor, isfinite, log10
from typing import NamedTuple

MINUS = "\u2212"


class Ranged(NamedTuple):
    """A value and the bounds of its interval, in the same decimals."""

    value: str
    low: str
    high: str

    def __str__(self) -> str:
        return f"{self.value} ({self.low} to {self.high})"


def number(value: float | None, digits: int = 4) -> str:
    """Four significant digits, from 1,000 on whole; a dash where there is none."""
    if value is None or not isfinite(value):
        return "\u2013"
    if abs(value) >= 1000:
        return _minus(f"{value:,.0f}")
    return _minus(f"{value:.{digits}g}")


def ranged(value: float, low: float, high: float, *, sign: bool = False) -> Ranged:
    """As many decimals as show two digits of half the interval's width, at most 8.

    With ``sign`` what is above 0 has a plus.
    """
    half = (high - low) / 2
    if isfinite(half) and half > 0:
        decimals = min(max(1 - floor(log10(half)), 0), 8)
        texts = [_minus(f"{v:,.{decimals}f}") for v in (value, low, high)]
    else:
        texts = [number(v) for v in (value, low, high)]
    return Ranged(*(_signed(text) if sign else text for text in texts))


def alike(value: float, shown: str) -> str:
    """A value in the decimals of a number already shown."""
    return _minus(f"{value:,.{len(shown.partition('.')[2])}f}")


def percent(share: float) -> str:
    """A share to a tenth of a percent, tiny ones as such."""
    if 0 < share < 0.0005:
        return "<\u202f0.1\u202f%"
    return f"{100 * share:.1f}\u202f%"


def moment(text: str) -> str:
    """An ISO time as a date, with the time of day where it is not midnight."""
    when = datetime.fromisoformat(text)
    return f"{when:%Y-%m-%d}" if when.strftime("%H%M%S") == "000000" else f"{when:%Y-%m-%d %H:%M}"


def _signed(text: str) -> str:
    if not any(c in "123456789" for c in text):
        return text.removeprefix(MINUS)
    return text if text.startswith(MINUS) else f"+{text}"


def _minus(text: str) -> str:
    return text.replace("-", MINUS)
