"""Which rows of a holdout belong to which slice of a column."""

from __future__ import annotations

import numpy as np
import pandas as pd

_SMALL_SLICES_SHOWN = 20
_MOST_NUMBERS = 12  # an integer column with more distinct values is cut into fifths
MISSING = "(missing)"


def levels(values: pd.Series, min_rows: int) -> dict[str, np.ndarray]:
    """The row positions of each slice of a column, largest first; together they are all rows.

    A slice is one value, or ``(missing)``; whole numbers with many values are cut into fifths. Of
    the values with fewer than ``min_rows`` rows the 20 largest are slices of their own, the rest
    is one.
    """
    names = _names(values)
    codes, uniques = pd.factorize(names, sort=True)
    sizes = np.bincount(codes, minlength=len(uniques))
    order = np.lexsort((np.arange(len(uniques)), -sizes))
    kept = [i for i in order if sizes[i] >= min_rows]
    small = [i for i in order if sizes[i] < min_rows]
    if len(small) > _SMALL_SLICES_SHOWN + 1:
        small, rest = small[:_SMALL_SLICES_SHOWN], small[_SMALL_SLICES_SHOWN:]
    else:
        rest = []
    found = {str(uniques[i]): np.flatnonzero(codes == i) for i in [*kept, *small]}
    if rest:
        found[f"(other: {len(rest)} values)"] = np.flatnonzero(np.isin(codes, rest))
    return found


def _names(values: pd.Series) -> np.ndarray:
    """The slice each row is in, as text."""
    missing = values.isna().to_numpy()
    names = np.full(len(values), MISSING, dtype=object)
    names[~missing] = _known_names(values[~missing])
    return names


def _known_names(values: pd.Series) -> np.ndarray:
    if pd.api.types.is_bool_dtype(values):
        return np.where(values.to_numpy(), "true", "false").astype(object)
    if not pd.api.types.is_numeric_dtype(values):
        return np.array(values.astype(str), dtype=object)
    numbers = values.to_numpy()  # as they are: float64 has room for 15 digits of a whole number
    distinct, codes = np.unique(numbers, return_inverse=True)
    if len(distinct) > _MOST_NUMBERS:
        return _fifths(numbers)
    return np.array([_written(number) for number in distinct.tolist()], dtype=object)[codes]


def _fifths(numbers: np.ndarray) -> np.ndarray:
    """The range of values each number's fifth holds, such as ``17 to 34``."""
    edges = np.unique(np.quantile(numbers, [0.2, 0.4, 0.6, 0.8], method="lower"))
    fifth = np.digitize(numbers, edges, right=True)
    names = np.empty(len(numbers), dtype=object)
    for i in np.unique(fifth):
        held = numbers[fifth == i]
        names[fifth == i] = f"{_written(held.min().item())} to {_written(held.max().item())}"
    return names


def _written(number: float) -> str:
    """A number as it is told from every other: a whole one without a point."""
    whole = isinstance(number, float) and number.is_integer()
    return str(int(number) if whole else number)
