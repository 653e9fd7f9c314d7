"""All that gates and report need to know of a candidate, from predictions on the holdout."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil

import numpy as np
import pandas as pd

from perennial.contracts.metrics import Objective
from perennial.contracts.verdicts import (
    CalibrationBin,
    Comparison,
    Curve,
    Estimate,
    SliceEstimate,
)
from perennial.learning.bootstrap import Scores, score
from perennial.learning.curves import calibration, curves
from perennial.learning.metrics import checked
from perennial.learning.slices import levels
from perennial.spec.gates import Beats, Floor, Gate, Slices
from perennial.spec.schema import ModelSpec

CONFIDENCE = 0.95
"""Of the intervals shown where no gate asks for another."""
_REPLICATES, _LEAST_REPLICATES = 1000, 200
_SLICE_REPLICATES, _LEAST_SLICE_REPLICATES = 400, 100  # a standard error to about 4 % and 7 %
_MOST_DRAWS = 100_000_000  # rows times replicates: above 100,000 rows fewer replicates


@dataclass(frozen=True)
class Measurement:
    """What was measured. The fields named as in EvaluationReport go there as they are.

    ``floors`` holds, for each Floor gate with a confidence, the estimate whose low and high are
    one-sided bounds at that confidence; ``levels`` the rows of every slice there is, measurable or
    not: column → level → rows. Both are for ``perennial.decisions.gates.judge``.
    """

    estimates: tuple[Estimate, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    slices: tuple[SliceEstimate, ...] = ()
    calibration: tuple[CalibrationBin, ...] = ()
    curves: tuple[Curve, ...] = ()
    champion_curves: tuple[Curve, ...] = ()
    floors: dict[Floor, Estimate] = field(default_factory=dict)
    levels: dict[str, dict[str, int]] = field(default_factory=dict)


def measure(
    spec: ModelSpec,
    y: np.ndarray,
    p: np.ndarray,
    champion: np.ndarray | None,
    rows: pd.DataFrame,
    *,
    seed: int,
    compared: np.ndarray | None = None,
) -> Measurement:
    """Measure a candidate, and the champion beside it, on one holdout of n rows.

    ``y`` (n,), ``p`` and ``champion`` as in ``perennial.learning.metrics``; ``champion`` is None
    where there is none or it could not predict these rows. The two are compared on the rows that
    ``compared`` (bool, n) marks, by default on all; then alone the champion has curves. ``rows``
    holds at least the columns that Slices gates name, canonical, n rows. Deterministic by ``seed``.
    What can't be measured (no rows, one class) is absent. Raises ValueError when lengths differ or
    a prediction is NaN.
    """
    if not len(y) == len(p) == len(rows):
        raise ValueError(f"{len(y)} labels, {len(p)} predictions and {len(rows)} rows differ")
    if len(y) == 0:
        return Measurement()
    objective, gates = spec.objective, spec.gates
    y, p = checked(objective, y, p)
    if champion is not None:
        champion = checked(objective, y, champion)[1]
    if compared is None:
        compared = np.ones(len(y), dtype=bool)
    surest = max((g.confidence or 0 for g in gates if isinstance(g, Beats | Floor)), default=0)
    alone, both = _scored(
        objective, y, p, champion, compared, lambda rows: _replicates(rows, surest), seed
    )
    floors = {
        gate: estimate
        for gate in gates
        if isinstance(gate, Floor) and gate.confidence is not None
        if (estimate := alone.estimate(gate.metric, 2 * gate.confidence - 1)) is not None
    }
    slices = [gate for gate in gates if isinstance(gate, Slices)]
    groups = {c: levels(rows[c], _least_rows(slices, c)) for gate in slices for c in gate.slices}
    beside = champion if compared.all() else None
    return Measurement(
        estimates=alone.estimates(CONFIDENCE),
        comparisons=tuple(_comparisons(both, gates)),
        slices=tuple(_slices(objective, y, p, champion, compared, slices, groups, seed)),
        calibration=calibration(objective, y, p),
        curves=curves(objective, y, p, beside),
        champion_curves=() if beside is None else curves(objective, y, beside, p),
        floors=floors,
        levels={
            c: {level: int(compared[at].sum()) for level, at in group.items()}
            for c, group in groups.items()
        },
    )


def _replicates(n: int, confidence: float) -> int:
    """Enough that 20 resamples lie beyond the bound, within what is affordable."""
    wanted = min(5 * _REPLICATES, max(_REPLICATES, ceil(20 / (1 - confidence))))
    return max(_LEAST_REPLICATES, min(wanted, _MOST_DRAWS // n))


def _scored(
    objective: Objective,
    y: np.ndarray,
    p: np.ndarray,
    champion: np.ndarray | None,
    compared: np.ndarray,
    replicates: Callable[[int], int],
    seed: int,
    only: Collection[str] | None = None,
) -> tuple[Scores, tuple[Scores, Scores] | None]:
    """The candidate on all rows; and it and the champion on those they are compared on, None
    without any."""

    def on(rows: np.ndarray, *models: np.ndarray) -> tuple[Scores, ...]:
        held = [model[rows] for model in models]
        many = replicates(int(rows.sum()))
        return score(objective, y[rows], held, seed=seed, replicates=many, only=only)

    every = np.ones(len(y), dtype=bool)
    if champion is None or not compared.any():
        return on(every, p)[0], None
    one, other = on(compared, p, champion)
    return (one if compared.all() else on(every, p)[0]), (one, other)


def _comparisons(both: tuple[Scores, Scores] | None, gates: Sequence[Gate]) -> Iterator[Comparison]:
    """Every metric at the usual confidence, and what Beats gates ask for at theirs."""
    if both is None:
        return
    shown = [(metric, CONFIDENCE) for metric in both[0].values]
    beaten = [(gate.metric, gate.confidence) for gate in gates if isinstance(gate, Beats)]
    for metric, confidence in dict.fromkeys([*shown, *beaten]):
        comparison = both[0].against(both[1], metric, confidence)
        if comparison is not None:
            yield comparison


def _slices(
    objective: Objective,
    y: np.ndarray,
    p: np.ndarray,
    champion: np.ndarray | None,
    compared: np.ndarray,
    gates: list[Slices],
    groups: dict[str, dict[str, np.ndarray]],
    seed: int,
) -> Iterator[SliceEstimate]:
    """Every slice and metric that a gate names, once, resampled within the slice."""
    affordable = int(_MOST_DRAWS / 2.5) // len(y)
    replicates = max(_LEAST_SLICE_REPLICATES, min(_SLICE_REPLICATES, affordable))
    metrics = {c: list(dict.fromkeys(g.metric for g in gates if c in g.slices)) for c in groups}
    for column, group in groups.items():
        for level, at in group.items():
            alone, both = _scored(
                objective,
                y[at],
                p[at],
                None if champion is None else champion[at],
                compared[at],
                lambda _: replicates,
                seed,
                metrics[column],
            )
            for metric in metrics[column]:
                estimate = alone.estimate(metric, CONFIDENCE)
                if estimate is None:
                    continue
                comparison = (
                    None
                    if both is None
                    else both[0].against(both[1], metric, CONFIDENCE, normal=True)
                )
                yield SliceEstimate(
                    column=column, level=level, estimate=estimate, comparison=comparison
                )


def _least_rows(gates: list[Slices], column: str) -> int:
    return min(gate.min_rows for gate in gates if column in gate.slices)
