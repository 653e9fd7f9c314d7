"""Versions and aliases in MLflow: against a real server over SQLite."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from perennial.bundle.predictor import Predictor
from perennial.bundle.write import write_bundle
from perennial.cli.prefect_server import free_port
from perennial.contracts.publishing import Publication
from perennial.decisions.publishing import ALIASES
from perennial.stores.publishing import publish, servers
from perennial.stores.publishing.mlflow import URI_VARIABLE
from tests.published import CURVE, MODEL, NOW, Shelf, golden, mlflow_server, shelf
from tests.unit.bundle.conftest import make_ensemble
from tests.workplace import Workplace

KILL = """
import os, signal, sys
from pathlib import Path
from mlflow import MlflowClient
from perennial.stores.project import Project
from perennial.stores.publishing import publish, servers
from perennial.stores.registry import Registry
MlflowClient.log_artifacts = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
project = Project(Path(sys.argv[1]))
publish(servers(project)[0], Registry(project.registry_url), sys.argv[2])
"""


class Stopped(BaseException):
    """What a kill is to the server: nothing more comes."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as url:
        yield url


@pytest.fixture
def shelved(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Shelf]:
    """A shelf whose model has a name of its own at the server."""
    (tmp_path / "models").mkdir()
    monkeypatch.setenv(URI_VARIABLE, address)
    monkeypatch.setenv("WANDB_MODE", "offline")
    for alias in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(alias, raising=False)
    with shelf(tmp_path) as found:
        yield found
    client = MlflowClient(address, address)
    experiment = client.get_experiment_by_name(f"perennial/{MODEL}")
    if experiment is not None:
        client.delete_registered_model(MODEL)
        client.rename_experiment(experiment.experiment_id, f"done/{request.node.name}")
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]


def told(shelved: Shelf, most: int | None = None) -> Publication:
    (server,) = servers(shelved.project)
    return publish(server, shelved.registry, MODEL, most)


def held(address: str) -> dict[str, Any]:
    """What the server holds of the model: versions by their number here, aliases, runs."""
    client = MlflowClient(address, address)
    versions = list(client.search_model_versions(f"name = '{MODEL}'"))
    numbers = {one.version: int(one.tags["perennial.version"]) for one in versions}
    experiment = client.get_experiment_by_name(f"perennial/{MODEL}")
    runs = list(client.search_runs([experiment.experiment_id]))
    aliases = client.get_registered_model(MODEL).aliases
    return {
        "versions": sorted(numbers.values()),
        "aliases": {alias: numbers[str(version)] for alias, version in aliases.items()},
        "runs": sorted(run.info.run_name for run in runs),
        "whole": all(run.info.status == "FINISHED" for run in runs),
    }


def test_a_version_has_a_run_and_loads_from_the_server_to_the_last_bit(
    shelved: Shelf, address: str
) -> None:
    ref = shelved.add(1)
    shelved.route(1)
    done = told(shelved)
    assert (done.versions, done.aliases, done.error) == ((1,), {"champion": 1}, "")

    client = MlflowClient(address, address)
    version = client.get_model_version_by_alias(MODEL, "champion")
    assert version.tags["perennial.digest"] == ref.digest
    assert version.description == "version 1 passed"
    run = client.get_run(version.run_id)
    assert run.info.run_name == f"{MODEL}@1"
    assert run.data.params == {
        "objective": "multiclass", "max_depth": "4", "learning_rate": "0.1",
    }  # fmt: skip
    assert run.data.metrics["logloss"] == pytest.approx(0.41)
    assert "roc_auc" not in run.data.metrics, "what was not measured is not published"
    points = client.get_metric_history(run.info.run_id, "validation/logloss")
    assert {point.step: point.value for point in points} == CURVE
    for name, value in {
        "perennial.prefect_flow_run_url": "http://prefect/runs/1",
        "perennial.wandb_group": "study",
        "perennial.data_version": "1",
        "perennial.digest": ref.digest,
    }.items():
        assert run.data.tags[name] == value

    mlflow.set_tracking_uri(address)
    model = mlflow.pyfunc.load_model(f"models:/{MODEL}@champion")
    bundle = golden()
    ours = Predictor(bundle).predict(bundle.reference().head(50)).values
    assert model.predict(bundle.reference().head(50)).tobytes() == ours.tobytes()


def test_a_mean_of_pinned_members_is_published_with_a_name_that_mlflow_takes_for_each_weight(
    shelved: Shelf, address: str
) -> None:
    content = make_ensemble(shelved.project.home, "binary")
    assert content.weights == {"parcels@1": 3.0, "parcels@2": 1.0}
    ref = write_bundle(shelved.project.home / "bundles" / MODEL, content)
    shelved.registry.register(
        MODEL, ref, params={**content.weights, "objective": 0.5}, metrics={}, judgement={},
        links={}, actor="t",
        reason="", now=NOW,
    )  # fmt: skip
    shelved.route(1)

    done = told(shelved)

    assert (done.versions, done.aliases, done.error) == ((1,), {"champion": 1}, "")
    client = MlflowClient(address, address)
    run = client.get_run(client.get_model_version_by_alias(MODEL, "champion").run_id)
    assert run.data.params == {
        "objective": "binary", "weights/parcels_1": "3.0", "weights/parcels_2": "1.0",
        "weights/objective": "0.5",
    }  # fmt: skip


