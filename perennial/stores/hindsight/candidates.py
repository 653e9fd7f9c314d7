"""A version that would have been trained at a moment of the past, by what continuous training runs.

It is a bundle as a run of that moment would have written it, but for the search of parameters, the
lineage and the profile.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from perennial.bundle.predictor import Predictor
from perennial.bundle.read import Bundle, open_bundle
from perennial.bundle.reference import bundle_reference
from perennial.bundle.write import BundleContent, write_bundle
from perennial.contracts.backtest import Recipe
from perennial.contracts.drift import ReferenceStatistics
from perennial.data.features import FeatureProgram
from perennial.data.splits import assign
from perennial.spec import ModelSpec
from perennial.stores.importance import bundle_importance
from perennial.stores.matrices import (
    read_json,
    read_matrix,
    read_schema,
    read_training,
    write_matrices,
)

if TYPE_CHECKING:
    from perennial.learning.matrices import Fitting


@dataclass(frozen=True)
class Candidate:
    """``test`` are the places of its test rows among those it was made from, ``fitted`` of those it
    was trained and tuned on; ``y`` (n,) and ``p`` are the test rows' labels and its predictions;
    ``rows`` is how many were in its parts, ``seconds`` what its training took of one processor.
    ``threads`` are for its later predictions."""

    bundle: Bundle
    threads: int
    test: np.ndarray
    fitted: np.ndarray
    y: np.ndarray
    p: np.ndarray
    rows: int
    seconds: float

    @cached_property
    def predictor(self) -> Predictor:
        return Predictor(self.bundle, self.threads)

    @cached_property
    def reference(self) -> ReferenceStatistics:
        """What windows are compared with, as the drift watch does."""
        spec = self.bundle.spec
        left_out = {*spec.log.hash, *spec.log.omit}
        return bundle_reference(self.bundle, self.p, left_out, spec.drift.window)

    @cached_property
    def column_importance(self) -> dict[str, float]:
        return bundle_importance(self.bundle)


def train_candidate(
    spec: ModelSpec,
    program: FeatureProgram,
    source: str,
    known: pd.DataFrame,
    at: datetime,
    recipe: Recipe,
    folder: Path,
    threads: int,
) -> Candidate:
    """Train on what was known at a moment: ``known`` are the rows there were, in canonical order;
    of their labels those are used that were known. ``recipe.rounds`` must be given.

    In this thread alone: several may be trained side by side. ``folder`` is used and may be removed
    afterwards. Raises PerennialError as training does.
    """
    from perennial.learning.training import booster_bytes, predict, train_booster

    assert recipe.rounds is not None
    started = time.thread_time()
    parts = _matrices(spec, program, known, at, folder)
    schema = read_schema(folder)
    part: Fitting = "train+validation" if spec.training.refit else "train"
    booster = train_booster(read_training(folder), spec, recipe.params, recipe.rounds, 1, part)
    content = BundleContent(
        spec=spec,
        schema=schema,
        booster=booster_bytes(booster),
        features_source=source,
        state=read_json(folder / "state.json"),
        reference=(folder / "reference.parquet").read_bytes(),
        profile={},
        metrics={},
        lineage={},
    )
    written = write_bundle(folder / "bundles", content)
    x, y = read_matrix(folder, "test")
    return Candidate(
        bundle=open_bundle(Path(written.uri), written.digest),
        threads=threads,
        test=np.flatnonzero(parts == 2),
        fitted=np.flatnonzero((parts == 0) | (parts == 1)),
        y=np.array(y),
        p=predict(booster, np.asarray(x), schema),
        rows=int((parts >= 0).sum()),
        seconds=time.thread_time() - started,
    )


def find_recipe(
    spec: ModelSpec,
    program: FeatureProgram,
    known: pd.DataFrame,
    at: datetime,
    recipe: Recipe,
    folder: Path,
    threads: int,
) -> Recipe:
    """The recipe with its rounds: those that early stopping finds for a study's first trial, of
    XGBoost's defaults within the space."""
    from perennial.learning.tuning import tune

    if recipe.rounds is not None:
        return recipe
    _matrices(spec, program, known, at, folder)
    one_trial = spec.model_copy(update={"tuning": spec.tuning.model_copy(update={"trials": 1})})
    found = tune(
        one_trial,
        read_training(folder),
        study_name="backtest",
        storage_url=f"sqlite:///{folder}/studies.db",
        workers=threads,
    )
    origin = f"{recipe.origin}, and the rounds that early stopping found at the start"
    return Recipe(params=found.best_params, rounds=found.best_rounds, origin=origin)


def _matrices(
    spec: ModelSpec, program: FeatureProgram, known: pd.DataFrame, at: datetime, folder: Path
) -> np.ndarray:
    """Write the matrices of a moment; returns the split."""
    parts = assign(known, spec, at)

    def scan(columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        yield known[list(columns)]

    write_matrices(spec, program, scan, parts, folder)
    return parts
