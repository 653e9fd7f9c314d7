"""The promise of ``Plan.alpha``: of versions without harm at most so many are rolled back, however
often they are looked at.

Every rollout here sits exactly on all its limits, the worst that is still no harm: it fails as
often as it may, is as slow as it may be, and its predictions, losses and revenue are distributed
as the champion's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from scipy.stats import norm

from perennial.contracts.rollouts import Guard, Measurement, Phase, Plan, Rollout, Step
from perennial.decisions.guards import judge, shares
from perennial.decisions.plans import plan_of
from perennial.decisions.rollout import start, step
from perennial.decisions.sequential import (
    bernoulli_bounds,
    difference_bounds,
    distribution_band,
    distribution_bounds,
)
from perennial.spec.production import Rollout as RolloutSpec

ROLLOUTS, LOOKS, AT_ONCE = 10_000, 100, 500
GUARDS = (
    Guard(name="error_rate", kind="error_rate", limit=0.01),
    Guard(name="p95_ms", kind="latency", limit=0.05, threshold=80.0),
    Guard(name="prediction_shift", kind="prediction", limit=0.0),
    Guard(name="logloss", kind="metric", limit=0.0),
    Guard(name="revenue", kind="business", limit=0.0, column="revenue"),
)
STEP = Step(
    strategy="canary",
    weight=50,
    bake_seconds=600,
    timeout_seconds=86_400,
    min_requests=100,
    guards=GUARDS,
)
PLAN = Plan(steps=(STEP,), alpha=0.05)

# A row is of one of 16 kinds: a prediction, and whether it came true. Losses have a long tail to
# the right; only what came true earns something, so what is lost has a tail to the left.
PREDICTIONS = np.array([0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 0.9])
COMMON = np.array([0.3, 0.25, 0.2, 0.1, 0.08, 0.04, 0.02, 0.01])
LOSSES = np.concatenate([-np.log1p(-PREDICTIONS), -np.log(PREDICTIONS)])
LOST = -np.concatenate([np.zeros(8), np.linspace(100, 5, 8)])


def odds(common: np.ndarray = COMMON, true: np.ndarray = PREDICTIONS) -> np.ndarray:
    """Of the 16 kinds, when a prediction is so common and comes true so often."""
    return np.concatenate([common * (1 - true), common * true])


@dataclass(frozen=True)
class Arm:
    """What is known of an arm at each look: arrays (rollouts, looks[, kinds]), rows (looks,)."""

    rows: np.ndarray
    failed: np.ndarray
    slow: np.ndarray
    kinds: np.ndarray

    @classmethod
    def drawn(
        cls,
        random: np.random.Generator,
        rows_a_look: int,
        rollouts: int = AT_ONCE,
        failing: float = GUARDS[0].limit,
        slow: float = GUARDS[1].limit,
        kinds: np.ndarray | None = None,
    ) -> Arm:
        shape = (rollouts, LOOKS)
        ends = np.round(np.cumsum(odds() if kinds is None else kinds) * 2**16).astype(int)
        kind_of = np.repeat(np.arange(16), np.diff(ends, prepend=0))
        drawn = kind_of[random.integers(0, ends[-1], (*shape, rows_a_look))]
        places = np.arange(rollouts * LOOKS).reshape(*shape, 1) * 16 + drawn
        counts = np.bincount(places.ravel(), minlength=rollouts * LOOKS * 16)
        return cls(
            rows=rows_a_look * np.arange(1, LOOKS + 1),
            failed=random.binomial(rows_a_look, failing, shape).cumsum(axis=1),
            slow=random.binomial(rows_a_look, slow, shape).cumsum(axis=1),
            kinds=counts.reshape(*shape, 16).cumsum(axis=1),
        )

    def mean(self, of: np.ndarray) -> np.ndarray:
        mean: np.ndarray = self.kinds @ of / self.rows
        return mean

    def variance(self, of: np.ndarray) -> np.ndarray:
        spread = self.kinds @ of**2 / self.rows - self.mean(of) ** 2
        variance: np.ndarray = np.maximum(spread, 0) * self.rows / (self.rows - 1)
        return variance

    def distribution(self) -> np.ndarray:
        predicted = self.kinds[..., :8] + self.kinds[..., 8:]
        return predicted.cumsum(axis=2) / self.rows[:, None]

    def predictions(self, rollout: int, look: int) -> np.ndarray:
        return np.repeat(np.tile(PREDICTIONS, 2), self.kinds[rollout, look])


def _rate_alarms(count: np.ndarray, rows: np.ndarray, limit: float, alpha: float) -> np.ndarray:
    """Where the rate is surely above the limit; each count that came up is asked once."""
    alarms = np.zeros(count.shape, dtype=bool)
    for look, n in enumerate(rows.tolist()):
        seen = np.unique(count[:, look]).tolist()
        sure = [number for number in seen if bernoulli_bounds(number, n, alpha)[0] > limit]
        alarms[:, look] = np.isin(count[:, look], sure)
    return alarms


def _mean_alarms(challenger: Arm, champion: Arm, of: np.ndarray, alpha: float) -> np.ndarray:
    """Where the challenger's mean is surely higher. Only one that is higher by a standard error or
    more can be, so that others aren't asked."""
    groups = [(arm.mean(of), arm.variance(of), arm.rows) for arm in (challenger, champion)]
    alarms = _standard_errors(challenger, champion, of) > 1
    known = [np.broadcast_to(part, alarms.shape)[alarms].tolist() for g in groups for part in g]
    alarms[alarms] = [
        difference_bounds(*measured, alpha)[0] > 0 for measured in zip(*known, strict=True)
    ]
    return alarms


