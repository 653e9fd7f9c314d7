"""deploy.yaml: where flows run, for all models, a flow, a model, or one flow of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from perennial.contracts.errors import InputError
from perennial.spec import ModelSpec
from perennial.spec.deployment import prefect_yaml
from perennial.spec.places import Deploy, load_deploy
from tests.workplace import MODEL_YAML

EVERYWHERE = {"PREFECT_LOCAL_STORAGE_PATH": ".perennial/results"}


def written(tmp_path: Path, text: str, models: tuple[str, ...] = ("demand",)) -> dict[str, Any]:
    """The deployments by model and flow, of a deploy.yaml's text."""
    path = tmp_path / "deploy.yaml"
    path.write_text(text)
    base = yaml.safe_load(MODEL_YAML)
    specs = [ModelSpec.model_validate(base | {"name": name}) for name in models]
    found = yaml.safe_load(prefect_yaml(specs, load_deploy(path)))["deployments"]
    return {f"{d['entrypoint'].split('.')[1]}/{d['name']}": d for d in found}


def test_without_the_file_or_with_an_empty_one_flows_run_on_the_embedded_pool(
    tmp_path: Path,
) -> None:
    assert load_deploy(tmp_path / "deploy.yaml") == Deploy()
    for text in ("", "# nothing yet\n\n"):
        found = written(tmp_path, text)
        assert {str(d["work_pool"]) for d in found.values()} == {
            str({"name": "perennial", "job_variables": {"env": EVERYWHERE}})
        }
        assert not any("pull" in d for d in found.values())


def test_the_narrower_place_wins_and_job_variables_are_merged_key_by_key(tmp_path: Path) -> None:
    found = written(
        tmp_path,
        """
        work_pool: {name: ecs, job_variables: {cpu: 1024, env: {A: all, B: all}}}
        pull: [{prefect.deployments.steps.set_working_directory: {directory: /project}}]
        flows:
          continuous-training: {work_pool: {job_variables: {cpu: 4096, env: {B: training}}}}
        models:
          parcels:
            work_pool: {name: big, work_queue_name: soon, job_variables: {env: {A: parcels}}}
            flows:
              rollout: {work_pool: {name: perennial}, pull: []}
        """,
        ("demand", "parcels"),
    )
    pools = {name: d["work_pool"] for name, d in found.items()}
    assert pools["drift_watch/demand"] == {
        "name": "ecs",
        "job_variables": {"env": {**EVERYWHERE, "A": "all", "B": "all"}, "cpu": 1024},
    }
    assert pools["continuous_training/demand"]["job_variables"] == {
        "env": {**EVERYWHERE, "A": "all", "B": "training"},
        "cpu": 4096,
    }
    assert pools["continuous_training/parcels"] == {
        "name": "big",
        "job_variables": {"env": {**EVERYWHERE, "A": "parcels", "B": "training"}, "cpu": 4096},
        "work_queue_name": "soon",
    }
    assert pools["rollout/parcels"]["name"] == "perennial"
    assert found["rollout/parcels"]["pull"] == []
    assert found["backtest/parcels"]["pull"] == [
        {"prefect.deployments.steps.set_working_directory": {"directory": "/project"}}
    ]


def test_the_file_says_how_the_pools_it_names_are_made_and_worked_for(tmp_path: Path) -> None:
    path = tmp_path / "deploy.yaml"
    path.write_text("work_pool: {name: ecs}\nmodels: {demand: {flows: {rollout: {}}}}")
    spec = ModelSpec.model_validate(yaml.safe_load(MODEL_YAML))
    head = prefect_yaml([spec], load_deploy(path)).split("name: perennial")[0]
    assert "perennial setup --pool process|docker|kubernetes|ecs" in head
    assert "prefect worker start --pool ecs" in head
    assert "--pool perennial\n" not in head


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            "work_pol: {name: ecs}\nflow: {}",
            [
                "deploy.yaml, work_pol: unknown key 'work_pol'; did you mean 'work_pool'?",
                "deploy.yaml, flow: unknown key 'flow'; did you mean 'flows'?",
            ],
        ),
        (
            "flows: {training: {}, xyz: {}}",
            [
                "deploy.yaml, flows.training: no such flow; did you mean 'continuous-training'?",
                "deploy.yaml, flows.xyz: no such flow (known: continuous-training, drift-watch, "
                "rollout, batch-scoring, backtest)",
            ],
        ),
        (
            "models: {demand: {work_pool: {job_variable: {cpu: 1}}}}",
            [
                "deploy.yaml, models.demand.work_pool.job_variable: unknown key 'job_variable'; "
                "did you mean 'job_variables'?"
            ],
        ),
        (
            'work_pool: {job_variables: {env: {TOKEN: "{{ prefect.blocks.secret.token }}"}}}',
            [
                "deploy.yaml, work_pool.job_variables: prefect deploy would put the block's value "
                "into the deployment, for everybody to read; a pull step or the work pool's "
                "template may name blocks"
            ],
        ),
        ("work_pool: ecs", ["deploy.yaml, work_pool: expected keys and values, not 'ecs'"]),
        (
            "models: {demnd: {}}",
            ["deploy.yaml, models: no model 'demnd'; did you mean 'demand'? (models here: demand)"],
        ),
        ("[ecs]", ["deploy.yaml: expected keys and values at the top level, not ['ecs']"]),
    ],
)
def test_every_mistake_is_told_with_its_place(
    tmp_path: Path, text: str, problems: list[str]
) -> None:
    with pytest.raises(InputError) as raised:
        written(tmp_path, text)
    told = [str(problem).replace(f"{tmp_path}/", "") for problem in raised.value.problems]
    assert told == problems