def test_aliases_follow_the_route_and_others_are_left_alone(shelved: Shelf, address: str) -> None:
    for number in (1, 2):
        shelved.add(number)
    shelved.route(1, challenger=2)
    assert told(shelved).moved == ALIASES
    assert held(address)["aliases"] == {"champion": 1, "challenger": 2}
    client = MlflowClient(address, address)
    client.set_registered_model_alias(MODEL, "mine", "1")

    shelved.route(1, shadow=2)
    assert told(shelved).moved == ()
    shelved.route(2)
    assert told(shelved).moved == ALIASES
    assert held(address)["aliases"] == {"champion": 2, "mine": 1}
    shelved.registry.rollback(MODEL, None, actor="t", reason="", now=NOW)
    assert told(shelved).aliases == {"champion": 1}
    client.delete_registered_model_alias(MODEL, "champion")
    assert told(shelved).moved == ("champion",)
    assert held(address)["aliases"] == {"champion": 1, "mine": 1}


def test_what_was_missed_is_made_good_bit_by_bit(shelved: Shelf, address: str) -> None:
    for number in (1, 2, 3):
        shelved.add(number)
    shelved.route(1)
    first = told(shelved, most=2)
    assert (first.versions, first.waiting) == ((1, 3), 1), "the champion's, then the newest"
    assert (told(shelved, most=2).versions, told(shelved).versions) == ((2,), ())
    assert held(address)["versions"] == [1, 2, 3]


class Stopping(MlflowClient):
    """A client that comes no further than its n-th call that changes something."""

    left = 0

    def __getattribute__(self, name: str) -> Any:
        if name.startswith(("create_", "log_", "set_")):
            Stopping.left -= 1
            if not Stopping.left:
                raise Stopped
        return super().__getattribute__(name)


@pytest.mark.parametrize("at", [2, 3, 5, 7, 14])
def test_stopped_before_any_call_there_is_one_run_and_one_version_in_the_end(
    at: int, shelved: Shelf, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        shelved.add(number)
    shelved.route(1, challenger=2)
    with monkeypatch.context() as stopping:
        stopping.setattr(Stopping, "left", at)
        stopping.setattr(mlflow, "MlflowClient", Stopping)
        with pytest.raises(Stopped):
            told(shelved)
    assert told(shelved).error == ""
    assert held(address) == {
        "versions": [1, 2],
        "aliases": {"champion": 1, "challenger": 2},
        "runs": [f"{MODEL}@1", f"{MODEL}@2"],
        "whole": True,
    }


def test_after_a_kill_there_is_one_run_and_one_version(shelved: Shelf, address: str) -> None:
    shelved.add(1)
    shelved.route(1)
    killed = subprocess.run(
        [sys.executable, "-c", KILL, str(shelved.project.root), MODEL], timeout=240, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert told(shelved).error == ""
    assert (held(address)["versions"], held(address)["runs"]) == ([1], [f"{MODEL}@1"])


def test_of_two_that_publish_at_once_one_version_stays(shelved: Shelf, address: str) -> None:
    for number in (1, 2):
        shelved.add(number)
    shelved.route(1, challenger=2)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: told(shelved), range(3)))
    assert told(shelved).error == ""
    found = held(address)
    assert (found["versions"], found["runs"]) == ([1, 2], [f"{MODEL}@1", f"{MODEL}@2"])
    assert found["aliases"] == {"champion": 1, "challenger": 2}


def test_a_bundle_that_is_gone_holds_up_no_other(shelved: Shelf, address: str) -> None:
    for number in (1, 2):
        shelved.add(number)
    shelved.route(1, challenger=2)
    (Path(shelved.registry.version(MODEL, 1).ref.uri) / "manifest.json").unlink()
    done = told(shelved)
    assert (done.versions, done.waiting, done.aliases) == ((2,), 1, {"challenger": 2})
    assert done.error.startswith("version 1: bundle ")
    assert held(address)["aliases"] == {"challenger": 2}


def test_an_address_with_a_password_is_told_without_it(
    shelved: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URI_VARIABLE, f"http://me:secret@127.0.0.1:{free_port()}")
    done = told(shelved)
    assert done.error.startswith(f"MLflow at {done.place} failed: ")
    assert "secret" not in done.model_dump_json()


def test_a_training_does_not_mind_a_dead_server_and_one_command_catches_up(
    flow_project: Workplace, tmp_path: Path
) -> None:
    port = free_port()
    flow_project.environment[URI_VARIABLE] = f"http://127.0.0.1:{port}"
    summary = flow_project.run()
    assert summary["decision"]["action"] == "promoted"
    failed = flow_project.cli("publish", "demand")
    assert failed.returncode == 1
    assert failed.stdout.startswith(f"demand: MLflow at http://127.0.0.1:{port} failed: ")

    with mlflow_server(tmp_path / "mlflow", port) as url:
        done = flow_project.cli("publish")
        assert (done.returncode, done.stdout) == (
            0, f"demand: mlflow at {url}, 1 new version, champion is version 1\n",
        ), done.stderr  # fmt: skip
        again = flow_project.cli("publish", "--json")
        (one,) = json.loads(again.stdout)["published"]
        assert (one["versions"], one["moved"], one["aliases"]) == ([], [], {"champion": 1})

        client = MlflowClient(url, url)
        client.delete_registered_model_alias("demand", "champion")
        flow_project.start("drift_watch", model="demand").communicate(timeout=300)
        version = client.get_model_version_by_alias("demand", "champion")
        run = client.get_run(version.run_id)
        assert run.data.tags["perennial.prefect_flow_run"]
        assert len(client.get_metric_history(run.info.run_id, "validation/logloss")) > 1
