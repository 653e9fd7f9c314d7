"""How well a version does on rows whose labels nobody knows yet.

*Classifiers*: confidence-based performance estimation. Were the probabilities true, each row would
add its expected share to every cell of the confusion matrix, at every threshold; metrics of that
expected matrix estimate the realised ones. Kivimäki, Białek, Nurminen and Kuberski,
Confidence-based Estimators for Predictive Performance in Model Monitoring, JAIR 82, 2025 (arXiv
2407.08649); Kivimäki et al., Performance Estimation in Binary Classification Using Calibrated
Confidence, 2025 (arXiv 2505.05295); NannyML's documentation for ROC AUC and several classes. The
probabilities are first made true on the version's holdout (``calibrating.py``).

*Regressions*: direct loss estimation (NannyML's documentation), see ``losses.py``.

What neither can see: **concept drift**. Both take for granted that rows which look alike are right
as often as on the holdout. A realised metric beyond the estimate's interval *on the same rows* is
the sign that this no longer holds (``perennial.decisions.performance.unexplained``). Rows unlike
all of the holdout are guessed from the nearest like them: the further off, the worse (Białek et
al., Estimating Model Performance under Covariate Shift Without Labels, 2024, arXiv 2401.08348).

Intervals are percentiles over replicates. Each takes what was learnt from another resample of the
holdout, draws the labels (the losses) anew, and, unless ``fixed_rows``, resamples the rows too: so
they are about as wide as those of the realised metric, plus what the holdout leaves open. Rows
count as independent; see ``bootstrap.py``.
"""

from __future__ import annotations

import numpy as np

from perennial.contracts.features import FeatureSchema
from perennial.contracts.performance import EstimatedPerformance
from perennial.learning.bootstrap import Scores
from perennial.learning.calibrating import choose_method, fit_calibration
from perennial.learning.holdout import Holdout
from perennial.learning.metrics import Array, statistics

LEAST_HOLDOUT = 200
"""Labelled rows that a version's holdout must have."""
_REPLICATES = 400
_REFITS = 50
_MOST_CELLS = 200_000  # rows times classes: what 400 replicates of a ranking metric can afford
_MOST_CLASSES_RANKED = 20


