"""What W&B was told of a study, read back from its own offline files; and what it can't break."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from perennial.contracts.refs import StudyRef, VersionRef
from perennial.learning import wandb_runs
from perennial.learning.matrices import Matrices
from perennial.learning.tracking import POINT_EVERY, StudyTracker
from perennial.learning.tuning import StudyResult, tune
from perennial.spec import ModelSpec

LINKS = {"flow_run": "8c1d", "flow_run_url": "http://127.0.0.1:4200/runs/flow-run/8c1d"}
VERSION = VersionRef(model="small", version=3, digest="abc123", uri="/bundles/abc123")

MakeSpec = Callable[..., ModelSpec]
MakeMatrices = Callable[..., Matrices]


@dataclass
class Read:
    """One run as its offline file has it."""

    id: str
    group: str
    job: str
    name: str
    project: str
    tags: list[str]
    config: dict[str, Any]
    text: str
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None


def read(folder: Path) -> Read:
    from wandb.proto import wandb_internal_pb2 as proto

    (file,) = folder.glob("*.wandb")
    found: Read | None = None
    for content in log_records(file.read_bytes()):
        record = proto.Record()
        record.ParseFromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            found = found or Read(
                run.run_id, run.run_group, run.job_type, run.display_name, run.project,
                list(run.tags), values(run.config.update), str(record),
            )  # fmt: skip
        elif found and kind == "history":
            found.history.append(values(record.history.item))
        elif found and kind == "summary":
            found.summary |= values(record.summary.update)
        elif found and kind == "exit":
            found.exit_code = record.exit.exit_code
    assert found is not None
    return found


def values(items: Any) -> dict[str, Any]:
    return {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items}


def log_records(data: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log: blocks of 32 KiB, a record in one piece or in several."""
    place, record = 7, b""  # W&B's own header comes first
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, place)
        record += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What a user reads; W&B's own log goes to its files."""
    return [record.message for record in caplog.records if record.name.startswith("perennial")]


@pytest.fixture(autouse=True)
def nothing_of_wandb_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def tracked(
    tmp_path: Path, url: str, make_spec: MakeSpec, make_matrices: MakeMatrices
) -> tuple[StudyResult, dict[str, Read]]:
    """A study of ten trials, three side by side, some of them pruned, and its runs by name."""
    spec = make_spec(
        training={"rounds": 60, "early_stopping_rounds": 60},
        tuning={
            "trials": 10,
            "batch": 3,
            "space": {"learning_rate": {"low": 0.0005, "high": 0.3, "log": True}},
        },
    )
    tracker = StudyTracker("small", tmp_path, links=LINKS, tags=["nightly"])
    result = tune(
        spec, make_matrices(), study_name="s", storage_url=url, tracker=tracker, workers=3
    )
    runs = [read(path) for path in (tmp_path / "wandb").glob("offline-run-*")]
    return result, {run.name: run for run in runs}


def test_each_trial_and_the_study_are_runs_of_one_group_with_parameters_and_links(
    tracked: tuple[StudyResult, dict[str, Read]],
) -> None:
    result, runs = tracked
    assert set(runs) == {"s", *(f"trial {i}" for i in range(10))}
    for name, run in runs.items():
        assert (run.group, run.project, run.tags) == ("s", "perennial-small", ["nightly"])
        assert run.job == ("study" if name == "s" else "trial")
        assert (run.config["links"], run.config["model"]) == (LINKS, "small")
        assert run.config["study"] == "s"
        assert run.exit_code == 0
    assert len({run.id for run in runs.values()}) == 11
    for record in result.records:
        config = runs[f"trial {record.number}"].config
        assert config["learning_rate"] == record.params["learning_rate"]
        assert (config["trial"], config["origin"]) == (record.number, record.origin)
    assert runs["s"].config["metric"] == "logloss"
    assert runs["s"].config["space"]["learning_rate"] == {"low": 0.0005, "high": 0.3, "log": True}


def test_a_trials_run_has_its_learning_curve_and_how_it_ended(
    tracked: tuple[StudyResult, dict[str, Read]],
) -> None:
    result, runs = tracked
    assert 0 < result.pruned < 10
    for record in result.records:
        run = runs[f"trial {record.number}"]
        rounds = max(record.curve)
        steps = [point["_step"] for point in run.history]
        assert steps == [1, *range(POINT_EVERY, rounds + 1, POINT_EVERY)]
        for point in run.history:
            assert point["validation"] >= point["best"]
            if point["_step"] in record.curve:
                assert point["best"] == record.curve[point["_step"]]
        assert run.summary["state"] == record.state
        assert run.summary["stopped"] == record.stopped
        assert run.summary["value"] == record.value
        assert run.summary["best_rounds"] == record.rounds
        assert run.summary["feature_importance"].keys() == {
            "speed",
            "height [m]",
            "colour",
            "noise",
        }


def test_the_studys_run_has_the_best_so_far_and_what_it_came_to(
    tracked: tuple[StudyResult, dict[str, Read]],
) -> None:
    result, runs = tracked
    run = runs["s"]
    assert [point["_step"] for point in run.history] == list(range(10))
    best = [point["best_value"] for point in run.history]
    assert best == sorted(best, reverse=True)
    assert best[-1] == result.best_value
    assert [point["value"] for point in run.history] == [r.value for r in result.records]
    assert sum(point["pruned"] for point in run.history) == result.pruned
    summary = run.summary
    assert summary["best_params"] == result.best_params
    assert (summary["best_trial"], summary["best_rounds"]) == (
        result.best.number,
        result.best_rounds,
    )
    assert (summary["trials"], summary["trials_failed"]) == (10, 0)
    assert summary["trials_pruned"] == result.pruned
    assert summary["parameter_importance"] == {"learning_rate": 1.0}
    assert sum(summary["feature_importance"].values()) == pytest.approx(1)


