"""The traffic a rollout's guards need to catch a harm, against tests of a size fixed beforehand.

    python -m benchmarks.rollouts [--rollouts 2000] [--alpha 0.00625]

A guard of ours is looked at all the time (whenever the rows have grown by 2 %) and stops when its
interval is surely beyond the limit; it is told nothing of the harm. The others are one-sided z
tests with the same alpha that catch a harm of a size named beforehand with probability 0.9: *z*
looks once, at the end; *O'Brien-Fleming* and *Pocock* look ten times and spend alpha as Lan and
DeMets (Biometrika 1983) do for these two. Each is planned once for exactly the harm that comes,
which nobody knows, and once for the least of its kind.

``--alpha`` is that of one guard in one step: 0.05 over a canary of four steps with two guards.
Traffic is the challenger's rows until the harm is caught; one that a planned test misses has taken
all its rows. False alarms are measured where a version sits exactly on its limit.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import e, log, sqrt

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from benchmarks.harness import console, show
from perennial.decisions.sequential import (
    bernoulli_bounds,
    difference_bounds,
    distribution_bounds,
)

POWER = 0.9
LOOKS = 10
_AT_ONCE = 100
_FIRST, _GROWTH = 10, 1.02
_REACH = 8.0  # of the planned rows: how long ours is followed

Spending = Callable[[np.ndarray, float], np.ndarray]


@dataclass(frozen=True)
class Test:
    """A planned test: at which parts of its rows it looks, the z it asks for then, and how many
    times the rows of one look it needs for the same power."""

    times: np.ndarray
    bounds: np.ndarray
    inflation: float


@dataclass(frozen=True)
class Taken:
    """The challenger's rows of each rollout, and which were caught."""

    rows: np.ndarray
    caught: np.ndarray

    def told(self) -> str:
        return f"{np.median(self.rows):,.0f}, {np.quantile(self.rows, 0.9):,.0f}"


def obrien_fleming(times: np.ndarray, alpha: float) -> np.ndarray:
    spent: np.ndarray = 2 * norm.sf(norm.isf(alpha / 2) / np.sqrt(times))
    return spent


def pocock(times: np.ndarray, alpha: float) -> np.ndarray:
    spent: np.ndarray = alpha * np.log1p((e - 1) * times)
    return spent


def fixed(alpha: float) -> Test:
    return Test(np.ones(1), np.array([norm.isf(alpha)]), 1.0)


def group_sequential(spending: Spending, alpha: float, looks: int = LOOKS) -> Test:
    """Evenly spaced looks, with bounds by recursive integration of the Brownian motion that has not
    crossed yet (Armitage, McPherson and Rowe 1969)."""
    times = np.arange(1, looks + 1) / looks
    steps = np.diff(spending(times, alpha), prepend=0)
    bounds = np.array(_crossings(times, 0.0, spend=steps)[0])

    def lacking(drift: float) -> float:
        return sum(_crossings(times, drift, bounds=bounds)[1]) - POWER

    drift = brentq(lacking, 0.1, 12.0, xtol=1e-4)
    needed = norm.isf(alpha) + norm.isf(1 - POWER)
    return Test(times, bounds, float((drift / needed) ** 2))


def _crossings(
    times: np.ndarray,
    drift: float,
    spend: np.ndarray | None = None,
    bounds: np.ndarray | None = None,
) -> tuple[list[float], list[float]]:
    """The bounds in z beyond which ``spend`` lies at each look, or those given, and what does."""
    grid, width = np.linspace(-12, 24, 7201, retstep=True)
    density: np.ndarray | None = None
    found, crossed = [], []
    for i, (time, step) in enumerate(zip(times, np.diff(times, prepend=0), strict=True)):
        if density is None:
            density = norm.pdf(grid, drift * step, sqrt(step))
        else:
            reach = np.arange(-2000, 2001) * width
            kernel = norm.pdf(reach, drift * step, sqrt(step)) * width
            density = np.convolve(density, kernel, mode="same")
        beyond = np.cumsum((density * width)[::-1])[::-1]
        if spend is not None:  # the last place beyond which at least so much lies
            place = int(np.flatnonzero(beyond >= spend[i])[-1])
        else:
            assert bounds is not None
            place = int(np.searchsorted(grid, bounds[i] * sqrt(time)))
        found.append(float(grid[place] / sqrt(time)))
        crossed.append(float(beyond[place]))
        density = np.where(grid < grid[place], density, 0.0)
    return found, crossed


def points(last: int) -> np.ndarray:
    count = int(log(last / _FIRST) / log(_GROWTH)) + 2
    return np.unique(np.minimum(_FIRST * _GROWTH ** np.arange(count), last).astype(int))


