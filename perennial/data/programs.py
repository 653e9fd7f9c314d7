"""What makes the columns of a model matrix, wherever they come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import pandas as pd

from perennial.contracts.features import FeatureGraph


class Program(Protocol):
    """A model's feature code (``FeatureProgram``), or the members of an ensemble.

    ``features`` are the matrix's columns in order, ``inputs`` the raw columns they are computed
    from, ``fit_inputs`` those that ``fit`` reads, ``fitted`` the names of the state it returns.
    """

    features: tuple[str, ...]
    inputs: tuple[str, ...]
    fit_inputs: tuple[str, ...]
    fitted: tuple[str, ...]

    def fit(self, frame: pd.DataFrame) -> dict[str, Any]:
        """The JSON-able state, from training rows."""
        ...

    def compute(self, frame: pd.DataFrame, state: Mapping[str, Any]) -> pd.DataFrame:
        """The features of a canonical frame, under its index."""
        ...

    def place(self, feature: str) -> str:
        """Where a feature is made, for messages."""
        ...

    def feeds(self, feature: str) -> set[str]:
        """All that a feature is made from, itself included."""
        ...

    def graph(self) -> FeatureGraph:
        """What the features are made from, to be drawn."""
        ...
