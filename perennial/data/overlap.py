"""Keep an ensemble from what its members have seen: a member is best where it was fitted.

By event time: a version's training and validation rows end before its test part begins. Gates have
looked at the test part too, but once for a version, where a booster learns its rows by heart.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

import numpy as np
import pandas as pd

from perennial.contracts.errors import InputError, Problem
from perennial.contracts.refs import PARTS, Part
from perennial.data.splits import UNUSED
from perennial.spec import ModelSpec
from perennial.spec.values import format_duration

_MOMENT = timedelta(microseconds=1)


def fitted_before(spec: ModelSpec, as_of: datetime | None) -> datetime | None:
    """The event time before which all rows lie that a version was fitted or tuned on (exclusive).

    ``spec`` and ``as_of`` are what it was trained by. A time split counts back from the last known
    label, which is no later than ``as_of`` less the label's delay; with other splits any row up to
    that one may have been used. None without event times: nothing can be told.
    """
    if spec.source.event_time is None or as_of is None:
        return None
    end = as_of - spec.label.delay + _MOMENT
    if spec.split.kind != "time":
        return end
    assert isinstance(spec.split.test, timedelta)
    return end - spec.split.test - max(spec.split.gap, spec.label.delay)


def drop_seen(
    parts: np.ndarray,
    times: pd.Series,
    since: datetime,
    combine: Literal["mean", "stacking"],
    spec: ModelSpec,
) -> np.ndarray:
    """The parts (int8 a row) without rows of event times before ``since``.

    A mean is fitted to the validation part: its training rows, which are only what drift is
    compared with, stay. Raises InputError when a part would be empty, with what it would hold.
    """
    seen = (times < since).to_numpy()
    freed = parts.copy()
    problems = []
    for number, part in enumerate(PARTS):
        if part == "train" and combine == "mean":
            continue
        inside = parts == number
        freed[inside & seen] = UNUSED
        if inside.any() and not (inside & ~seen).any():
            problems.append(_nothing_left(part, times[inside], since, spec))
    if problems:
        raise InputError(problems)
    return freed


def _nothing_left(part: Part, times: pd.Series, since: datetime, spec: ModelSpec) -> Problem:
    what = (
        f"all {len(times):,} rows of the {part} part, {times.min():%Y-%m-%d %H:%M} to "
        f"{times.max():%Y-%m-%d %H:%M}, lie before {since:%Y-%m-%d %H:%M}: members may have been "
        "fitted on them"
    )
    fix = "pin earlier versions of the members (NAME@V), or wait for more data"
    if isinstance(spec.split.test, timedelta) and isinstance(spec.split.validation, timedelta):
        mine = format_duration(spec.split.validation + spec.split.test)
        fix = f"let the members' test parts be longer than this model's last {mine}, {fix}"
    return Problem("model.yaml, split", what, fix)
