"""Whether a window of traffic is still like what a version was trained on.

A column drifted when it is certainly and noticeably different: further from the reference than
chance puts it at these sizes, in a family of as many columns, and further than the least effect
that matters. A million rows make any difference certain and none greater; few rows make great ones
uncertain. So in windows without drift some column is found drifted at most as often as
``false_alarm_rate`` says, and less often where chance is smaller than what matters.

Rows of one time are alike: a week's weather is no sample of a year's. Where the reference knows its
rows' times, a column must also be further from it than any stretch of the training time, as long as
the window, was from the rest of it.

The window drifted when the columns that did hold more than ``max_drifted_share`` of the model's
importance, when one that the model uses is hardly the same column any more, or when the predictions
drifted.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from math import fsum, isfinite
from statistics import median
from typing import Literal

import numpy as np

from perennial.contracts.drift import (
    Bins,
    Change,
    ColumnCounts,
    ColumnDrift,
    ColumnOutcome,
    DriftOutcome,
    DriftVerdict,
    ReferenceStatistics,
    WindowStatistics,
)
from perennial.decisions.binned import joined, named, quantiles, shares, spread
from perennial.decisions.divergence import (
    as_share,
    as_spreads,
    chance,
    divergence,
    parts,
    surely,
)
from perennial.decisions.faults import find_fault
from perennial.decisions.wording import counted, figure, percent, shortened
from perennial.spec.production import Drift
from perennial.spec.values import some

PREDICTIONS = ("_prediction", "_class")
"""Columns of the statistics that hold what the model said, not what it read."""
LARGE = 0.5
"""An effect by which a column is hardly the same: two normals 1.3 standard deviations apart."""
ENOUGH_ROWS = 30
"""Of fewer nothing is said but that a column is gone or of another type."""

_ROUNDING = 1e-9
_ROWS_A_BIN = 25
_FEWEST_BINS = 8
_CONTINUOUS = 16
_SHOWN_CHANGES = 3
_AT = np.linspace(0.05, 0.95, 19)


def judge_drift(
    reference: ReferenceStatistics,
    window: WindowStatistics,
    *,
    importance: Mapping[str, float],
    settings: Drift,
    seed: int,
) -> DriftVerdict:
    """The verdict on a window that was counted in the reference's bins.

    ``importance`` is the model's by column, in any unit; columns it doesn't name have none, and
    without any all weigh the same. ``seed`` decides the deals that chance is measured by. Raises
    nothing for what the data are.
    """
    weights = _weights(reference.bins, importance)
    rate = 1 - (1 - settings.false_alarm_rate) ** (1 / max(len(reference.bins), 1))  # Šidák 1967
    columns = [
        _column(
            name,
            bins,
            reference.window.columns[name],
            [block.columns[name] for block in reference.blocks if name in block.columns],
            window,
            weights.get(name, 0.0),
            rate,
            settings.min_effect,
            np.random.default_rng([seed, zlib.crc32(name.encode())]),
        )
        for name, bins in reference.bins.items()
    ]
    columns.sort(key=lambda c: (*_rank(c), c.column))
    share = fsum(c.weight for c in columns if c.outcome is ColumnOutcome.DRIFTED)
    outcome, reason = _overall(columns, window.rows, share, settings)
    found = [1.0 if c.found is None else c.found for c in columns if c.limit is not None]
    return DriftVerdict(
        outcome=outcome,
        reason=reason,
        rows=window.rows,
        reference_rows=reference.window.rows,
        drifted_share=share,
        max_drifted_share=settings.max_drifted_share,
        false_alarm_rate=settings.false_alarm_rate,
        min_effect=settings.min_effect,
        found=median(found) if found else None,
        columns=tuple(columns),
    )


def _weights(bins: Mapping[str, Bins], importance: Mapping[str, float]) -> dict[str, float]:
    inputs = [name for name in bins if name not in PREDICTIONS]
    known = {name: max(importance.get(name, 0.0), 0.0) for name in inputs}
    total = sum(known.values())
    if not total > 0:
        return dict.fromkeys(inputs, 1 / max(len(inputs), 1))
    return {name: value / total for name, value in known.items()}


def _rank(column: ColumnDrift) -> tuple[bool, bool, float, float]:
    """Faults first, then what drifted, each by what the model makes of it."""
    return (
        column.outcome is not ColumnOutcome.FAULT,
        column.outcome is not ColumnOutcome.DRIFTED,
        -column.weight,
        -(column.effect or 0.0),
    )


def _overall(
    columns: Sequence[ColumnDrift], rows: int, share: float, settings: Drift
) -> tuple[DriftOutcome, str]:
    if not rows:
        return DriftOutcome.INCONCLUSIVE, "the window has no rows"
    if faults := [c for c in columns if c.outcome is ColumnOutcome.FAULT]:
        first = f"{faults[0].column}: {faults[0].reason}"
        others = _names(faults[1:])
        return DriftOutcome.FAULT, first + (f"; also {others}" if others else "")
    drifted = [c for c in columns if c.outcome is ColumnOutcome.DRIFTED]
    inputs = [c for c in drifted if c.column not in PREDICTIONS]
    told = []
    if predicted := [c for c in drifted if c.column in PREDICTIONS]:
        told.append(f"the predictions drifted: {predicted[0].reason}")
    if share > settings.max_drifted_share + _ROUNDING:
        held = f"{percent(share)} of the importance, more than the"
        allowed = f"{percent(settings.max_drifted_share)} allowed"
        told.append(f"{_of(inputs, columns)} with {held} {allowed}: {_names(inputs)}")
    if told:
        return DriftOutcome.DRIFTED, "; ".join(told)
    if large := [c for c in drifted if c.weight and (c.effect or 0.0) >= LARGE]:
        return DriftOutcome.DRIFTED, f"{large[0].column} is hardly the same: {large[0].reason}"
    blind = [c for c in columns if c.outcome is ColumnOutcome.INCONCLUSIVE]
    unknown = fsum(c.weight for c in blind)
    if blind and (unknown > settings.max_drifted_share + _ROUNDING or len(blind) == len(columns)):
        held = f"{percent(unknown)} of the importance"
        why = f"{counted(rows)} can't tell of {_of(blind, columns)} with {held}"
        return DriftOutcome.INCONCLUSIVE, f"{why}: {_names(blind)}"
    if drifted:
        held = f"{percent(share)} of the importance, within the"
        allowed = f"{percent(settings.max_drifted_share)} allowed"
        return (
            DriftOutcome.STABLE,
            f"{_of(drifted, columns)} drifted with {held} {allowed}: {_names(drifted)}",
        )
    return DriftOutcome.STABLE, f"none of {len(columns)} columns drifted in {counted(rows)}"


def _of(some: Sequence[ColumnDrift], columns: Sequence[ColumnDrift]) -> str:
    return f"{len(some)} of {len(columns)} columns"


def _names(columns: Sequence[ColumnDrift]) -> str:
    return some((shortened(c.column) for c in columns), 5)


def _column(
    name: str,
    bins: Bins,
    before: ColumnCounts,
    blocks: Sequence[ColumnCounts],
    window: WindowStatistics,
    weight: float,
    rate: float,
    min_effect: float,
    rng: np.random.Generator,
) -> ColumnDrift:
    after = window.columns[name]
    measured = ColumnDrift(
        column=name,
        outcome=ColumnOutcome.INCONCLUSIVE,
        reason="",
        rows=after.rows,
        weight=weight,
        missing_before=before.missing / before.rows if before.rows else None,
        missing_after=after.missing / after.rows if after.rows else None,
    )
    if fault := find_fault(bins, before, blocks, after, window.rows, rate, ENOUGH_ROWS):
        return measured.model_copy(
            update={"outcome": ColumnOutcome.FAULT, "reason": fault[1], "fault": fault[0]}
        )
    fewest = min(before.rows, after.rows)
    if fewest < ENOUGH_ROWS:
        side = "training" if before.rows < after.rows else "the window"
        reason = f"{counted(fewest)} of {side}, fewer than the {ENOUGH_ROWS} needed"
        return measured.model_copy(update={"reason": reason})

    places = joined(bins, max(fewest // _ROWS_A_BIN, _FEWEST_BINS))
    was, now = shares(before, places), shares(after, places)
    if np.count_nonzero(was + now) == 1:
        reason = "times move on" if bins.kind == "time" else "one value in all rows"
        alike = {"outcome": ColumnOutcome.STABLE, "effect": 0.0, "reason": reason}
        return measured.model_copy(update=alike)
    apart, luck = float(divergence(was, now)), chance(was, now, rng)
    usual = _usual(bins, before, blocks)
    certain = luck.limit(rate)
    limit = max(certain, luck.at(max(min_effect, usual)))
    effect, found, certainly = luck.beyond(apart), luck.found(limit), luck.found(certain)
    drifted, blind = apart > limit, certainly is None or certainly > LARGE
    shift, shift_at_least = _shift(bins, before, after)
    measured = measured.model_copy(
        update={
            "effect": effect,
            "limit": luck.beyond(limit),
            "p_value": luck.p_value(apart),
            "usual": usual,
            "shift": shift,
            "shift_at_least": shift_at_least,
            "found": found,
            "found_as": _pictured(bins, found) if found else None,
            "changes": _changes(bins, places, before, after) if drifted else (),
        }
    )
    outcome, reason = _told(measured, drifted, blind)
    return measured.model_copy(update={"outcome": outcome, "reason": reason})


def _usual(bins: Bins, before: ColumnCounts, blocks: Sequence[ColumnCounts]) -> float:
    """How far a stretch of the training time was from the rest of it, at most."""
    greatest = 0.0
    for block in blocks:
        rows = min(block.rows, before.rows - block.rows)
        if rows >= ENOUGH_ROWS:
            places = joined(bins, max(rows // _ROWS_A_BIN, _FEWEST_BINS))
            inside = shares(block, places)
            greatest = max(greatest, surely(shares(before, places) - inside, inside))
    return greatest


def _told(column: ColumnDrift, drifted: bool, blind: bool) -> tuple[ColumnOutcome, str]:
    assert column.effect is not None
    assert column.limit is not None
    on = f"on {counted(column.rows)}"
    measured = f"effect {figure(column.effect, 2)}"
    if drifted:
        by = "" if column.shift is None else f", {_spreads(column)}"
        most = "; ".join(
            f"{c.values}: {percent(round(c.before, 4))} → {percent(round(c.after, 4))}"
            for c in column.changes
        )
        reason = f"{measured}{by}, limit {figure(column.limit, 2)} {on} ({most})"
        return ColumnOutcome.DRIFTED, reason
    if blind:
        least = "none" if column.found is None else f"effects from {figure(column.found, 2)}"
        return ColumnOutcome.INCONCLUSIVE, f"{measured} {on}, which would show {least}"
    return ColumnOutcome.STABLE, f"{measured}, limit {figure(column.limit, 2)} {on}"


def _spreads(column: ColumnDrift) -> str:
    assert column.shift is not None
    size = f"{figure(abs(column.shift), 2)} spreads {'up' if column.shift >= 0 else 'down'}"
    return f"at least {size}" if column.shift_at_least else size


def _shift(bins: Bins, before: ColumnCounts, after: ColumnCounts) -> tuple[float | None, bool]:
    """How far the quantiles moved, and whether that is the least it can be. None where not even
    the direction is known."""
    unit = spread(bins, before)
    was, now = quantiles(bins, before, _AT), quantiles(bins, after, _AT)
    if unit is None or was is None or now is None:
        return None, False
    with np.errstate(over="ignore", invalid="ignore"):
        least = float(np.mean(now[0] - was[1])) / unit
        most = float(np.mean(now[1] - was[0])) / unit
    shift = min(least, most, key=abs)
    known = isfinite(shift) and (least == most or least * most > 0)
    return (shift, least != most) if known else (None, False)


def _changes(
    bins: Bins, places: np.ndarray, before: ColumnCounts, after: ColumnCounts
) -> tuple[Change, ...]:
    """The bins that make most of the difference; of a number in a few parts, to be read."""
    if bins.kind == "number":
        places = joined(bins, _FEWEST_BINS)
    was, now = shares(before, places), shares(after, places)
    most = np.argsort(-parts(was, now), kind="stable")[:_SHOWN_CHANGES]
    p, q = was / was.sum(), now / now.sum()
    return tuple(
        Change(values=named(bins, places, int(at)), before=float(p[at]), after=float(q[at]))
        for at in most
        if p[at] != q[at]
    )


def _pictured(bins: Bins, effect: float) -> tuple[float, Literal["spreads", "share"]]:
    if len(bins.edges) > _CONTINUOUS:
        return as_spreads(effect), "spreads"
    return as_share(effect), "share"