def rate_planned(rate: float, limit: float, alpha: float) -> float:
    """Rows of the one-sided z test of a rate."""
    spread = norm.isf(alpha) * sqrt(limit * (1 - limit))
    spread += norm.isf(1 - POWER) * sqrt(rate * (1 - rate))
    return float((spread / (rate - limit)) ** 2)


def rate_ours(
    random: np.random.Generator, rate: float, limit: float, alpha: float, last: int, rollouts: int
) -> Taken:
    at = points(last)
    counts = _counts(random, rate, at, rollouts)
    return _first(counts >= np.array([_least_failing(int(n), limit, alpha) for n in at]), at)


def _least_failing(n: int, limit: float, alpha: float) -> int:
    """The fewest failures in ``n`` that are surely above the limit; more always are."""
    low, high = int(n * limit), n + 1
    while high - low > 1:
        middle = (low + high) // 2
        if bernoulli_bounds(middle, n, alpha)[0] > limit:
            high = middle
        else:
            low = middle
    return high


def rate_test(
    random: np.random.Generator, rate: float, limit: float, test: Test, rows: float, rollouts: int
) -> Taken:
    at = np.ceil(rows * test.inflation * test.times).astype(int)
    z = (_counts(random, rate, at, rollouts) - at * limit) / np.sqrt(at * limit * (1 - limit))
    return _first(z >= test.bounds, at)


def _counts(random: np.random.Generator, rate: float, at: np.ndarray, rollouts: int) -> np.ndarray:
    steps = np.diff(at, prepend=0)
    counts: np.ndarray = random.binomial(steps, rate, (rollouts, len(at))).cumsum(axis=1)
    return counts


def loss_planned(increase: float, alpha: float) -> float:
    """Rows an arm of the one-sided z test of two means: losses of the champion have mean and
    deviation 1, the challenger's ``1 + increase``."""
    needed = norm.isf(alpha) + norm.isf(1 - POWER)
    return float((1 + (1 + increase) ** 2) * (needed / increase) ** 2)


def loss_ours(
    random: np.random.Generator, increase: float, alpha: float, last: int, rollouts: int
) -> Taken:
    at = points(last)

    def failing(means: np.ndarray, variances: np.ndarray) -> np.ndarray:
        """Asked only where the challenger's mean is more than a standard error higher."""
        apart = means[0] - means[1]
        alarms: np.ndarray = apart > np.sqrt((variances[0] + variances[1]) / at)
        rows = np.broadcast_to(at, alarms.shape)[alarms].tolist()
        known = (part[alarms].tolist() for k in (0, 1) for part in (means[k], variances[k]))
        alarms[alarms] = [
            difference_bounds(mean1, var1, n, mean0, var0, n, alpha)[0] > 0
            for n, mean1, var1, mean0, var0 in zip(rows, *known, strict=True)
        ]
        return alarms

    return _losses(random, increase, at, rollouts, failing)


def loss_test(
    random: np.random.Generator, increase: float, test: Test, rows: float, rollouts: int
) -> Taken:
    at = np.ceil(rows * test.inflation * test.times).astype(int)

    def failing(means: np.ndarray, variances: np.ndarray) -> np.ndarray:
        z = (means[0] - means[1]) / np.sqrt((variances[0] + variances[1]) / at)
        crossed: np.ndarray = z >= test.bounds
        return crossed

    return _losses(random, increase, at, rollouts, failing)