def _standard_errors(challenger: Arm, champion: Arm, of: np.ndarray) -> np.ndarray:
    """How many of them the challenger's mean is above the champion's: the z statistic."""
    apart = challenger.mean(of) - champion.mean(of)
    error = np.sqrt(
        challenger.variance(of) / challenger.rows + champion.variance(of) / champion.rows
    )
    return np.divide(apart, error, out=np.zeros_like(apart), where=error > 0)


def _shift_alarms(challenger: Arm, champion: Arm, alpha: float) -> np.ndarray:
    apart = np.abs(challenger.distribution() - champion.distribution()).max(axis=2)
    bands = [
        distribution_band(int(n1), alpha / 2) + distribution_band(int(n0), alpha / 2)
        for n1, n0 in zip(challenger.rows, champion.rows, strict=True)
    ]
    return apart > np.array(bands)


def _alarms(challenger: Arm, champion: Arm) -> np.ndarray:
    """Which guards fail at which look: (guards, rollouts, looks)."""
    alpha, rows = shares(PLAN), challenger.rows
    return np.array(
        [
            _rate_alarms(challenger.failed, rows, GUARDS[0].limit, alpha),
            _rate_alarms(challenger.slow, rows, GUARDS[1].limit, alpha),
            _shift_alarms(challenger, champion, alpha),
            _mean_alarms(challenger, champion, LOSSES, alpha),
            _mean_alarms(challenger, champion, LOST, alpha),
        ]
    )


def _measured(challenger: Arm, champion: Arm, rollout: int, look: int) -> list[Measurement]:
    """What the five guards measure at one look, each by its own function."""
    alpha, at = shares(PLAN), (rollout, look)
    n1, n0 = int(challenger.rows[look]), int(champion.rows[look])
    found = []
    for count in (int(challenger.failed[at]), int(challenger.slow[at])):
        found.append((count / n1, *bernoulli_bounds(count, n1, alpha)))
    values = [arm.predictions(*at) for arm in (challenger, champion)]
    found.append(distribution_bounds(*values, alpha))
    for of in (LOSSES, LOST):
        (mean1, var1), (mean0, var0) = (
            (float(arm.mean(of)[at]), float(arm.variance(of)[at])) for arm in (challenger, champion)
        )
        bounds = difference_bounds(mean1, var1, n1, mean0, var0, n0, alpha)
        found.append((mean1 - mean0, *bounds))
    return [
        Measurement(
            guard=guard.name, n_champion=n0, n_challenger=n1, value=value, low=low, high=high
        )
        for guard, (value, low, high) in zip(GUARDS, found, strict=True)
    ]


