"""How a cluster that can't be used is told."""

from __future__ import annotations

import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import xgboost as xgb
from distributed import Client, LocalCluster
from distributed.core import rpc

from perennial.contracts.errors import InputError, UnavailableError
from perennial.spec.compute import Compute as Settings
from perennial.stores import compute
from perennial.stores.compute import (
    ADDRESS_VARIABLE,
    HERE,
    Report,
    address_of,
    connect,
    differences,
)
from tests.waiting import until

NOWHERE = Settings(kind="dask", address="tcp://127.0.0.1:9")


def test_local_compute_takes_items_one_by_one_in_their_order() -> None:
    taken: list[int] = []
    with connect(Settings()) as here:
        assert here is HERE
        results = here.map(
            lambda item: (item, len(taken)), (taken.append(i) or i for i in range(3))
        )
        assert list(results) == [(0, 1), (1, 2), (2, 3)]


def test_the_environment_says_where_the_cluster_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert address_of(NOWHERE) == "tcp://127.0.0.1:9"
    monkeypatch.setenv(ADDRESS_VARIABLE, "tls://scheduler:8786")
    assert address_of(NOWHERE) == "tls://scheduler:8786"
    monkeypatch.setenv(ADDRESS_VARIABLE, "scheduler")
    said = r"^PERENNIAL_DASK_ADDRESS: 'scheduler' is not a scheduler's address"
    with pytest.raises(InputError, match=said):
        address_of(NOWHERE)


def test_a_cluster_without_an_address_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ADDRESS_VARIABLE, raising=False)
    with pytest.raises(InputError) as error, connect(Settings(kind="dask")):
        pass
    assert error.value.message == (
        "model.yaml, compute: kind: dask, but no address of a cluster (give compute.address, or "
        "set PERENNIAL_DASK_ADDRESS, such as tcp://scheduler:8786)"
    )


def test_a_scheduler_that_does_not_answer_is_worth_a_retry_and_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compute, "CONNECT_SECONDS", 1)
    said = "^no Dask scheduler answers at tcp://127.0.0.1:9: .*; start it, or set compute.address"
    with pytest.raises(UnavailableError, match=said), connect(NOWHERE):
        pass


def test_work_for_which_there_is_no_worker_any_more_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compute, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(compute, "ALONE_SECONDS", 1)
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=None) as place,
        Client(place, set_as_default=False) as client,
    ):
        cluster = compute.Cluster(client, "tcp://scheduler:8786")
        assert list(cluster.map(str, [1])) == ["1"]
        place.scale(0)
        until(lambda: not cluster.workers)
        with pytest.raises(UnavailableError) as error:
            list(cluster.map(str, [1]))
    assert error.value.message == (
        "the Dask cluster at tcp://scheduler:8786 has had no worker for 1 s"
    )


def unreadable() -> Report:
    raise OSError("Input/output error")


def test_workers_are_asked_for_and_not_what_the_client_last_heard_without_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard = Client._update_scheduler_info

    async def then_again(client: Client, n_workers: int = 0) -> None:
        await heard(client, n_workers)
        await heard(client)  # as it does every two seconds

    monkeypatch.setattr(Client, "_update_scheduler_info", then_again)
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
        ) as place,
        Client(place, set_as_default=False) as client,
    ):
        client.wait_for_workers(1)
        cluster = compute.Cluster(client, place.scheduler_address)
        assert list(cluster.workers.values()) == [2]
        with ThreadPoolExecutor(4) as threads:
            looks = list(threads.map(lambda _: cluster.threads, range(20)))
        assert looks == [2] * 20


def test_workers_of_a_scheduler_that_is_gone_are_not_none_but_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = "^the Dask cluster at tcp://scheduler:8786 does not answer any more"
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=None) as place,
        Client(place, set_as_default=False) as client,
    ):
        cluster = compute.Cluster(client, "tcp://scheduler:8786")
        with monkeypatch.context() as gone:
            gone.setattr(client, "scheduler", rpc("tcp://127.0.0.1:9", timeout=0.1))
            with pytest.raises(UnavailableError, match=f"{said}: "):
                _ = cluster.workers
    with pytest.raises(UnavailableError, match=f"{said}$"):
        _ = cluster.workers


def test_a_scheduler_that_fails_to_read_its_own_disk_is_told_of_as_a_worker_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compute, "report", unreadable)
    with LocalCluster(
        n_workers=1, processes=False, protocol="tcp://", dashboard_address=None
    ) as place:
        settings = Settings(kind="dask", address=place.scheduler_address)
        with pytest.raises(InputError) as error, connect(settings):
            pass
    worker, scheduler = error.value.message.splitlines()
    assert worker.startswith("worker tcp://")
    assert scheduler.startswith(f"scheduler {place.scheduler_address}: ")
    for told in (worker, scheduler):
        assert "it can't run Perennial: Input/output error (start the " in told


def test_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    said = r"not installed \(pip install 'perennial-ml\[dask\]'\)"
    with pytest.raises(InputError, match=said), connect(NOWHERE):
        pass


def test_a_process_of_another_environment_is_named_with_both_versions() -> None:
    here = {"python": "3.11", "xgboost": "3.2.0"}
    older, without = here | {"xgboost": "3.1.0"}, {"python": "3.11"}
    there = {
        "worker tcp://a:1": Report(here, here, here),
        "worker tcp://b:2": Report(older, older, older),
        "scheduler tcp://c:3": Report(without, without, without),
    }
    assert [str(problem) for problem in differences(here, there)] == [
        "worker tcp://b:2: it has xgboost 3.1.0 (here 3.2.0) (start the worker from the same "
        "environment as the flow)",
        "scheduler tcp://c:3: it has xgboost missing (here 3.2.0) (start the scheduler from the "
        "same environment as the flow)",
    ]
    assert compute.report() == pickle.loads(pickle.dumps(compute.report()))


def test_a_process_that_runs_what_an_upgrade_replaced_is_to_be_restarted() -> None:
    here = {"python": "3.11", "xgboost": "3.2.0"}
    before = here | {"xgboost": "3.1.0"}
    there = {"worker tcp://a:1": Report(before, before, here)}
    assert [str(problem) for problem in differences(here, there)] == [
        "worker tcp://a:1: it still runs what was there before an upgrade: xgboost 3.1.0 (now "
        "3.2.0) (restart the worker)",
    ]


def test_a_library_that_is_loaded_has_the_version_it_was_loaded_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert compute.running() == compute.installed()
    monkeypatch.setattr(xgb, "__version__", "3.1.0")
    assert compute.running() == compute.installed() | {"xgboost": "3.1.0"}