def test_the_result_says_where_each_run_is(
    tracked: tuple[StudyResult, dict[str, Read]],
) -> None:
    result, runs = tracked
    names = {"study": "s", **{f"trial {i}": f"trial {i}" for i in range(10)}}
    assert {name: read(Path(place)).id for name, place in result.places.items()} == {
        name: runs[run].id for name, run in names.items()
    }


def test_nothing_of_the_machine_is_recorded_and_no_process_stays(
    tracked: tuple[StudyResult, dict[str, Read]], tmp_path: Path
) -> None:
    _, runs = tracked
    kept = [path.name for path in (tmp_path / "wandb").glob("offline-run-*/files/*")]
    assert kept == []
    for run in runs.values():
        for secret in (socket.gethostname(), str(Path.cwd()), "pytest"):
            assert f'"{secret}' not in run.text
    processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert f"--pid {os.getpid()}" not in processes.stdout


def test_a_registered_version_joins_the_group_of_its_study(tmp_path: Path) -> None:
    study = StudyRef(
        study="s", best_params={"max_depth": 4}, best_rounds=12, best_value=0.4, metric="logloss",
        trials=10, pruned=2, tracking_group="s",
    )  # fmt: skip
    place = StudyTracker("small", tmp_path, links=LINKS).link_registration(study, VERSION)
    run = read(Path(place))
    assert (run.group, run.job, run.name) == ("s", "registration", "small@3")
    assert (run.config["digest"], run.config["bundle"]) == ("abc123", "/bundles/abc123")
    assert (run.config["version"], run.config["logloss"]) == (3, 0.4)
    assert run.config["best_params"] == {"max_depth": 4}
    assert run.config["links"] == LINKS
    assert run.summary["registered_version"] == "small@3"


def test_a_trial_that_is_run_again_has_the_same_id(tmp_path: Path) -> None:
    ids = []
    for attempt in ("first", "second"):
        with StudyTracker("small", tmp_path / attempt).study("s", {}) as log:
            log.trial(4, "search", {})
        ids.append({name: read(Path(place)).id for name, place in log.places.items()})
    assert ids[0] == ids[1]
    assert set(ids[0]) == {"study", "trial 4"}


def test_the_environment_names_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "delays")
    with StudyTracker("small", tmp_path).study("s", {}) as log:
        pass
    assert read(Path(log.places["study"])).project == "delays"


def test_a_study_that_is_interrupted_is_marked_as_failed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), StudyTracker("small", tmp_path).study("s", {}) as log:
        raise KeyboardInterrupt
    assert read(Path(log.places["study"])).exit_code == 1


def test_tracking_that_fails_is_told_once_and_changes_nothing(
    tmp_path: Path,
    new_url: Callable[[], str],
    make_spec: MakeSpec,
    make_matrices: MakeMatrices,
    caplog: pytest.LogCaptureFixture,
) -> None:
    in_the_way = tmp_path / "not-a-folder"
    in_the_way.write_text("")
    broken = StudyTracker("small", in_the_way)
    result = tune(
        make_spec(), make_matrices(), study_name="s", storage_url=new_url(), tracker=broken
    )
    alone = tune(make_spec(), make_matrices(), study_name="s", storage_url=new_url())
    assert [(r.params, r.value) for r in result.records] == [
        (r.params, r.value) for r in alone.records
    ]
    assert result.places == {}
    assert told(caplog) == [
        "tracking in W&B ended, the work goes on: FileExistsError: [Errno 17] File exists: "
        f"'{in_the_way}'"
    ]


def test_a_server_that_does_not_answer_costs_the_wait_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wandb_runs, "ANSWER_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with StudyTracker("small", tmp_path).study("s", {}) as log:
            log.trial(0, "search", {}).point(5, 0.5, 0.5)
    assert log.places == {}
    (message,) = told(caplog)
    assert message.startswith("tracking in W&B ended, the work goes on: CommError: Timed out")


@pytest.mark.parametrize("off", ["no directory", "WANDB_MODE"])
def test_tracking_can_be_off(off: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = None if off == "no directory" else tmp_path
    if directory:
        monkeypatch.setenv("WANDB_MODE", "disabled")
    with StudyTracker("small", directory).study("s", {}) as log:
        log.trial(0, "search", {}).point(5, 0.5, 0.5)
    assert log.places == {}
    assert list(tmp_path.iterdir()) == []


def test_a_process_of_wandbs_that_does_not_end_is_killed_and_ends_nothing_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_runs, "ANSWER_SECONDS", 2)

    def cores() -> list[psutil.Process]:
        return [c for c in psutil.Process().children() if c.name() == "wandb-core"]

    before = cores()
    with wandb_runs.process():
        runs = wandb_runs.Runs("small", tmp_path)
        with runs.open():
            runs.start("group", "study", "name", {}, [])
        (core,) = (one for one in cores() if one not in before)
        core.suspend()  # as deaf as one that waits for a server which has fallen silent
    assert core not in cores()