@pytest.mark.parametrize("split", [(20, 20), (5, 95)], ids=["half", "a twentieth"])
def test_versions_without_harm_are_rolled_back_no_more_often_than_alpha(
    split: tuple[int, int],
) -> None:
    """10,000 rollouts, 100 looks each, five guards. The fixed-n z test on one of them, with all of
    alpha, rolls back a third of the same rollouts: on losses, at half. On revenue, of which a small
    arm sees too little to know its variance, it rolls back four fifths, at a twentieth."""
    random = np.random.default_rng(25)
    ours, z_tests = [], []
    for part in range(ROLLOUTS // AT_ONCE):
        arms = Arm.drawn(random, split[0]), Arm.drawn(random, split[1])
        alarms = _alarms(*arms).any(axis=0)
        ours.append(alarms.any(axis=1))
        of = LOSSES if split[0] == split[1] else LOST
        z_tests.append((_standard_errors(*arms, of) > norm.ppf(1 - PLAN.alpha)).any(axis=1))

        if part == 0:  # what is judged here in bulk is what `judge` says
            looked = [(i, int(row.argmax()) if row.any() else LOOKS - 1) for i, row in
                      enumerate(alarms) if row.any() or i < 50]  # fmt: skip
            for at in looked:
                check = judge(
                    0, STEP, _measured(*arms, *at), split[0], datetime(2026, 1, 1, tzinfo=UTC)
                )
                assert (check.outcome == "failed") == alarms[at]

    assert np.concatenate(ours).mean() <= PLAN.alpha
    assert np.concatenate(z_tests).mean() == pytest.approx(
        0.316 if split[0] == split[1] else 0.8, abs=0.03
    )


HARM: dict[str, Callable[[np.random.Generator], Arm]] = {
    "error_rate": lambda random: Arm.drawn(random, 20, 50, failing=0.04),
    "p95_ms": lambda random: Arm.drawn(random, 20, 50, slow=0.12),
    "prediction_shift": lambda random: Arm.drawn(random, 20, 50, kinds=odds(COMMON[::-1])),
    "logloss": lambda random: Arm.drawn(random, 20, 50, kinds=odds(true=PREDICTIONS[::-1])),
    "revenue": lambda random: Arm.drawn(random, 20, 50, kinds=odds(true=PREDICTIONS / 4)),
}


@pytest.mark.parametrize("harmed", HARM)
def test_each_guard_catches_its_own_harm_within_two_thousand_rows(harmed: str) -> None:
    random = np.random.default_rng(26)
    champion = Arm.drawn(random, 20, 50)
    failed = _alarms(HARM[harmed](random), champion).any(axis=2)
    number = [guard.name for guard in GUARDS].index(harmed)
    assert failed[number].mean() >= 0.9


COMPARED = plan_of(
    RolloutSpec.model_validate(
        {"strategy": "ab_test", "guards": {"metric": {"name": "logloss", "max_loss": 0.02}}}
    )
)
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def compared(challenger: Arm, champion: Arm, number: int) -> tuple[Phase, timedelta]:
    """How an ab_test with every default ends that is looked at all through its day, and when."""
    state = start(COMPARED, 1, 2, BEGAN).state
    rollout = Rollout(
        id=1, model="m", version=2, champion=1, plan=COMPARED, state=state, revision=0, actor="a",
        reason="", started_at=BEGAN, updated_at=BEGAN, ended_at=None,
    )  # fmt: skip
    means, variances = (
        [getattr(arm, what)(LOSSES)[number].tolist() for arm in (challenger, champion)]
        for what in ("mean", "variance")
    )
    rows = [arm.rows.tolist() for arm in (challenger, champion)]
    for look, (mean1, mean0) in enumerate(zip(*means, strict=True)):
        n1, n0 = (of[look] for of in rows)
        var1, var0 = (of[look] for of in variances)
        bounds = difference_bounds(mean1, var1, n1, mean0, var0, n0, shares(COMPARED))
        low, high = (bound if np.isfinite(bound) else None for bound in bounds)
        measured = Measurement(
            guard="logloss", n_champion=n0, n_challenger=n1, value=mean1 - mean0, low=low, high=high
        )
        now = BEGAN + DAY * (look + 1) / LOOKS
        decided = step(rollout, judge(0, COMPARED.steps[0], [measured], n1, now), now)
        assert decided is not None
        rollout = rollout.model_copy(update={"state": decided.state})
        if rollout.ended:
            return rollout.state.phase, now - BEGAN
    raise AssertionError("it outlived its timeout")


SURER = COMMON * 0.75 ** np.arange(8)
"""More rows of which the prediction is right and sure: a mean loss that is 30 % less."""


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (odds(), "no difference"),
        (odds(SURER / SURER.sum()), "promoted"),
        (odds(true=PREDICTIONS[::-1]), "rolled back"),
    ],
    ids=["alike", "better", "worse"],
)
def test_an_ab_test_goes_on_until_it_is_sure_and_is_seldom_sure_of_nothing(
    kinds: np.ndarray, expected: Phase
) -> None:
    """A day of 100 looks. Of versions that are alike no more than ``alpha`` are decided, either
    way, before it is over."""
    random = np.random.default_rng(27)
    arms = Arm.drawn(random, 100, 200, kinds=kinds), Arm.drawn(random, 100, 200)
    ends = [compared(*arms, number) for number in range(200)]
    took = sorted(lasted for phase, lasted in ends if phase == expected)
    assert len(took) >= (1 - COMPARED.alpha) * 200, Counter(phase for phase, _ in ends)
    assert (took[0] == DAY) == (expected == "no difference")
    assert (took[100] < DAY) == (expected != "no difference")
