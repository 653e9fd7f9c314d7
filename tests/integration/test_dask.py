"""A Dask cluster of two processes does what this process does: the same to the byte where nothing
is summed in another order, also with a worker killed in the middle of it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import xgboost as xgb
import xgboost.dask as dxgb
from distributed import Client, LocalCluster
from prefect.settings import PREFECT_API_URL, temporary_settings

import perennial
from perennial.bundle.predictor import Predictor
from perennial.bundle.read import open_bundle
from perennial.cli.prefect_server import call
from perennial.contracts.errors import InputError, PerennialError, UnavailableError
from perennial.contracts.refs import BundleRef, DatasetRef
from perennial.data.features import FeatureProgram
from perennial.data.splits import assign, split_columns
from perennial.learning.training import booster_bytes, load_booster, predict, train_booster
from perennial.learning.trials import Proposal
from perennial.learning.tuning import tune
from perennial.spec import ModelSpec, parse_spec, spec_text
from perennial.spec.compute import Compute as Settings
from perennial.stores import distributed as stores_distributed
from perennial.stores import rendezvous, sources, staging, tables, windows
from perennial.stores.bundles import open_stored
from perennial.stores.compute import ADDRESS_VARIABLE, HERE, Cluster, Compute, connect, installed
from perennial.stores.distributed import train_distributed
from perennial.stores.folders import folder_digest
from perennial.stores.matrices import read_matrix, read_schema, read_training, write_matrices
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from perennial.stores.watching import watch
from tasks import _trials
from tests.contract.s3 import BUCKET, moto
from tests.integration.clusters import (
    Killer,
    client_of,
    running,
    scheduler_of,
    two_workers,
    worker_of,
)
from tests.waiting import until
from tests.watched import DAY, END, make_watched
from tests.workplace import FEATURES_PY, MODEL_YAML, Workplace, demand_rows, environment_of

SPEC = parse_spec(MODEL_YAML)
SLOW = FEATURES_PY.replace("def warm(", "import time\n\n\ndef warm(").replace(
    "    return temperature.clip(lower=0)",
    "    time.sleep(0.3 * (len(temperature) > 1000))\n    return temperature.clip(lower=0)",
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with two_workers(tmp_path_factory.mktemp("dask")) as scheduler:
        yield scheduler


@pytest.fixture
def cluster(address: str) -> Iterator[Cluster]:
    with client_of(address) as found:
        yield found


@pytest.mark.filterwarnings("ignore:Mismatched versions")  # Dask's own word on it
def test_workers_of_other_environments_are_refused_each_with_what_it_has(tmp_path: Path) -> None:
    old, empty = tmp_path / "old", tmp_path / "empty"
    for name in ("xgboost", "pandas"):
        found = old / f"{name}-1.5.0.dist-info"
        found.mkdir(parents=True)
        (found / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5.0\n")
    (empty / "perennial").mkdir(parents=True)
    (empty / "perennial" / "__init__.py").touch()
    with (
        LocalCluster(
            n_workers=1, processes=False, protocol="tcp://", dashboard_address=None
        ) as alike,
        worker_of(alike.scheduler_address, tmp_path, "old", old),
        worker_of(alike.scheduler_address, tmp_path, "empty", empty),
        Client(alike, set_as_default=False) as client,
    ):
        client.wait_for_workers(3, timeout=240)
        known = client.scheduler_info(n_workers=-1)["workers"]
        by_name = {str(worker["name"]): address for address, worker in known.items()}
        settings = Settings(kind="dask", address=alike.scheduler_address)
        with pytest.raises(InputError) as error, connect(settings):
            pass
    fix = "(start the worker from the same environment as the flow)"
    assert sorted(error.value.message.splitlines()) == sorted([
        f"worker {by_name['empty']}: it can't run Perennial: "
        f"""ModuleNotFoundError("No module named 'perennial.stores'") {fix}""",
        f"worker {by_name['old']}: it has pandas 1.5.0 (here {pd.__version__}), "
        f"xgboost 1.5.0 (here {xgb.__version__}) {fix}",
    ])  # fmt: skip


def test_a_scheduler_of_another_environment_is_refused_as_it_reads_every_task(
    tmp_path: Path,
) -> None:
    empty = tmp_path / "empty"
    (empty / "perennial").mkdir(parents=True)
    (empty / "perennial" / "__init__.py").touch()
    with (
        scheduler_of(tmp_path, empty) as scheduler,
        worker_of(scheduler, tmp_path, "alike", tmp_path),
        pytest.raises(InputError) as error,
        connect(Settings(kind="dask", address=scheduler)),
    ):
        pass
    assert error.value.message == (
        f"scheduler {scheduler}: it can't run Perennial: No module named 'perennial.stores' "
        "(start the scheduler from the same environment as the flow)"
    )


def test_a_worker_that_outlives_an_upgrade_is_refused_until_it_is_restarted(
    tmp_path: Path,
) -> None:
    package = tmp_path / "environment" / "perennial"
    whole = Path(perennial.__file__).parent
    shutil.copytree(whole, package, ignore=shutil.ignore_patterns("__pycache__"))
    before = package / "data" / "encoding.py"
    before.write_text(f"{before.read_text()}# not the flow's yet\n")
    with LocalCluster(
        n_workers=0, processes=False, protocol="tcp://", dashboard_address=None
    ) as place:
        address = place.scheduler_address
        settings = Settings(kind="dask", address=address)
        with worker_of(address, tmp_path, "worker", package.parent):
            with pytest.raises(InputError, match=r"it has perennial's code \w+ \(here"):
                connected(settings)
            shutil.copy(whole / "data" / "encoding.py", before)  # the upgrade
            now = installed()["perennial's code"]
            said = (
                r"^worker tcp://\S+: it still runs what was there before an upgrade: "
                rf"perennial's code \w+ \(now {now}\) \(restart the worker\)$"
            )
            with pytest.raises(InputError, match=said):
                connected(settings)
        with worker_of(address, tmp_path, "worker", package.parent):
            assert connected(settings) == 1


def connected(settings: Settings) -> int:
    """The threads there are, where the cluster is not refused."""
    with connect(settings) as compute:
        return compute.threads


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows of three years in a file a year."""
    root = tmp_path_factory.mktemp("demand")
    (root / "data").mkdir()
    for year in (2021, 2022, 2023):
        demand_rows(f"{year}-01-01", 365, seed=year).to_csv(
            root / "data" / f"{year}.csv", index=False
        )
    return root


