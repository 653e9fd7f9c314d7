"""How often a world that stays as it is is called changed, and one that changed is found.

Where positives are rare, five of them in a thousand rows say little of a logloss, and a bootstrap
of them doesn't know how little.
"""

from __future__ import annotations

import numpy as np
import pytest

from perennial.contracts.drift import DriftOutcome, DriftVerdict
from perennial.contracts.retraining import Finding
from perennial.decisions.performance import Rarer, against_promise, unexplained
from perennial.decisions.watch import find
from perennial.learning.bootstrap import score
from perennial.learning.estimation import estimate
from perennial.learning.holdout import Holdout
from perennial.learning.metrics import rarer_labels

HOLDOUT_ROWS, WINDOW_ROWS = 300, 1500
LOSS = {Finding.HARMFUL, Finding.CONCEPT}
STABLE = DriftVerdict(
    outcome=DriftOutcome.STABLE, reason="as in training", rows=WINDOW_ROWS, reference_rows=7500,
    drifted_share=0.0, max_drifted_share=0.3, false_alarm_rate=0.01, min_effect=0.1,
    found=0.1, columns=(),
)  # fmt: skip


def found(intercept: float, seed: int, turned: float = 0.0) -> Finding:
    """Of a window of rows like the holdout's, whose probabilities the model knows; ``turned``: by
    how much the log odds of their labels have moved since."""
    random = np.random.default_rng(seed)

    def rows(number: int, moved: float) -> tuple[np.ndarray, np.ndarray]:
        odds = intercept + 1.5 * random.normal(size=number)
        y = random.random(number) < 1 / (1 + np.exp(-odds - moved))
        return y.astype(float), 1 / (1 + np.exp(-odds))

    (held, known), (y, p) = rows(HOLDOUT_ROWS, 0.0), rows(WINDOW_ROWS, turned)
    if len(np.unique(held)) < 2 or len(np.unique(y)) < 2:
        return Finding.INCONCLUSIVE  # there are no metrics
    promised, realised = (
        score("binary", label, [said], seed=seed, replicates=200)[0].estimates()
        for label, said in ((held, known), (y, p))
    )
    holdout = Holdout.sample("binary", held, known, None, seed=seed)
    foretold = estimate(holdout, p, seed=seed, fixed_rows=True).estimates
    rarer = Rarer(rarer_labels("binary", y), rarer_labels("binary", held))
    finding, reason = find(
        STABLE,
        realised=against_promise("logloss", realised, promised, rarer=rarer),
        unexplained=unexplained("logloss", realised, foretold, rarer=rarer),
    )
    assert reason
    return finding


def test_where_positives_are_rare_a_world_that_stays_is_not_called_changed() -> None:
    """Of the labels 2 % are positive, six of the holdout's."""
    assert not [seed for seed in range(40) if found(-5.0, seed) in LOSS]


@pytest.mark.parametrize(("intercept", "turned"), [(-0.5, 1.5), (-1.5, 1.5)])
def test_where_there_are_enough_of_them_a_world_that_changed_is_found(
    intercept: float, turned: float
) -> None:
    assert sum(found(intercept, seed, turned) is Finding.CONCEPT for seed in range(10)) >= 9