def _losses(
    random: np.random.Generator,
    increase: float,
    at: np.ndarray,
    rollouts: int,
    failing: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Taken:
    """Exponential losses of both arms, as many rows each; ``failing`` of their means and variances
    at each look, arrays (arm, rollouts, looks)."""
    parts = []
    for start in range(0, rollouts, _AT_ONCE):
        size = (2, min(_AT_ONCE, rollouts - start), int(at[-1]))
        losses = random.standard_exponential(size, dtype=np.float32)
        losses[0] *= 1 + increase
        begins = np.concatenate([[0], at[:-1]])
        sums, squares = (
            np.add.reduceat(of, begins, axis=2, dtype=np.float64).cumsum(axis=2)
            for of in (losses, losses**2)
        )
        means = sums / at
        parts.append(_first(failing(means, (squares / at - means**2) * at / (at - 1)), at))
    rows, caught = ([getattr(part, name) for part in parts] for name in ("rows", "caught"))
    return Taken(np.concatenate(rows), np.concatenate(caught))


def _first(alarms: np.ndarray, at: np.ndarray) -> Taken:
    caught = np.any(alarms, axis=1)
    return Taken(np.where(caught, at[alarms.argmax(axis=1)], at[-1]), caught)


def shift_ours(
    random: np.random.Generator, distance: float, limit: float, alpha: float, rollouts: int
) -> Taken:
    """Scores spread evenly over (0, 1), the challenger's ``distance`` higher: as far apart are the
    cumulative distributions."""
    at = points(20_000)
    found = np.zeros((rollouts, len(at)), dtype=bool)
    for rollout in range(rollouts):
        champion, challenger = random.random((2, at[-1]))
        for look, n in enumerate(at.tolist()):
            _, low, _ = distribution_bounds(challenger[:n] + distance, champion[:n], alpha)
            found[rollout, look] = low > limit
            if low > limit:
                break
    return _first(found, at)


def main(argv: Sequence[str] | None = None) -> None:
    """Simulate, print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rollouts", type=int, default=2000, help="of each cell")
    parser.add_argument("--alpha", type=float, default=0.05 / 8, help="of one guard in one step")
    arguments = parser.parse_args(argv)
    alpha, rollouts = arguments.alpha, arguments.rollouts
    tests = {
        "z": fixed(alpha),
        "O'Brien-Fleming": group_sequential(obrien_fleming, alpha),
        "Pocock": group_sequential(pocock, alpha),
    }
    random = np.random.default_rng(5)
    exact: list[tuple[str, ...]] = []
    least: list[tuple[str, ...]] = []
    none: list[tuple[str, ...]] = []
    for what, limit, rates in (
        ("requests that fail", 0.01, (0.02, 0.03, 0.05)),
        ("slower than p99_ms", 0.01, (0.02, 0.1)),
        ("slower than p95_ms", 0.05, (0.07, 0.1)),
    ):
        most = rate_planned(min(rates), limit, alpha)
        for rate in rates:
            harm = f"{what}: {limit:.0%} to {rate:.0%}"
            rows = rate_planned(rate, limit, alpha)
            ours = rate_ours(random, rate, limit, alpha, int(_REACH * rows), rollouts)
            for planned, table in ((rows, exact), (most, least)):
                theirs = [
                    rate_test(random, rate, limit, test, planned, rollouts)
                    for test in tests.values()
                ]
                table.append(_row(harm, ours, theirs))
        last = int(_REACH * most)
        without = [rate_ours(random, limit, limit, alpha, last, rollouts)]
        without += [
            rate_test(random, limit, limit, test, most, rollouts) for test in tests.values()
        ]
        none.append((f"{what}: {limit:.0%}", *(f"{taken.caught.mean():.2%}" for taken in without)))

    increases = (0.05, 0.1, 0.2)
    most = loss_planned(min(increases), alpha)
    for increase in increases:
        harm = f"mean loss: {increase:.0%} higher"
        rows = loss_planned(increase, alpha)
        ours = loss_ours(random, increase, alpha, int(_REACH / 2 * rows), rollouts)
        for planned, table in ((rows, exact), (most, least)):
            theirs = [
                loss_test(random, increase, test, planned, rollouts) for test in tests.values()
            ]
            table.append(_row(harm, ours, theirs))
    without = [loss_ours(random, 0.0, alpha, int(most), rollouts)]
    without += [loss_test(random, 0.0, test, most, rollouts) for test in tests.values()]
    none.append(("mean loss: as the champion's", *(f"{t.caught.mean():.2%}" for t in without)))

    headings = ("rows: median, 90 %", "ours", *(h for name in tests for h in (name, "ours takes")))
    show("planned for the harm that comes", headings, exact)
    show("planned for the least harm of its kind", headings, least)
    show(f"false alarms (alpha {alpha:.3%})", ("on the limit", "ours", *tests), none)
    shifts = [
        (f"{distance:g}", shift_ours(random, distance, 0.1, alpha, max(rollouts // 20, 10)).told())
        for distance in (0.2, 0.3, 0.5)
    ]
    show("predictions, limit 0.1, as many rows an arm", ("distance", "median, 90 %"), shifts)
    console.print(
        "inflation of the group-sequential tests: "
        + ", ".join(f"{name} {test.inflation:.3f}" for name, test in tests.items())
    )


def _row(harm: str, ours: Taken, theirs: Sequence[Taken]) -> tuple[str, ...]:
    cells = []
    for taken in theirs:
        ratios = (np.median(ours.rows) / np.median(taken.rows),
                  np.quantile(ours.rows, 0.9) / np.quantile(taken.rows, 0.9))  # fmt: skip
        cells += [taken.told(), f"{ratios[0]:.2f}, {ratios[1]:.2f}"]
    missed = "" if ours.caught.all() else f" ({1 - ours.caught.mean():.1%} not caught)"
    return (harm, ours.told() + missed, *cells)


if __name__ == "__main__":
    main()