@pytest.fixture(scope="module")
def dataset(place: Path) -> DatasetRef:
    source = sources.inspect(SPEC, place, None, None)
    staged = staging.stage(SPEC, place, source, place / "staging")
    table = str(place / "tables")
    tables.publish(SPEC, staged, table, str(place / "quarantine"))
    return tables.dataset(SPEC, table, None)


def features(dataset: DatasetRef, folder: Path, compute: Compute, source: str = FEATURES_PY) -> str:
    """The digest of all that the features stage writes."""
    folder.mkdir()
    parts = split(dataset, SPEC)
    program = FeatureProgram.load(source, SPEC)
    scan = windows.reader(dataset, SPEC, compute)
    write_matrices(SPEC, program, scan, parts, folder, compute=compute)
    return folder_digest(folder)


def split(dataset: DatasetRef, spec: ModelSpec) -> np.ndarray:
    (frame,) = tables.scan(dataset, spec, split_columns(spec))
    return assign(frame, spec, dataset.as_of)


def test_workers_without_the_disk_of_the_flow_are_refused(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings(kind="dask", address=address)
    here = Path("/proc/self/cwd/project")  # another folder in each process, as on two machines
    with pytest.raises(InputError) as error, connect(settings, here):
        pass
    with Client(address, set_as_default=False) as client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
    seen = re.fullmatch(
        rf"{here}: not seen by 2 of 2 workers, such as (\S+) \(give them the same disk at the same "
        r"place, or keep all in a bucket: PERENNIAL_STORAGE\)",
        error.value.message,
    )
    assert seen is not None, error.value.message
    assert seen[1] in workers
    assert list((tmp_path / "project").iterdir()) == []
    with connect(settings, tmp_path) as compute:
        assert isinstance(compute, Cluster)


def test_features_of_a_cluster_are_those_of_this_process_to_the_byte(
    dataset: DatasetRef, cluster: Cluster, tmp_path: Path
) -> None:
    assert len(windows.windows(dataset, SPEC, 4)) == 4
    here = features(dataset, tmp_path / "here", HERE)
    assert features(dataset, tmp_path / "there", cluster) == here


def test_a_worker_killed_while_features_are_computed_is_replaced_and_nothing_differs(
    dataset: DatasetRef, address: str, cluster: Cluster, tmp_path: Path
) -> None:
    here = features(dataset, tmp_path / "here", HERE, SLOW)
    with Killer(address, lambda client: running(client, "_encode")) as killer:
        there = features(dataset, tmp_path / "there", cluster, SLOW)
    assert killer.killed
    assert there == here


@pytest.fixture(scope="module")
def matrices(dataset: DatasetRef, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("matrices") / "features"
    features(dataset, folder, HERE)
    return folder


PARAMS = {"max_depth": 4, "learning_rate": 0.2}


def distributed(cluster: Cluster, folder: Path, rounds: int) -> bytes:
    booster, workers = train_distributed(
        cluster, folder, str(folder), SPEC, PARAMS, rounds, "train+validation"
    )
    assert workers == 2
    return booster_bytes(booster)


def losses(content: bytes, folder: Path) -> np.ndarray:
    x, y = read_matrix(folder, "test")
    p = predict(load_booster(content), np.asarray(x), read_schema(folder)).astype(float)
    return -np.log(np.where(np.asarray(y) == 1, p, 1 - p))


def test_a_distributed_booster_predicts_as_well_and_is_the_same_again(
    matrices: Path, cluster: Cluster
) -> None:
    there = distributed(cluster, matrices, 40)
    assert distributed(cluster, matrices, 40) == there
    here = booster_bytes(
        train_booster(read_training(matrices), SPEC, PARAMS, 40, 2, "train+validation")
    )
    worse = losses(there, matrices) - losses(here, matrices)
    assert abs(worse.mean()) < 3 * worse.std() / np.sqrt(len(worse))


def test_a_worker_killed_in_training_is_replaced_and_the_booster_is_the_same(
    matrices: Path, address: str, cluster: Cluster
) -> None:
    expected = distributed(cluster, matrices, 250)
    with Killer(address, lambda client: running(client, "_fit_share")) as killer:
        found = distributed(cluster, matrices, 250)
    assert killer.killed
    assert found == expected


def test_a_training_that_begins_as_all_workers_are_replaced_waits_for_one(
    matrices: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = cluster.workers
    looks = iter([{}, {}])
    monkeypatch.setattr(Cluster, "workers", property(lambda _: next(looks, known)))
    _, workers = train_distributed(cluster, matrices, str(matrices), SPEC, PARAMS, 3)
    assert workers == 1


GATHER = """
import json, sys
from xgboost.collective import CommunicatorContext
with CommunicatorContext(**json.loads(sys.argv[1])):
    pass
"""


def gathers(found: dict[str, Any], name: str) -> subprocess.Popen[bytes]:
    """A process that looks for those it trains with."""
    told = json.dumps(found | {"dmlc_communicator": "rabit", "dmlc_task_id": name})
    return subprocess.Popen([sys.executable, "-c", GATHER, told], stderr=subprocess.DEVNULL)


def test_a_scheduler_outlives_a_tracker_whose_workers_vanish(
    matrices: Path, tmp_path: Path
) -> None:
    """The tracker aborts its process when it tells a worker that is gone of the others."""
    here = Path(perennial.__file__).parents[1]
    with (
        scheduler_of(tmp_path, here) as address,
        worker_of(address, tmp_path, "a", here),
        worker_of(address, tmp_path, "b", here),
        client_of(address) as cluster,
    ):
        ask: Any = cluster.client.run_on_scheduler
        scheduler, expected = ask(os.getpid), distributed(cluster, matrices, 5)
        name, found = ask(rendezvous.start, 2, "127.0.0.1", cluster.client.id)
        (tracker,) = psutil.Process(scheduler).children()
        port = found["dmlc_tracker_port"]
        gone = gathers(found, "0")
        waiting = psutil.Process(gone.pid)
        until(lambda: any(c.raddr and c.raddr.port == port for c in waiting.net_connections()))
        time.sleep(0.5)  # it has said who it is
        gone.kill()
        gone.wait()
        late = gathers(found, "1")
        late.wait(240)
        until(lambda: tracker.status() == psutil.STATUS_ZOMBIE)
        assert ask(rendezvous.end, name) == -signal.SIGABRT

        assert distributed(cluster, matrices, 5) == expected
        assert ask(os.getpid) == scheduler
        left = [child.pid for child in psutil.Process(scheduler).children()]
        assert left == []


def test_a_training_whose_tracker_dies_begins_anew_and_is_worth_a_retry_when_each_does(
    matrices: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = distributed(cluster, matrices, 5)
    start, to_die = rendezvous._started, 1

    def dies(workers: int, host: str) -> Any:
        nonlocal to_die
        tracker, found = start(workers, host)
        if to_die:
            to_die -= 1
            tracker.kill()
        return tracker, found

    monkeypatch.setattr(rendezvous, "_started", dies)
    assert distributed(cluster, matrices, 5) == expected
    assert to_die == 0

    to_die = 1
    monkeypatch.setattr(stores_distributed, "_ATTEMPTS", 1)
    with pytest.raises(UnavailableError) as error:
        distributed(cluster, matrices, 5)
    assert error.value.message == (
        f"a worker of the Dask cluster at {cluster.address}, or XGBoost's tracker beside its "
        "scheduler, died in each of 1 trainings; in the last the tracker, with exit code -9"
    )


def test_gradient_based_sampling_is_the_same_whatever_threads_a_worker_has(matrices: Path) -> None:
    params = PARAMS | {"sampling_method": "gradient_based", "subsample": 0.5}
    found = []
    for threads in (1, 2):
        with (
            LocalCluster(
                n_workers=1, threads_per_worker=threads, processes=False, dashboard_address=None
            ) as place,
            Client(place, set_as_default=False) as client,
        ):
            cluster = Cluster(client, place.scheduler_address)
            booster, _ = train_distributed(cluster, matrices, str(matrices), SPEC, params, 10)
            found.append(booster_bytes(booster))
    assert found[0] == found[1]


def test_what_xgboost_refuses_is_told_as_it_is_on_one_machine(
    matrices: Path, cluster: Cluster
) -> None:
    with pytest.raises(PerennialError, match="XGBoost can't train: Invalid"):
        train_distributed(cluster, matrices, str(matrices), SPEC, {"max_depth": "deep"}, 3)


def no_room(folder: Path) -> Any:
    """In place of shutil.disk_usage, on a worker."""
    return SimpleNamespace(free=0)


def linger() -> None:
    """On a worker: leave the others some seconds before it can be told why."""
    leave = dxgb.CommunicatorContext.__exit__

    def late(self: Any, *args: Any) -> None:
        leave(self, *args)
        time.sleep(4)

    dxgb.CommunicatorContext.__exit__ = late


@pytest.mark.parametrize("which", [0, 1])
def test_a_worker_without_room_for_its_pages_is_told_of_whatever_that_does_to_the_other(
    matrices: Path, which: int
) -> None:
    spec = parse_spec(MODEL_YAML + "compute: {memory: 0.01MiB}\n")
    with two_workers(matrices.parent) as address, client_of(address) as cluster:
        cluster.client.run(linger, workers=[list(cluster.workers)[which]])
        for _ in range(3):  # of the two failures either may come first; workers may be new
            worker = list(cluster.workers)[which]
            cluster.client.run(setattr, shutil, "disk_usage", no_room, workers=[worker])
            with pytest.raises(InputError, match=r"may take [0-9]+ MiB, and 0 MiB are free"):
                train_distributed(cluster, matrices, str(matrices), spec, PARAMS, 3)


def test_rows_checked_on_a_cluster_are_staged_to_the_byte_as_here(
    place: Path, cluster: Cluster, tmp_path: Path
) -> None:
    rows = (place / "data" / "2021.csv").read_text().splitlines()
    rows[1:4] = ["x,north,1,1,True,1", rows[2] + ",1", rows[3].replace("south", "")]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("\n".join(rows))
    source = sources.inspect(SPEC, tmp_path, None, None)
    here = staging.stage(SPEC, tmp_path, source, tmp_path / "staging")
    there = staging.stage(SPEC, tmp_path, source, tmp_path / "elsewhere", cluster)
    assert here.bad_rows >= 2
    assert there.digest == here.digest


OPENED: list[str] = []


def opened_below(root: str) -> list[str]:
    """On a worker: the files below a folder that it opened since it was first asked."""
    if not OPENED:
        OPENED.append(root)
        sys.addaudithook(
            lambda name, about: OPENED.append(str(about[0])) if name == "open" else None
        )
    return [path for path in OPENED[1:] if path.startswith(root)]


def test_the_whole_flow_on_a_cluster_makes_the_same_data_and_as_good_a_model_without_its_disk(
    flow_project: Workplace, address: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow_project.write_rows("2024-b.csv", demand_rows("2024-03-31", 120, seed=2))
    here = flow_project.run(reason="here")
    flow_project.edit("objective: binary", "objective: binary\ncompute: {kind: dask}")
    with moto() as endpoint:
        storage = endpoint.environment("team/dask")
        for name, value in storage.items():
            monkeypatch.setenv(name, value)
        flow_project.environment.update(storage, **{ADDRESS_VARIABLE: address})
        cluster.client.run(lambda: os.environ.update(storage))
        cluster.client.run(opened_below, str(flow_project.root))
        there = flow_project.run(reason="there", force=True)
        opened = cluster.client.run(opened_below, str(flow_project.root))
        ref = BundleRef(uri=there["bundle_uri"], digest=there["bundle_digest"])
        elsewhere = open_stored(ref, Project(flow_project.root))
        sent = endpoint.client().list_objects_v2(Bucket=BUCKET, Prefix="team/dask/features/demand/")
    digest = elsewhere.lineage["features_digest"]
    assert f"team/dask/features/demand/{digest}/train.x.npy" in {e["Key"] for e in sent["Contents"]}
    assert list(opened.values()) == [[], []]
    assert {s["stage"] for s in there["stages"] if not s["cached"]} >= {
        "stage", "features", "tune", "train",
    }  # fmt: skip
    digest = here["bundle_digest"]
    place = flow_project.root / ".perennial" / "bundles" / "demand" / digest
    bundles = [open_bundle(place, digest), elsewhere]
    local, distributed = (bundle.lineage for bundle in bundles)
    assert distributed["dataset"]["content_digest"] == local["dataset"]["content_digest"]
    assert distributed["features_digest"] == local["features_digest"]
    # Trials run each on one worker, whole: the study is the same to the last bit.
    assert distributed["study"]["best_params"] == local["study"]["best_params"]
    assert distributed["study"]["best_value"] == local["study"]["best_value"]
    assert distributed["compute"] == {"kind": "dask", "workers": 2}
    assert "compute" not in local
    rows = pd.read_parquet(bundles[0].path / "reference.parquet")
    p, q = (Predictor(bundle).predict(rows).values for bundle in bundles)
    assert np.abs(p - q).mean() < 0.05
    assert np.corrcoef(p, q)[0, 1] > 0.95


def test_drift_counted_on_a_cluster_is_the_look_of_this_process(
    tmp_path: Path, cluster: Cluster
) -> None:
    watched = make_watched(tmp_path)
    watched.traffic()
    version = Registry(watched.project.registry_url).version(watched.spec.name, 1)
    looks = [
        watch(
            watched.project, watched.spec, version, (END - 7 * DAY, END), now=END, compute=compute
        )
        for compute in (HERE, cluster)
    ]
    assert looks[0].look.rows == 2000
    assert looks[1].look == looks[0].look
    assert looks[1].rows == looks[0].rows


STUDY = """
import dataclasses, json, sys
from pathlib import Path
import psutil
from prefect import flow, task
from prefect.runtime import flow_run
from perennial.learning.tuning import tune
from perennial.spec import parse_spec
from perennial.stores.compute import connect_client
from perennial.stores.matrices import read_training
from tasks import _trials
folder, address, spec = Path(sys.argv[1]), sys.argv[2], parse_spec(sys.argv[3])

def opened():
    if not hasattr(sys, "opened"):
        sys.opened = []
        sys.addaudithook(lambda name, about: name == "open" and sys.opened.append(str(about[0])))
    return sum(path.endswith("train.x.npy") for path in sys.opened)

def kept():
    return len(_trials._runners)

def started():
    return [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]

@task
def study():
    opened()
    matrices = read_training(folder)
    with connect_client(address) as cluster:
        run = cluster.client.run
        before, children = run(opened), run(started)
        with _trials.trials_on(cluster, str(folder), spec) as elsewhere:
            found = tune(
                spec, matrices, study_name="there", storage_url="sqlite:///study.db", workers=2,
                elsewhere=elsewhere,
            )
            ended = {
                "made": [(n - before.get(w, 0)) / opened() for w, n in run(opened).items()],
                "kept": list(run(kept).values()),
            }
        ended["left"] = list(run(kept).values())
        ended["started"] = [c for w, all in run(started).items() for c in all
                            if c not in children.get(w, [])]
    return {"trials": [dataclasses.asdict(record) for record in found.records], **ended}

@flow
def tuning():
    return {**study(), "run": flow_run.get_id()}

print(json.dumps(tuning()))
"""
LONGER = MODEL_YAML.replace("rounds: 60", "rounds: 400, early_stopping_rounds: 400")


FOUR_TRIALS = [(f"trial {number}", "COMPLETED") for number in range(4)]


def trial_runs(server: str, flow_run: str) -> list[tuple[str, str]]:
    asked = {"flow_runs": {"id": {"any_": [flow_run]}}}
    runs = call("POST", f"{server}/task_runs/filter", asked, seconds=120)
    return sorted((r["name"], r["state_type"]) for r in runs if "trial" in r["name"])


def told(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is the same of trials wherever and whenever they run."""
    kept = [{key: value for key, value in each.items() if key != "seconds"} for each in records]
    found: list[dict[str, Any]] = json.loads(json.dumps(kept))
    return found


def study_here(text: str, matrices: Path, near: Path) -> list[dict[str, Any]]:
    url = f"sqlite:///{near / 'here.db'}"
    found = tune(parse_spec(text), read_training(matrices), study_name="here", storage_url=url)
    return told([asdict(record) for record in found.records])


def study_there(project: Workplace, text: str, matrices: Path, address: str) -> dict[str, Any]:
    """The trials; of each worker, how often it read the matrices for them, how many runners it kept
    until they had ended and had left then, and what processes it started; the flow run's id."""
    printed = project.python("-c", STUDY, str(matrices), address, text)
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return {**found, "trials": told(found["trials"])}


def test_trials_run_side_by_side_on_both_workers_as_task_runs_of_their_own(
    flow_project: Workplace, address: str, matrices: Path
) -> None:
    found = study_there(flow_project, MODEL_YAML, matrices, address)
    assert found["trials"] == study_here(MODEL_YAML, matrices, flow_project.root)
    assert len(found["trials"]) == 4
    assert found["made"] == [1, 1]  # each worker made the matrix once, and trained on it
    assert found["kept"] == [1, 1]
    assert found["left"] == [0, 0]


def test_a_worker_of_two_threads_has_one_matrix_and_tells_each_flows_own_server_of_its_trials(
    project: Workplace,
    prefect_server: str,
    matrices: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    near = tmp_path_factory.mktemp("worker")
    with (
        LocalCluster(
            n_workers=0, processes=False, protocol="tcp://", dashboard_address=None
        ) as place,
        worker_of(place.scheduler_address, near, "w", near, 2, environment_of(near)),
    ):
        found = study_there(project, MODEL_YAML, matrices, place.scheduler_address)
        (project.root / "study.db").unlink()
        project.environment["PREFECT_API_URL"] = prefect_server
        again = study_there(project, MODEL_YAML, matrices, place.scheduler_address)
    assert found["trials"] == again["trials"] == study_here(MODEL_YAML, matrices, project.root)
    assert found["made"] == [1]
    assert found["left"] == [0]
    assert found["started"] == []  # no server of the worker's own
    until(lambda: trial_runs(prefect_server, again["run"]) == FOUR_TRIALS)


def test_workers_that_do_not_reach_the_prefect_server_are_refused_before_any_trial(
    cluster: Cluster, matrices: Path
) -> None:
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(InputError) as error,
        _trials.trials_on(cluster, str(matrices), SPEC),
    ):
        pass
    worker = next(iter(cluster.client.run(int)))
    assert error.value.message == (
        "the Prefect server http://127.0.0.1:9/api: not reached by 2 of 2 workers, such as "
        f"{worker} (every trial is a task run that its worker tells the server of: set "
        "PREFECT_API_URL to the address of one that the flow and the workers reach)"
    )


def test_a_worker_lets_a_study_go_when_its_time_is_up_though_the_flow_was_killed(
    matrices: Path,
) -> None:
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=None) as place,
        Client(place, set_as_default=False) as client,
    ):
        client.wait_for_workers(1)
        study = (str(matrices), spec_text(SPEC), time.time() + 10)
        client.submit(lambda: _trials._runner(study) and None, pure=False).result()
        assert list(_trials._runners) == [study]
        until(lambda: not _trials._runners)
    assert time.time() >= study[2]


def test_a_trial_that_waited_as_its_study_failed_does_not_keep_the_matrix_of_it(
    matrices: Path, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    go_on = threading.Event()

    def train(_: object, proposal: Proposal, *__: object) -> None:
        begun.append(proposal.number)
        assert go_on.wait(240)

    async def told() -> None:
        if begun:  # the study lets go of what it has here, while the first trial ends
            go_on.set()
            await asyncio.to_thread(until, lambda: not any(client.processing().values()))

    monkeypatch.setattr(_trials.TrialRunner, "run", train)
    monkeypatch.setattr(_trials, "_told", told)
    with (
        temporary_settings({PREFECT_API_URL: prefect_server}),
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, protocol="tcp://",
            dashboard_address=None,
        ) as place,
        Client(place, set_as_default=False) as client,
    ):  # fmt: skip
        cluster = Cluster(client, place.scheduler_address)
        study = (str(matrices), spec_text(SPEC), time.time() + 600)
        waited_for = []
        with (
            suppress(InterruptedError),
            _trials.trials_on(cluster, str(matrices), SPEC) as elsewhere,
        ):
            runner = elsewhere(time.monotonic() + 600)._runner
            for number in range(2):
                proposal = Proposal(number, "sampled", {})
                given = {"number": number, "study": study, "proposal": proposal, "finished": []}
                waited_for.append(runner.submit(_trials.run_trial, parameters=given))
            until(lambda: begun)
            raise InterruptedError
        until(lambda: not any(client.processing().values()))
        assert not _trials._runners
        assert begun == [0]


def test_a_worker_killed_in_a_trial_is_replaced_and_the_study_is_the_same_with_no_trial_twice(
    flow_project: Workplace, address: str, matrices: Path
) -> None:
    seen: set[str] = set()

    def in_the_second_round(client: Any) -> bool:
        of_each = [{str(key) for key in keys} for keys in client.processing().values()]
        seen.update(*of_each)
        return all(of_each) and sum("run_trial" in key for key in seen) > 2

    with Killer(address, in_the_second_round) as killer:
        found = study_there(flow_project, LONGER, matrices, address)
    assert killer.killed
    assert found["trials"] == study_here(LONGER, matrices, flow_project.root)
    assert [trial["number"] for trial in found["trials"]] == [0, 1, 2, 3]
    with sqlite3.connect(flow_project.root / "study.db") as kept:
        assert kept.execute("SELECT count(*) FROM trials").fetchone() == (4,)

    server = flow_project.environment["PREFECT_API_URL"]
    until(lambda: trial_runs(server, found["run"]) == FOUR_TRIALS)
