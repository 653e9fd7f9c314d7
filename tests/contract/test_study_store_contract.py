"""What a store of studies promises on every database it may be kept in."""

from __future__ import annotations

import threading
from dataclasses import replace

import optuna
import pytest

from perennial.learning.studies import StudyStore, TrialRecord
from perennial.spec.schema import Range

pytest_plugins = ["tests.contract.databases"]

SPACE = {"learning_rate": Range(low=0.05, high=0.3, log=True), "max_depth": Range(low=3, high=8)}
RECORD = TrialRecord(
    number=0,
    origin="search",
    params={"learning_rate": 0.7 / 3, "max_depth": 5},
    state="complete",
    value=0.1 + 0.7,
    rounds=17,
    curve={1: 1 / 3, 10: 0.9, 17: 0.1 + 0.7},
    stopped="early stopping",
    error="",
    importance={"speed": 2 / 3},
    seconds=1.25,
)
PRUNED = replace(RECORD, number=1, state="pruned", stopped="hopeless")
FAILED = replace(RECORD, number=2, state="failed", value=None, rounds=0, curve={}, error="no room")


@pytest.fixture
def url(registry_url: str) -> str:
    return registry_url


def test_records_come_back_to_the_last_bit_and_failed_ones_do_not_count(url: str) -> None:
    with StudyStore.open(url, "s", SPACE, greater_is_better=False) as store:
        for record in (RECORD, PRUNED, FAILED):
            store.add(record)
    with StudyStore.open(url, "s", SPACE, greater_is_better=False) as store:
        assert store.records() == {0: RECORD, 1: PRUNED}


def test_a_place_counts_once_also_when_two_processes_wrote_it(url: str) -> None:
    with StudyStore.open(url, "s", SPACE, greater_is_better=False) as store:
        store.add(RECORD)
        store.add(replace(RECORD, seconds=9.0))
        assert store.records() == {0: RECORD}


def test_optuna_reads_the_study_with_its_failures_and_pruned_trials(url: str) -> None:
    with StudyStore.open(url, "s", SPACE, greater_is_better=False) as store:
        for record in (RECORD, PRUNED, FAILED):
            store.add(record)
    study = optuna.load_study(study_name="s", storage=url)
    assert [t.state.name for t in study.trials] == ["COMPLETE", "PRUNED", "FAIL"]
    assert study.best_params == RECORD.params
    assert study.best_value == RECORD.value
    assert study.trials[2].user_attrs["perennial"]["error"] == "no room"


def test_what_is_put_with_a_study_is_got_by_the_next_process_and_not_by_another_study(
    url: str,
) -> None:
    with StudyStore.open(url, "s", SPACE, greater_is_better=False) as store:
        assert store.get("settings") is None
        store.put("settings", {"rounds": [1, 2]})
    with StudyStore.open(url, "s", SPACE, greater_is_better=False) as store:
        assert store.get("settings") == {"rounds": [1, 2]}
    with StudyStore.open(url, "t", SPACE, greater_is_better=False) as store:
        assert store.get("settings") is None


def test_studies_that_begin_at_once_on_a_new_database_all_begin(url: str) -> None:
    errors: list[BaseException] = []
    together = threading.Barrier(4)

    def begin(name: str) -> None:
        together.wait()
        try:
            with StudyStore.open(url, name, SPACE, greater_is_better=False) as store:
                store.add(RECORD)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=begin, args=(f"study {i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(optuna.get_all_study_names(url)) == [f"study {i}" for i in range(4)]
