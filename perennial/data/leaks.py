"""Refuse features that look at other rows: the value of a row must not depend on its company."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from perennial.contracts.errors import InputError, Problem
from perennial.data.programs import Program

_FIX = (
    "use this row's columns only; what is learnt from other rows belongs in a function with @fitted"
)


def check_row_local(
    program: Program,
    frame: pd.DataFrame,
    state: Mapping[str, Any],
    seed: int = 7,
    single_rows: int = 64,
) -> None:
    """Test that every feature gives a row the same value, bit for bit, in three settings: alone, in
    the whole ``frame``, and in a shuffled half of it.

    A shift, a mean, a rank, a count or a look at later rows gives another value in one of them. The
    half compares n/2 rows; a dependence seen in it by a share p of rows is missed with probability
    (1 - p)^(n/2). Alone are tried the first and last row, the rows with each input's least,
    greatest and a missing value (where fills and clips by a statistic show), and random ones up to
    ``single_rows``.

    ``frame`` are training rows with the program's inputs in canonical dtypes; a few thousand in a
    stretch are enough. Raises InputError naming each feature, a row and both values; a feature made
    from another one that is named is left out. Functions that change their input in place are
    refused too.
    """
    from perennial.data.feature_graph import watched

    rows = len(frame)
    if not rows:
        return
    frame = frame[list(program.inputs)].reset_index(drop=True)
    rng = np.random.default_rng(seed)

    with watched():
        whole = program.compute(frame, state)
    alone = _telling_rows(frame, rng, single_rows)
    singles = pd.concat([_alone(program, frame.iloc[[i]], state) for i in alone])
    part = rng.permutation(rows)[: max(1, rows // 2)]
    half = program.compute(frame.iloc[part], state)

    found: dict[str, Problem] = {}
    for values, setting in ((singles, "on its own"), (half, "in a shuffled half of the table")):
        for name in program.features:
            if name in found:
                continue
            differs = _differences(whole[name].iloc[values.index], values[name])
            if differs.any():
                at = int(np.argmax(differs))
                row = values.index[at]
                what = (
                    f"the feature {name!r} looks at other rows: row {row} of {rows:,} has "
                    f"{_shown(whole[name].iloc[row])} in the whole table and "
                    f"{_shown(values[name].iloc[at])} {setting}"
                )
                found[name] = Problem(program.place(name), what, _FIX)
    causes = [p for name, p in found.items() if not (program.feeds(name) - {name}) & set(found)]
    if causes:
        raise InputError(causes)


def _alone(program: Program, row: pd.DataFrame, state: Mapping[str, Any]) -> pd.DataFrame:
    """One row's features. A failure here is one that the whole table didn't have."""
    try:
        return program.compute(row, state)
    except InputError as error:
        alone = f", for row {row.index[0]} alone"
        raise InputError(
            [Problem(p.where, p.what + alone, p.fix) for p in error.problems]
        ) from None


def _telling_rows(frame: pd.DataFrame, rng: np.random.Generator, most: int) -> list[int]:
    """Positions of rows to try alone, each once."""
    rows = len(frame)
    chosen = [0, rows - 1]
    for name in frame:
        column = frame[name]
        missing = column.isna().to_numpy()
        if missing.any():
            chosen.append(int(np.argmax(missing)))
        if not missing.all() and not isinstance(column.dtype, pd.StringDtype):
            chosen += [int(column.argmin()), int(column.argmax())]
    chosen += rng.permutation(rows)[:most].tolist()
    return list(dict.fromkeys(chosen))[: max(most, len(frame.columns) * 3 + 2)]


def _differences(expected: pd.Series, actual: pd.Series) -> np.ndarray:
    """Where two columns of features differ; missing equals missing."""
    if expected.dtype != actual.dtype:  # one is all missing, or they really differ
        expected, actual = expected.astype(object), actual.astype(object)
    both_missing = expected.isna().to_numpy() & actual.isna().to_numpy()
    differs: np.ndarray = (expected.array != actual.array) & ~both_missing
    return differs


def _shown(value: Any) -> str:
    plain = value.item() if isinstance(value, np.generic) else value
    return "a missing value" if pd.isna(plain) else repr(plain)