def estimate(
    holdout: Holdout,
    p: np.ndarray,
    x: np.ndarray | None = None,
    schema: FeatureSchema | None = None,
    *,
    seed: int,
    fixed_rows: bool = False,
    confidence: float = 0.95,
    threads: int = 1,
) -> EstimatedPerformance:
    """Every metric that can be estimated of predictions ``p``, (n,) or (n, classes).

    A regression needs ``x`` (n, features) float32 as the booster read it and its ``schema``; r2
    can't be estimated, as it needs the spread of labels. With ``fixed_rows`` the intervals are of
    the metric that these very rows will turn out to have (to be held against their labels), without
    of that of rows like them (to be held against what was promised).

    Rests on a sample of the rows where there are more than 200,000 / classes; for more than 20
    classes roc_auc is left out. Deterministic by ``seed``. No rows, or a holdout of fewer than 200
    rows or of one class, give no estimates but say so. Raises ValueError for NaN in ``p``, shapes
    that differ, or a regression without ``x``.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    p = _checked(holdout, p)
    classifier = holdout.objective != "regression"
    classes = p.shape[1] if p.ndim == 2 else 2 if classifier else 1
    scored: Scores | None = None
    calibrator = ""
    problem = _problem(holdout, len(p))
    if not problem:
        rows = _sampled(len(p), max(1, _MOST_CELLS // classes), seed)
        if classifier:
            with threadpool_limits(1):  # many small products, which threads only slow down
                scored, calibrator = _confidence_based(holdout, p[rows], seed, fixed_rows)
        else:
            if x is None or schema is None or len(x) != len(p):
                raise ValueError("a regression is estimated from the matrix of the same rows")
            from perennial.learning.losses import estimated_losses  # by XGBoost

            scored = estimated_losses(
                holdout, p[rows], x[rows], schema,
                seed=seed, replicates=_REPLICATES, fixed_rows=fixed_rows, threads=threads,
            )  # fmt: skip
    return EstimatedPerformance(
        method="cbpe" if classifier else "dle",
        rows=len(p),
        holdout_rows=len(holdout.y),
        calibrator=calibrator,
        fixed_rows=fixed_rows,
        estimates=scored.estimates(confidence) if scored else (),
        problem=problem,
    )


def _confidence_based(
    holdout: Holdout, p: Array, seed: int, fixed_rows: bool
) -> tuple[Scores, str]:
    """The metrics' expected values and replicates of a classifier's predictions.

    Each row is taken once as each class, and counts as often as that class is probable: metrics
    over counts are then metrics of the expected confusion matrix. A replicate counts the one class
    that it drew.
    """
    known = _columns(holdout.p)
    n, classes = len(p), known.shape[1]
    ranked = classes <= _MOST_CLASSES_RANKED
    every_class = np.repeat(np.arange(classes), n)
    metrics = statistics(
        holdout.objective,
        every_class,
        np.tile(p, (classes, 1)) if p.ndim == 2 else np.tile(p, classes),
        None if ranked else ("logloss", "accuracy"),
    )
    names = [name for metric in metrics for name in metric.names]

    def measured(counts: Array) -> Array:
        values: Array = np.hstack([metric(counts.T.reshape(1, -1)) for metric in metrics])[0]
        return values

    random = np.random.default_rng(seed)
    method = choose_method(holdout.y, known, seed=seed)
    scores = _columns(p)
    whole = np.ones(len(holdout.y))
    point = measured(fit_calibration(method, holdout.y, known, whole)(scores))
    replicated = np.empty((_REPLICATES, len(names)))
    for refit in range(_REFITS):
        counts = _resample(len(holdout.y), random)
        true = fit_calibration(method, holdout.y, known, counts)(scores)
        for replicate in range(refit, _REPLICATES, _REFITS):
            rows = np.ones(n) if fixed_rows else _resample(n, random)
            replicated[replicate] = measured(_drawn(true, random) * rows[:, None])
    defined = [i for i, value in enumerate(point) if not np.isnan(value)]
    return Scores(
        n=n,
        values={names[i]: float(point[i]) for i in defined},
        resampled={names[i]: replicated[:, i] for i in defined},
    ), method


def _drawn(probabilities: Array, random: np.random.Generator) -> Array:
    """One class a row, (n, k) ones and zeros, drawn by its probabilities (n, k)."""
    edges = probabilities.cumsum(axis=1)
    edges[:, -1] = 1.0
    chosen = (random.random(len(edges))[:, None] >= edges).sum(axis=1)
    drawn = np.zeros_like(probabilities)
    drawn[np.arange(len(drawn)), chosen] = 1.0
    return drawn


def _resample(n: int, random: np.random.Generator) -> Array:
    """How often each of n rows is drawn."""
    return np.bincount(random.integers(0, n, n), minlength=n).astype(np.float64)


def _columns(p: Array) -> Array:
    """Probabilities of all classes, (n, k)."""
    return p if p.ndim == 2 else np.column_stack([1 - p, p])


def _sampled(n: int, most: int, seed: int) -> np.ndarray:
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def _checked(holdout: Holdout, p: np.ndarray) -> Array:
    p = np.asarray(p, np.float64)
    if p.shape[1:] != holdout.p.shape[1:]:
        raise ValueError(f"predictions {p.shape} are not of the holdout's shape {holdout.p.shape}")
    if bad := int((~np.isfinite(p)).sum()):
        raise ValueError(f"{bad} of {p.size} predictions are NaN or infinite")
    return p


def _problem(holdout: Holdout, rows: int) -> str:
    """Why nothing can be estimated; "" when it can."""
    if rows == 0:
        return "no predictions"
    if len(holdout.y) < LEAST_HOLDOUT:
        return f"the holdout has {len(holdout.y):,} rows, fewer than {LEAST_HOLDOUT}"
    if holdout.objective != "regression" and len(np.unique(holdout.y)) < 2:
        return "the holdout has rows of one class only"
    return ""
