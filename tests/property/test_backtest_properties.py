"""What holds of walks and of the choice between them, whatever is found and whatever it brings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.contracts.backtest import POLICIES, Attempt, Policy, PolicyResult
from perennial.contracts.retraining import Finding, Result
from perennial.decisions.backtest import Seen, Step, walk
from perennial.decisions.choosing import choose, mean_metric
from perennial.spec.production import Retrain

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
few = settings(deadline=None, max_examples=80)

GAPS = st.lists(st.integers(1, 24 * 9), min_size=1, max_size=30)
SETTINGS = st.builds(
    Retrain,
    schedule=st.sampled_from([None, "0 6 * * 1", "0 0 * * *"]),
    on=st.sampled_from([(), ("drift",), ("performance",), ("drift", "performance")]),
    cooldown=st.sampled_from([HOUR, 6 * HOUR, 3 * DAY, 10 * DAY]),
    max_a_day=st.integers(1, 3),
)


class World:
    """What is found and what comes of trainings, drawn once for each pair of moments."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.asked: list[tuple[datetime, datetime]] = []

    def _drawn(self, what: str, at: datetime, trained_at: datetime) -> int:
        self.asked.append((at, trained_at))
        days = (at - START) // HOUR, (trained_at - START) // HOUR
        return hash((self.seed, what == "look", *days)) % 97

    def look(self, at: datetime, trained_at: datetime) -> Seen:
        findings = list(Finding)
        finding = findings[self._drawn("look", at, trained_at) % len(findings)]
        moved = finding in (Finding.BENIGN, Finding.HARMFUL)
        return Seen(finding=finding, why="drawn", drifted=moved)

    def train(self, at: datetime, trained_at: datetime) -> Result:
        results: list[Result] = ["promoted", "kept", "unchanged", "failed"]
        return results[self._drawn("train", at, trained_at) % 4]


def moments_of(gaps: list[int]) -> list[datetime]:
    moments = [START]
    for gap in gaps:
        moments.append(moments[-1] + gap * HOUR)
    return moments[1:]


def walked(policy: Policy, gaps: list[int], rules: Retrain, world: World) -> list[Step]:
    return walk(policy, moments_of(gaps), START, rules, world.look, world.train)


@few
@given(gaps=GAPS, rules=SETTINGS, seed=st.integers(0, 10_000))
def test_never_trains_nothing_and_nobody_trains_more_than_once_a_moment(
    gaps: list[int], rules: Retrain, seed: int
) -> None:
    for policy in POLICIES:
        steps = walked(policy, gaps, rules, World(seed))
        assert len(steps) == len(gaps)
        for step in steps:
            assert (step.outcome is not None) == (step.answer.answer == "retrain")
        if policy == "never":
            assert all(step.outcome is None and step.trained_at == START for step in steps)


@few
@given(gaps=GAPS, rules=SETTINGS, seed=st.integers(0, 10_000))
def test_only_versions_of_earlier_moments_are_looked_at_and_beaten(
    gaps: list[int], rules: Retrain, seed: int
) -> None:
    for policy in POLICIES:
        world = World(seed)
        steps = walked(policy, gaps, rules, world)
        known = {START, *moments_of(gaps)}
        assert all(trained_at < at and {at, trained_at} <= known for at, trained_at in world.asked)
        serving = START
        for at, step in zip(moments_of(gaps), steps, strict=True):
            assert step.trained_at == (at if step.outcome == "promoted" else serving)
            serving = step.trained_at


@few
@given(gaps=GAPS, rules=SETTINGS, seed=st.integers(0, 10_000))
def test_perennials_policy_keeps_its_cooldown_and_cap_and_never_trains_on_a_fault(
    gaps: list[int], rules: Retrain, seed: int
) -> None:
    moments = moments_of(gaps)
    steps = walked("perennial", gaps, rules, World(seed))
    went = [at for at, step in zip(moments, steps, strict=True) if step.outcome is not None]
    assert all(later - earlier >= rules.cooldown for earlier, later in pairwise(went))
    for at in went:
        assert sum(at - DAY < other <= at for other in went) <= rules.max_a_day
    for step in steps:
        assert step.seen is not None
        assert not (step.seen.finding is Finding.FAULT and step.outcome)
    if not rules.on:
        assert went == []


@few
@given(gaps=GAPS, rules=SETTINGS, seed=st.integers(0, 10_000))
def test_what_comes_later_changes_no_earlier_step(
    gaps: list[int], rules: Retrain, seed: int
) -> None:
    for policy in POLICIES:
        whole = walked(policy, gaps, rules, World(seed))
        half = walked(policy, gaps[: len(gaps) // 2], rules, World(seed))
        assert whole[: len(half)] == half


VALUES = st.lists(
    st.tuples(*(st.floats(0.5, 0.9) for _ in POLICIES), st.integers(0, 500)),
    min_size=2,
    max_size=40,
)
TRAININGS = st.tuples(*(st.integers(0, 12) for _ in POLICIES[1:]))


def results_of(
    values: list[tuple[float, ...]], trainings: tuple[int, ...]
) -> tuple[list[PolicyResult], list[int]]:
    rows = [int(step[-1]) for step in values]
    found = []
    for i, policy in enumerate(POLICIES):
        mine = [step[i] if step[-1] else None for step in values]
        attempts = [
            Attempt(
                at=START + n * DAY, reason="why", outcome="kept", verdict="judged", beaten=START,
                rows=1000, seconds=0.5,
            )
            for n in range((0, *trainings)[i])
        ]  # fmt: skip
        found.append(
            PolicyResult(
                policy=policy, metric=mean_metric(mine, rows), values=tuple(mine),
                serving=(START,) * len(mine), attempts=tuple(attempts),
            )
        )  # fmt: skip
    return found, rows


@few
@given(values=VALUES, trainings=TRAININGS, better=st.booleans(), seed=st.integers(0, 99))
def test_who_costs_less_and_is_no_worse_is_never_passed_over(
    values: list[tuple[float, ...]], trainings: tuple[int, ...], better: bool, seed: int
) -> None:
    results, rows = results_of(values, trainings)
    choice = choose("roc_auc", results, rows, greater_is_better=better, seed=seed)
    by_policy = {result.policy: result for result in results}
    if results[0].metric is None:
        assert choice.policy == "never"
        return
    sign = 1 if better else -1
    metrics = {p: sign * (result.metric or 0.0) for p, result in by_policy.items()}

    line = [by_policy[policy] for policy in choice.front]
    assert all(a.rows < b.rows for a, b in pairwise(line))
    assert all(metrics[a.policy] < metrics[b.policy] for a, b in pairwise(line))
    assert line[0].rows == 0

    chosen = by_policy[choice.policy]
    assert chosen in line
    for other in results:
        if metrics[other.policy] >= metrics[chosen.policy] and other is not chosen:
            assert other.rows >= chosen.rows
    for d in choice.differences:
        assert not (d.against == choice.policy and d.counts)
        assert d.low is None or d.high is None or d.low <= d.high
    again = choose("roc_auc", results, rows, greater_is_better=better, seed=seed)
    assert choice == again
