"""What in a window looks like a broken upstream: apart from drift, and never a cause to retrain.

All but a column that is gone or of another type need rows enough to be sure, and a change that no
world makes: weather may be dry for a week, so a column that is constant at its usual value is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist

from perennial.contracts.drift import Bins, ColumnCounts, Fault
from perennial.decisions.wording import listed, percent

_MISSING_RISE = 0.2
_MISSING_ODDS = 8.0
_UNSEEN_RISE = 0.5
_IMPOSSIBLE = 0.02
_USUAL = 0.75


def find_fault(
    bins: Bins,
    before: ColumnCounts,
    blocks: Sequence[ColumnCounts],
    after: ColumnCounts,
    rows: int,
    rate: float,
    enough: int,
) -> tuple[Fault, str] | None:
    """The first fault of a column and its reason. ``blocks`` are stretches of the training time:
    what was constant in one of them may be again. ``rate`` is how often a fault may be found by
    chance, ``enough`` the rows below which nothing is said of shares."""
    if after.mistyped:
        was = f"{after.mistyped:,} of {rows:,} rows have {listed(after.types)}"
        return Fault.TYPE, f"{was}, not a {bins.kind}"
    if after.absent and after.absent >= _MISSING_RISE * rows:
        return Fault.GONE, f"{after.absent:,} of {rows:,} rows don't have it"
    if after.rows < enough or before.rows < enough:
        return None
    return (
        _missing(before, after, rate)
        or _impossible(before, after, rate)
        or _unseen(bins, before, after, rate)
        or _constant(bins, (before, *blocks), after, rate)
    )


def _missing(before: ColumnCounts, after: ColumnCounts, rate: float) -> tuple[Fault, str] | None:
    p, q = before.missing / before.rows, after.missing / after.rows
    odds = _odds(after.missing, after.present) / _odds(before.missing, before.present)
    risen = q - p >= _MISSING_RISE and odds >= _MISSING_ODDS
    if not (risen and _surely_more(before.missing, before.rows, after.missing, after.rows, rate)):
        return None
    what = "all" if not after.present else percent(q)
    return Fault.MISSING, f"{what} of {after.rows:,} values are missing, {percent(p)} in training"


def _impossible(before: ColumnCounts, after: ColumnCounts, rate: float) -> tuple[Fault, str] | None:
    """Training has none of them: they were put in quarantine."""
    bad = max(after.impossible, after.infinite)
    if not after.present or bad / after.present < _IMPOSSIBLE:
        return None
    was = max(before.impossible, before.infinite)
    if not _surely_more(was, max(before.present, 1), bad, after.present, rate):
        return None
    if after.infinite > after.impossible:
        return Fault.IMPOSSIBLE, f"{bad:,} of {after.present:,} values are infinite"
    what = f"{bad:,} of {after.present:,} values are not possible by model.yaml"
    return Fault.IMPOSSIBLE, what


def _unseen(
    bins: Bins, before: ColumnCounts, after: ColumnCounts, rate: float
) -> tuple[Fault, str] | None:
    if bins.kind != "text" or not (after.present and before.present):
        return None
    p, q = before.unseen / before.present, after.unseen / after.present
    if q - p < _UNSEEN_RISE:
        return None
    if not _surely_more(before.unseen, before.present, after.unseen, after.present, rate):
        return None
    known = f"{percent(q)} of {after.present:,} values were never seen in training"
    return Fault.UNSEEN, f"{known}, where {percent(p)} were as new"


def _constant(
    bins: Bins, known: Sequence[ColumnCounts], after: ColumnCounts, rate: float
) -> tuple[Fault, str] | None:
    alike = after.least is not None and after.least == after.greatest
    if bins.kind == "time" or not alike or any(c.least == c.greatest for c in known):
        return None
    before = known[0]
    place = next(i for i, count in enumerate(after.counts[:-1]) if count)
    share = (before.counts[place] + 1) / (before.present + 1)
    if share > _USUAL or share**after.present > rate:
        return None
    what = f"all {after.present:,} values are the same one"
    return Fault.CONSTANT, f"{what}, which at most {percent(share)} were in training"


def _odds(yes: int, no: int) -> float:
    return (yes + 0.5) / (no + 0.5)


def _surely_more(before: int, n: int, after: int, m: int, rate: float) -> bool:
    """Whether a share is greater by more than chance, by the normal approximation."""
    pooled = (before + after) / (n + m)
    error = sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    if not error:
        return False
    return (after / m - before / n) / error > NormalDist().inv_cdf(1 - rate)
