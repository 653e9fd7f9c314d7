"""Verdicts and their evidence. No evidence is *inconclusive* and never passes."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from perennial.contracts.refs import Value


class Outcome(StrEnum):
    """How a check ended. "Could not measure" (error) is not "measured bad" (failed)."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"


class Evidence(Value):
    """What one rule measured.

    ``value`` is in the metric's own unit, ``low``/``high`` the interval at ``confidence``, ``n``
    the rows it rests on. None means not measured.
    """

    rule: str
    limit: float | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    n: int = 0
    detail: str = ""


class Verdict(Value):
    """The outcome of one rule, with its evidence and a sentence a person can read."""

    outcome: Outcome
    reason: str
    evidence: Evidence


class Judgement(Value):
    """All verdicts on one candidate and what follows.

    ``outcome`` is the worst of the verdicts: error > failed > inconclusive > passed.
    """

    outcome: Outcome
    reason: str
    verdicts: tuple[Verdict, ...]


class Estimate(Value):
    """A metric with its bootstrap interval."""

    metric: str
    value: float
    low: float
    high: float
    n: int


class Comparison(Value):
    """Challenger against champion on the same rows, paired. ``gain`` > 0: the challenger is better,
    whatever the metric's direction."""

    metric: str
    champion: float
    challenger: float
    gain: float
    low: float
    high: float
    confidence: float
    n: int


class SliceEstimate(Value):
    """A metric on the rows where ``column == level``; against the champion where there is one."""

    column: str
    level: str
    estimate: Estimate
    comparison: Comparison | None = None


class CalibrationBin(Value):
    predicted: float
    observed: float
    n: int


class ServingCheck(Value):
    """What a fresh process without Prefect measured of the bundle; no more than ``error`` when it
    couldn't.

    ``identical`` is None when nothing could be compared. Latency in milliseconds a one-row request.
    """

    loaded: bool
    identical: bool | None = None
    rows: int = 0
    max_abs_difference: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    error: str = ""


class Curve(Value):
    """A line to plot: ROC, PR, learning curve, residual histogram. ``len(x) == len(y)``."""

    name: str
    x_label: str
    y_label: str
    x: tuple[float, ...]
    y: tuple[float, ...]


class EvaluationReport(Value):
    """All that was measured of one candidate on one holdout, and the judgement on it.

    ``left_out_rows`` of the holdout the champion was fitted to: the two are compared on the others.
    """

    model: str
    objective: Literal["binary", "multiclass", "regression"]
    bundle_digest: str
    champion: int | None
    champion_digest: str | None
    holdout_rows: int
    left_out_rows: int = 0
    holdout_start: str | None
    holdout_end: str | None
    estimates: tuple[Estimate, ...]
    comparisons: tuple[Comparison, ...]
    slices: tuple[SliceEstimate, ...]
    calibration: tuple[CalibrationBin, ...]
    curves: tuple[Curve, ...]
    champion_curves: tuple[Curve, ...]
    importance: dict[str, float]
    unseen_categories: dict[str, int]
    serving: ServingCheck
    judgement: Judgement
