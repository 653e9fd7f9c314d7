"""The keeper's rounds: what can't be written waits, everything else goes on, nothing is lost."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from perennial.serving import keeper as keeper_module
from perennial.serving.keeper import Keeper, KeeperSettings
from perennial.stores.predictions import Spool
from perennial.stores.predictions.reading import labels, predictions
from perennial.stores.predictions.segments import read_head
from perennial.stores.predictions.tables import commit_segments
from perennial.stores.predictions.waiting import waiting
from tests.logged import NOON, label_rows, prediction_rows, seal


def settings(home: Path, **changes: Any) -> KeeperSettings:
    values = {
        "project": str(home),
        "spool": str(home / "spool"),
        "tables": str(home / "tables"),
        "state": str(home / "keeper.json"),
        "parent": os.getppid(),
        "poll_seconds": 0.01,
    }
    return KeeperSettings(**{**values, **changes})


def once(keeper: Keeper) -> None:
    """A keeper that is told to end: one last round, and the state of it."""
    stop = threading.Event()
    stop.set()
    keeper.run(stop)


def state(home: Path) -> dict[str, Any]:
    return dict(json.loads((home / "keeper.json").read_text()))


def logged(home: Path, model: str = "m") -> list[str]:
    batches = predictions(f"{home}/tables/predictions/{model}", columns=["_id"])
    return sorted(id for batch in batches for id in batch["_id"].to_pylist())


def two_models(home: Path) -> None:
    spool = Spool(home / "spool")
    for model in ("m", "n"):
        spool.append(model, "predictions", prediction_rows([model]), {})
    spool.close()


def test_everything_that_waits_reaches_its_table(tmp_path: Path) -> None:
    two_models(tmp_path)
    seal(tmp_path / "spool", label_rows(["m"]), kind="labels")
    once(Keeper(settings(tmp_path)))
    assert (logged(tmp_path), logged(tmp_path, "n")) == (["m"], ["n"])
    found = [id for b in labels(f"{tmp_path}/tables/labels/m") for id in b["_id"].to_pylist()]
    assert found == ["m"]
    assert waiting(tmp_path / "spool") == []


def test_segments_of_a_model_that_wait_are_committed_at_once(tmp_path: Path) -> None:
    seal(tmp_path / "spool", *(prediction_rows([f"{i}"]) for i in range(9)))
    once(Keeper(settings(tmp_path)))
    assert len(logged(tmp_path)) == 9
    assert DeltaTable(str(tmp_path / "tables/predictions/m")).version() == 0


def test_a_commit_takes_only_so_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segments = seal(tmp_path / "spool", *(prediction_rows([f"{i}"]) for i in range(9)))
    monkeypatch.setattr("perennial.serving.keeper._COMMIT_BYTES", 4 * segments[0].bytes)
    once(Keeper(settings(tmp_path)))
    assert len(logged(tmp_path)) == 9
    assert DeltaTable(str(tmp_path / "tables/predictions/m")).version() == 2


def test_a_table_that_can_not_be_written_waits_while_the_others_go_on(tmp_path: Path) -> None:
    two_models(tmp_path)
    blocked = tmp_path / "tables" / "predictions" / "m"
    blocked.parent.mkdir(parents=True)
    blocked.touch()  # a file where the table's folder should be
    keeper = Keeper(settings(tmp_path))
    once(keeper)
    assert logged(tmp_path, "n") == ["n"]
    said = state(tmp_path)
    assert said["committed_rows"] == 1
    assert (said["lag"]["segments"], len(said["problems"])) == (1, 1)
    assert said["problems"][0].startswith(str(blocked))
    assert said["last_error"]["what"] == said["problems"][0]
    blocked.unlink()
    once(keeper)
    assert logged(tmp_path) == ["m"]
    said = state(tmp_path)
    assert (said["committed_rows"], said["problems"], said["lag"]["segments"]) == (2, [], 0)


def test_a_table_that_can_not_be_written_is_tried_more_and_more_rarely(tmp_path: Path) -> None:
    seal(tmp_path / "spool", prediction_rows(["a"]))
    (tmp_path / "tables").touch()
    keeper = Keeper(settings(tmp_path, longest_wait_seconds=3.0))
    table = keeper._table("predictions", "m")
    waits = []
    for _ in range(4):
        table.not_before = 0.0
        assert not keeper.round()
        waits.append(table.wait_seconds)
    assert waits == [1.0, 2.0, 3.0, 3.0]
    (tmp_path / "tables").unlink()
    assert not keeper.round(), "it is not yet time to try again"
    assert keeper.round(last=True)
    assert logged(tmp_path) == ["a"]


def test_a_store_that_can_not_be_reached_says_so_on_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "eu-north-1",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }.items():
        monkeypatch.setenv(name, value)
    seal(tmp_path / "spool", prediction_rows(["a"]))
    once(Keeper(settings(tmp_path, tables="s3://bucket/log/")))
    (problem,) = state(tmp_path)["problems"]
    assert problem.startswith(
        "s3://bucket/log/predictions/m: http://127.0.0.1:9 does not answer: Kernel error"
    )
    assert "\n" not in problem
    assert "\x1b" not in problem
    assert state(tmp_path)["lag"]["segments"] == 1


def test_what_a_dead_server_left_open_is_committed(tmp_path: Path) -> None:
    (one,) = seal(tmp_path / "spool", prediction_rows(["a"]))
    content = one.path.read_bytes()
    one.path.write_bytes(content[:8] + bytes(8) + content[16:])  # as it was before it was sealed
    assert read_head(one.path).sealed_bytes == 0
    once(Keeper(settings(tmp_path)))
    assert logged(tmp_path) == ["a"]


def test_a_segment_stays_for_the_shadow_versions_that_it_names(tmp_path: Path) -> None:
    seal(tmp_path / "spool", prediction_rows(["a"]), shadow=[3])
    for _ in range(2):
        once(Keeper(settings(tmp_path)))
        assert logged(tmp_path) == ["a"]
        assert len(waiting(tmp_path / "spool", "shadow")) == 1
    once(Keeper(settings(tmp_path, shadow_bytes=0)))
    assert waiting(tmp_path / "spool", "shadow") == []
    assert state(tmp_path)["shadow_segments_given_up"] == 1


def test_a_segment_that_can_not_be_marked_holds_up_its_own_table_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append("m", "predictions", prediction_rows(["m"]), {"shadow": [3]})
    spool.append("n", "predictions", prediction_rows(["n"]), {})
    spool.close()
    (marked,), _ = waiting(spool.folder)
    keeper = Keeper(settings(tmp_path))

    def no_room(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Path, "touch", no_room)
        for _ in range(2):
            once(keeper)
            assert (logged(tmp_path), logged(tmp_path, "n")) == (["m"], ["n"])
    said = state(tmp_path)
    problem = f"segment {marked.path} is committed, but can't be marked so: No space left on device"
    assert (said["problems"], said["committed_rows"]) == ([problem], 2)
    assert [(r.getMessage(), r.exc_info) for r in caplog.records] == 2 * [(problem, None)]
    once(keeper)
    assert (logged(tmp_path), waiting(spool.folder)) == (["m"], [])
    assert state(tmp_path)["problems"] == []


@pytest.mark.parametrize("killed", [False, True])
def test_a_damaged_segment_is_kept_aside_and_its_whole_records_are_committed(
    tmp_path: Path, killed: bool
) -> None:
    spool = Spool(tmp_path / "spool")
    for id in "abc":
        spool.append("m", "predictions", prediction_rows([id]), {})
    spool.close()
    ((one,),) = waiting(spool.folder)
    content = bytearray(one.path.read_bytes())
    content[-10] ^= 1
    one.path.write_bytes(content)
    (lost,) = seal(spool.folder, prediction_rows(["d"]))
    lost.path.write_bytes(b"?" * 4000)
    if killed:  # just behind the commit
        commit_segments([one], f"{tmp_path}/tables/predictions/m")
    once(Keeper(settings(tmp_path)))
    assert logged(tmp_path) == ["a", "b"]
    kept = sorted(Path(path).read_bytes() for path in state(tmp_path)["damaged"])
    assert kept == sorted([b"?" * 4000, bytes(content)])
    assert waiting(spool.folder) == []


def define(home: Path, model: str, log: str) -> None:
    """Write a model.yaml with such a ``log`` section."""
    path = home / "models" / model / "model.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"name: {model}\nobjective: binary\nsource: {{kind: csv, uri: x.csv, event_time: t}}\n"
        f"label: {{column: y}}\ncolumns: {{x: {{type: float}}}}\nlog: {log}\n"
    )


def files(home: Path, model: str = "m") -> int:
    return len(DeltaTable(f"{home}/tables/predictions/{model}").file_uris())


def put_one(home: Path, model: str, id: str, time: datetime = NOON) -> None:
    spool = Spool(home / "spool")
    spool.append(model, "predictions", prediction_rows([id], time=time), {})
    spool.close()


def log_one(home: Path, keeper: Keeper, model: str, id: str, time: datetime = NOON) -> None:
    put_one(home, model, id, time)
    tidy_round(keeper)


def tidy_round(keeper: Keeper) -> None:
    """A round, and the tidying that it begins."""
    keeper.round()
    for thread in threading.enumerate():
        if thread.name == "tidy":
            thread.join()


def test_tables_are_compacted_and_expired_by_their_model_s_settings(tmp_path: Path) -> None:
    define(tmp_path, "m", "{keep: 3650d, compact_files: 3}")
    keeper = Keeper(settings(tmp_path, tidy_seconds=0.0))
    for id in "012":
        log_one(tmp_path, keeper, "m", id)
    log_one(tmp_path, keeper, "m", "old", NOON - timedelta(days=3650))
    assert logged(tmp_path) == ["0", "1", "2"]
    assert files(tmp_path) == 1


def test_a_model_that_comes_later_is_tidied_and_changed_settings_are_followed(
    tmp_path: Path,
) -> None:
    keeper = Keeper(settings(tmp_path, tidy_seconds=0.0))
    for id in "012":
        log_one(tmp_path, keeper, "m", id)
    assert files(tmp_path) == 3
    define(tmp_path, "m", "{compact_files: 3}")
    tidy_round(keeper)
    assert files(tmp_path) == 1
    define(tmp_path, "m", "{compact_files: 100}")
    for id in "345":
        log_one(tmp_path, keeper, "m", id)
    assert files(tmp_path) == 4


def test_a_wrong_model_yaml_is_told_once_and_keeps_only_its_own_tables_from_being_tidied(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    define(tmp_path, "m", "{compact_files: few}")
    define(tmp_path, "n", "{compact_files: 3}")
    keeper = Keeper(settings(tmp_path, tidy_seconds=0.0))
    for id in "012":
        log_one(tmp_path, keeper, "m", id)
        log_one(tmp_path, keeper, "n", id)
    assert (files(tmp_path), files(tmp_path, "n")) == (3, 1)
    (told,) = caplog.messages
    wrong = tmp_path / "models" / "m" / "model.yaml"
    assert told.startswith(f"tables are not tidied: {wrong}, log.compact_files: ")
    define(tmp_path, "m", "{compact_files: 3}")
    tidy_round(keeper)
    assert files(tmp_path) == 1


@contextmanager
def at_work(keeper: Keeper) -> Iterator[None]:
    stop = threading.Event()
    working = threading.Thread(target=keeper.run, args=[stop])
    working.start()
    try:
        yield
    finally:
        stop.set()
        working.join()


def seconds_to_commit(home: Path, id: str) -> float:
    """How long a row is on its way to its table."""
    started = time.monotonic()
    put_one(home, "m", id)
    while waiting(home / "spool"):
        assert time.monotonic() < started + 30
        time.sleep(0.01)
    return time.monotonic() - started


def test_rows_are_committed_while_tables_are_tidied_and_soon_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, over = threading.Event(), threading.Event()

    def slow(*_: Any) -> None:
        begun.set()
        time.sleep(3)
        over.set()

    monkeypatch.setattr(keeper_module, "tidy", slow)
    define(tmp_path, "m", "{}")
    with at_work(Keeper(settings(tmp_path, tidy_seconds=0.3))):
        put_one(tmp_path, "m", "first")
        assert begun.wait(30)
        assert seconds_to_commit(tmp_path, "meanwhile") < 2
        assert not over.is_set()
        assert over.wait(30)
        assert seconds_to_commit(tmp_path, "after") < 2
    assert logged(tmp_path) == ["after", "first", "meanwhile"]


def test_a_look_that_took_long_is_not_followed_by_a_long_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def slow(spool: Path) -> list[Any]:
        looks.append(time.monotonic())
        time.sleep(0.5)
        return []

    monkeypatch.setattr(keeper_module, "waiting", slow)
    with at_work(Keeper(settings(tmp_path))):
        while len(looks) < 2:
            time.sleep(0.01)
    assert looks[1] - looks[0] < 4


def test_what_is_committed_while_a_table_is_tidied_is_tidied_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = threading.Event(), threading.Event()
    times = []

    def held(*_: Any) -> None:
        times.append(1)
        begun.set()
        assert go.wait(30)

    monkeypatch.setattr(keeper_module, "tidy", held)
    define(tmp_path, "m", "{}")
    keeper = Keeper(settings(tmp_path, tidy_seconds=0.0))
    put_one(tmp_path, "m", "first")
    keeper.round()
    assert begun.wait(30)
    put_one(tmp_path, "m", "meanwhile")
    keeper.round()
    assert logged(tmp_path) == ["first", "meanwhile"]
    go.set()
    tidy_round(keeper)
    for count in (2, 2):
        tidy_round(keeper)
        assert len(times) == count


def test_settings_survive_the_command_line(tmp_path: Path) -> None:
    given = settings(tmp_path, tidy_seconds=0.5)
    assert KeeperSettings.parse(given.command()[-1]) == given


def test_one_keeper_works_at_a_time(tmp_path: Path) -> None:
    seal(tmp_path / "spool", prediction_rows(["a"]))
    first, stop = Keeper(settings(tmp_path)), threading.Event()
    working = threading.Thread(target=first.run, args=[stop])
    working.start()
    try:
        while not (tmp_path / "keeper.json").exists():
            pass
        second = Keeper(settings(tmp_path, state=str(tmp_path / "second.json")))
        once(second)
        assert not (tmp_path / "second.json").exists()
    finally:
        stop.set()
        working.join()
    assert logged(tmp_path) == ["a"]
