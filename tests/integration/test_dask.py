"""A Dask cluster of two processes does what this process does: the same to the byte where nothing
is summed in another order, also with a worker killed in the middle of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from perennial.contracts.refs import DatasetRef
from perennial.data.features import FeatureProgram
from perennial.data.splits import assign, split_columns
from perennial.spec import ModelSpec, parse_spec
from perennial.stores import sources, staging, tables, windows
from perennial.stores.compute import HERE, Cluster, Compute
from perennial.stores.folders import folder_digest
from perennial.stores.matrices import write_matrices
from tests.integration.clusters import Killer, client_of, running, two_workers
from tests.workplace import FEATURES_PY, MODEL_YAML, demand_rows

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
