"""A backtest as a flow on a real Prefect server, and as a command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perennial.bundle.read import open_bundle
from perennial.contracts.backtest import BacktestResult, BacktestSummary, Recipe
from perennial.stores.hindsight import Past, plan_backtest, read_past
from perennial.stores.project import Project, feature_source
from tests import turning
from tests.workplace import Workplace


@pytest.fixture
def rides(flow_project: Workplace) -> Workplace:
    """A project whose only model is that of a history that turns, ingested."""
    turning.write_project(flow_project.root, turning.rides())
    turning.ingest(flow_project.root)
    return flow_project


def test_the_command_recommends_the_policy_that_recovers_with_fewer_retrainings(
    rides: Workplace,
) -> None:
    ran = rides.cli("backtest", "rides", "--metric", "roc_auc")
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    table = {line.split("  ")[0]: line.split() for line in lines}
    assert table["never"][2:5] == ["0", "0", "0"]
    assert int(table["perennial"][2]) < int(table["schedule"][2])
    recommended = lines[lines.index("recommended") + 1]
    assert recommended.startswith("perennial: roc_auc 0.")
    assert "better than never by 0." in recommended
    page = Path(lines[-1].removeprefix("page  "))
    assert page.read_text().startswith("<!doctype html>")
    kept = BacktestResult.model_validate_json(page.with_name("backtest.json").read_text())
    assert kept.choice.policy == "perennial"

    again = rides.cli("backtest", "rides", "--metric", "roc_auc", "--json")
    assert again.returncode == 0, again.stderr
    summary = BacktestSummary.model_validate(json.loads(again.stdout))
    assert summary.result == kept  # from the cache, to the last digit
    assert summary.report_uri == str(page)

    from perennial.stores.registry import Registry

    assert Registry(Project(rides.root).registry_url).versions("rides") == []


def test_a_candidate_of_a_moment_is_the_version_that_training_made_then(
    flow_project: Workplace, tmp_path: Path
) -> None:
    summary = flow_project.run(as_of="2024-03-20T00:00:00+00:00")
    version = open_bundle(Path(summary["bundle_uri"]), summary["bundle_digest"])

    project = Project(flow_project.root)
    ref, spec = project.load_model("demand")
    plan = plan_backtest(project, "demand", None, None, "3d", None)
    assert plan.recipe.origin == "what version 1, the champion, was trained with"
    assert plan.recipe.model_dump(exclude={"origin"}) == Recipe(
        params=version.lineage["study"]["best_params"],
        rounds=version.lineage["study"]["best_rounds"],
        origin="",
    ).model_dump(exclude={"origin"})

    from datetime import UTC, datetime

    at = datetime(2024, 3, 20, tzinfo=UTC)
    past = Past(
        spec, feature_source(Path(ref.directory)), read_past(spec, plan), plan.recipe, at,
        tmp_path / "work", threads=2,
    )  # fmt: skip
    candidate = past.version(at).bundle
    for name in ("booster.ubj", "schema.json", "state.json", "reference.parquet", "features.py"):
        assert candidate.contents[name] == version.contents[name], name
    promised = {e["metric"]: e["value"] for e in _report(summary)["estimates"]}
    assert {e.metric: e.value for e in past.promise(at).estimates} == promised


def _report(summary: dict) -> dict:
    return json.loads(Path(summary["report_uri"]).with_name("evaluation.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ridez",), "no model 'ridez'; did you mean 'rides'?"),
        (("rides", "--metric", "rmse"), "no metric 'rmse' of a binary model"),
        (("rides", "--every", "often"), "--every: 'often' is not a duration"),
        (("rides", "--start", "soon"), "--start: 'soon' is not a time"),
        (("rides", "--start", "2025-01-05"), "no row for the train part"),
        (("rides", "--end", "2025-02-03"), "at least 2 are needed"),
        (("demand",), "nothing was ingested yet, so there is no past"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    rides: Workplace, arguments: tuple[str, ...], said: str
) -> None:
    ran = rides.cli("backtest", *arguments)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stdout == ""
