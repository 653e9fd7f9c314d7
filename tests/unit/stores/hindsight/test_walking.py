"""Four policies walked through a history that turns."""

from __future__ import annotations

from pathlib import Path

import pytest

from perennial.contracts.backtest import POLICIES, BacktestPlan, BacktestResult, PolicyResult
from perennial.contracts.errors import InputError
from perennial.spec import ModelSpec
from perennial.stores.hindsight import Past, plan_backtest, read_past, walk_past
from perennial.stores.project import Project
from tests import turning


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("project")
    turning.write_project(root, turning.rides())
    turning.ingest(root)
    return Project(root)


def start(project: Project, metric: str = "roc_auc") -> tuple[ModelSpec, BacktestPlan, Past]:
    _, spec = project.load_model("rides")
    plan = plan_backtest(project, "rides", None, None, "7d", metric)
    place = project.folder("backtests", "rides")
    rows = read_past(spec, plan)
    return spec, plan, Past(spec, "", rows, plan.recipe, plan.moments[0], place, threads=1)


@pytest.fixture(scope="module")
def result(project: Project) -> BacktestResult:
    return walk_past(*start(project))


def timeless(policy: PolicyResult) -> PolicyResult:
    attempts = tuple(a.model_copy(update={"seconds": 0.0}) for a in policy.attempts)
    return policy.model_copy(update={"attempts": attempts})


def test_the_stale_version_loses_and_perennial_recovers_with_fewer_retrainings(
    result: BacktestResult,
) -> None:
    never, schedule, drift, perennial = result.policies
    assert len(never.attempts) == 0
    assert len(schedule.attempts) == len(result.plan.moments) - 1
    assert 1 <= len(perennial.attempts) <= len(schedule.attempts) / 2
    assert drift.attempts == ()  # inputs are as they were: only labels tell

    assert all(v is not None and v > 0.8 for v in perennial.values[:6])
    assert all(v is not None and v < 0.4 for v in never.values[-4:])
    for mine, best in zip(perennial.values[-4:], schedule.values[-4:], strict=True):
        assert mine is not None
        assert best is not None
        assert mine > best - 0.02
    assert result.choice.policy == "perennial"
    assert result.choice.front[:2] == ("never", "perennial")


def test_a_half_turned_candidate_is_refused_by_the_gates(result: BacktestResult) -> None:
    perennial = result.policies[-1]
    outcomes = [a.outcome for a in perennial.attempts]
    assert outcomes[0] == "kept"
    assert "promoted" in outcomes
    assert all("concept drift" in a.reason for a in perennial.attempts)
    serving = iter(perennial.serving)
    assert all(
        any(s == a.at for s in serving) for a in perennial.attempts if a.outcome == "promoted"
    )


def test_each_policy_is_the_same_alone_as_beside_the_others(
    project: Project, result: BacktestResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perennial.stores.hindsight import walking

    for policy, together in zip(POLICIES, result.policies, strict=True):
        monkeypatch.setattr(walking, "POLICIES", (policy,))
        alone = walk_past(*start(project))
        assert timeless(alone.policies[0]) == timeless(together)


def test_progress_rises_to_its_total(project: Project) -> None:
    told: list[tuple[int, int, str]] = []
    result = walk_past(*start(project), lambda *step: told.append(step))
    done = [d for d, _, _ in told]
    assert done == sorted(done)
    schedule = result.policies[1]
    assert told[-1][:2] == (len(schedule.attempts) + 4 * len(result.plan.moments),) * 2


def test_metrics_of_one_walk_are_of_the_same_rows(result: BacktestResult) -> None:
    assert sum(result.step_rows) == sum(
        1
        for at in turning.rides()["at"]
        if result.plan.moments[0] <= at.to_pydatetime() < result.plan.end
    )
    assert {len(p.values) for p in result.policies} == {len(result.step_rows)}


def test_a_start_without_a_version_is_told(project: Project) -> None:
    spec, plan, past = start(project)
    early = plan.model_copy(
        update={"moments": (plan.dataset.start, *plan.moments), "recipe": past.recipe}
    )
    with pytest.raises(InputError) as refused:
        walk_past(spec, early, past)
    assert refused.value.message.startswith(
        "rides: no version could be trained at 2025-01-01 00:00"
    )
    assert refused.value.message.endswith("(give a later --start)")


def test_a_random_part_of_a_long_history_keeps_its_order(project: Project, tmp_path: Path) -> None:
    spec, plan, _ = start(project)
    part = read_past(spec, plan.model_copy(update={"rows": 5_000}))
    assert len(part) == 5_000
    assert part["at"].is_monotonic_increasing
    assert part.equals(read_past(spec, plan.model_copy(update={"rows": 5_000})))
    assert len(read_past(spec, plan)) == plan.dataset.rows
