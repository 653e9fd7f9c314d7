"""What an acknowledgement means, and what happens when there is no room for a record."""

from __future__ import annotations

import asyncio
import errno
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from perennial.contracts.errors import InputError, UnavailableError
from perennial.stores.predictions import Spool, SpoolFullError, SpoolLag, read_segment
from perennial.stores.predictions import segments as format
from perennial.stores.predictions.segments import SegmentWriter, read_head
from perennial.stores.predictions.sessions import take_over
from perennial.stores.predictions.waiting import Stock, finish, segments, waiting
from tests.logged import label_rows, prediction_rows, seal
from tests.waiting import until


def ids(spool: Path) -> list[str]:
    found = []
    for segment in segments(spool):
        for record in read_segment(segment.path):
            found += record.batch["_id"].to_pylist()
    return found


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk(format._sync_data)
    monkeypatch.setattr(format, "_sync_data", disk.sync)
    return disk


class Disk:
    """The real disk, but slow or broken on demand."""

    def __init__(self, sync: Callable[[int], None]) -> None:
        self._sync = sync
        self.calls = 0
        self.failures = 0
        self.free = threading.Event()
        self.free.set()

    def sync(self, fd: int) -> None:
        self.calls += 1
        assert self.free.wait(240)
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EIO, "Input/output error")
        self._sync(fd)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path, seal_seconds=600)
    yield spool
    spool.close()


@pytest.fixture
def strict(tmp_path: Path, disk: Disk) -> Iterator[Spool]:
    spool = Spool(tmp_path, acknowledge="strict", seal_seconds=600)
    yield spool
    disk.free.set()
    spool.close()


def test_a_fast_acknowledgement_means_that_the_file_has_it(spool: Spool) -> None:
    for i in range(3):
        assert spool.append("m", "predictions", prediction_rows([f"{i}"]), {}) is None
        assert ids(spool.folder) == [f"{n}" for n in range(i + 1)]


def test_a_strict_acknowledgement_waits_for_the_disk(strict: Spool, disk: Disk) -> None:
    disk.free.clear()
    written = strict.append("m", "predictions", prediction_rows(["a"]), {})
    assert written is not None
    until(lambda: disk.calls == 1)
    assert not written.done()
    disk.free.set()
    written.result(20)


def test_records_that_come_while_the_disk_is_at_work_share_its_next_call(
    strict: Spool, disk: Disk
) -> None:
    disk.free.clear()
    first = strict.append("m", "predictions", prediction_rows(["a"]), {})
    until(lambda: disk.calls == 1)
    later = [strict.append("m", "predictions", prediction_rows([f"{i}"]), {}) for i in range(50)]
    disk.free.set()
    for written in (first, *later):
        assert written is not None
        written.result(20)
    assert disk.calls == 2


def test_a_disk_that_fails_acknowledges_nothing_and_the_next_record_goes_elsewhere(
    strict: Spool, disk: Disk
) -> None:
    disk.failures = 1
    lost = strict.append("m", "predictions", prediction_rows(["a"]), {})
    assert lost is not None
    with pytest.raises(UnavailableError) as error:
        lost.result(20)
    assert str(error.value) == "the prediction log can't be written: Input/output error"
    written = strict.append("m", "predictions", prediction_rows(["b"]), {})
    assert written is not None
    written.result(20)
    assert len(list(segments(strict.folder))) == 2


def test_a_segment_the_disk_would_not_seal_is_sealed_later(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perennial.stores.predictions.spool._RETRY_SECONDS", 0.05)
    spool = Spool(tmp_path, seal_bytes=1)
    disk.failures = 2
    for i in range(3):
        spool.append("m", "predictions", prediction_rows([f"{i}"]), {})
    until(lambda: bool(waiting(tmp_path)) and len(waiting(tmp_path)[0]) == 3)
    spool.close()
    assert [one.number for one in waiting(tmp_path)[0]] == [1, 2, 3]


def test_a_segment_is_sealed_when_it_is_large_enough(tmp_path: Path) -> None:
    spool = Spool(tmp_path, seal_bytes=10_000, seal_seconds=600)
    for i in range(12):
        spool.append("m", "predictions", prediction_rows([f"{i}"]), {})
    until(lambda: bool(waiting(tmp_path)))
    spool.close()
    sizes = [one.bytes for one in waiting(tmp_path)[0]]
    assert all(size >= 10_000 for size in sizes[:-1])
    assert ids(tmp_path) == [f"{i}" for i in range(12)]


def test_a_segment_is_sealed_when_it_is_old_enough(tmp_path: Path) -> None:
    spool = Spool(tmp_path, seal_seconds=0.1)
    spool.append("m", "predictions", prediction_rows(["a"]), {})
    until(lambda: bool(waiting(tmp_path)))
    spool.close()


def test_models_and_kinds_have_streams_of_their_own(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append("m", "predictions", prediction_rows(["a"]), {})
    spool.append("m", "labels", label_rows(["a"]), {})
    spool.append("n", "predictions", prediction_rows(["b"]), {})
    spool.close()
    found = [(one.model, one.kind, one.number) for stream in waiting(tmp_path) for one in stream]
    assert found == [("m", "labels", 1), ("m", "predictions", 1), ("n", "predictions", 1)]


def test_a_batch_of_no_rows_is_no_record(spool: Spool) -> None:
    assert spool.append("m", "predictions", prediction_rows([]), {}) is None
    assert list(segments(spool.folder)) == []


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (
            prediction_rows(["a"], {"x": pa.array(["u"]).dictionary_encode()}),
            "column 'x': no table stores dictionary<values=string, indices=int32, ordered=0>",
        ),
        (label_rows(["a"]), "predictions have one column '_time', which says their day"),
    ],
)
def test_columns_that_no_table_takes_are_refused_before_they_are_acknowledged(
    spool: Spool, batch: pa.RecordBatch, said: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        spool.append("m", "predictions", batch, {})
    assert list(segments(spool.folder)) == []


@pytest.mark.parametrize("name", ["../m", "a/b", "..", ".hidden"])
def test_a_name_can_not_lead_out_of_the_folder(spool: Spool, name: str) -> None:
    with pytest.raises(ValueError, match="can't name a folder"):
        spool.append(name, "predictions", prediction_rows(["a"]), {})


def test_what_may_wait_is_bounded_until_some_of_it_is_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, seal_bytes=1, max_bytes=3 * 2**20)
    rows = prediction_rows(["x" * 1000] * 700)
    spool.append("m", "predictions", rows, {})
    spool.append("m", "predictions", rows, {})
    with pytest.raises(SpoolFullError) as error:
        spool.append("m", "predictions", rows, {})
    assert str(error.value) == (
        "the prediction log has 2 MiB waiting for its table, and no more than 3 may wait"
    )
    assert len(ids(tmp_path)) == 1400
    until(lambda: len(next(iter(waiting(tmp_path)), [])) == 2)
    finish(waiting(tmp_path)[0][0].path, "live")

    def room() -> bool:
        try:
            spool.append("m", "predictions", rows, {})
        except SpoolFullError:
            return False
        return True

    until(room)
    spool.close()


FULL_DISK = """
import resource, sys
from pathlib import Path
from perennial.stores.predictions import Spool, SpoolFullError
from tests.logged import prediction_rows

spool = Spool(Path(sys.argv[1]), seal_seconds=600)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 200_000))
kept = []
try:
    while True:
        spool.append("m", "predictions", prediction_rows([str(len(kept))]), {})
        kept.append(len(kept))
except SpoolFullError as error:
    print(error)
print(len(kept))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
spool.append("m", "predictions", prediction_rows([str(len(kept))]), {})
spool.close()
"""


def test_a_full_disk_keeps_what_was_acknowledged_and_nothing_of_what_was_not(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    said, kept = done.stdout.splitlines()
    assert said == "no space left for the prediction log"
    told = f"the spool {tmp_path} can't be written: [Errno 27] File too large"
    assert done.stderr.splitlines() == [told]
    assert int(kept) > 10
    assert ids(tmp_path) == [f"{i}" for i in range(int(kept) + 1)]


def test_the_lag_counts_what_waits_for_its_table(tmp_path: Path) -> None:
    (first, second) = seal(tmp_path, prediction_rows(["a"]), prediction_rows(["b"]), shadow=[2])
    finish(first.path, "live")  # the shadow version may still need it
    spool = Spool(tmp_path)
    lag = spool.lag()
    assert (lag.segments, lag.bytes) == (1, second.bytes)
    assert 0 < lag.oldest_seconds < 60
    finish(second.path, "live")
    until(lambda: spool.lag() == SpoolLag(0, 0, 0.0))
    spool.append("m", "predictions", prediction_rows(["c"]), {})
    assert spool.lag().bytes > 0, "at once, not at the next look at the folder"
    spool.close()


def test_a_closed_spool_takes_nothing_and_has_sealed_everything(spool: Spool) -> None:
    spool.append("m", "predictions", prediction_rows(["a"]), {})
    spool.close()
    spool.close()
    assert all(read_head(one.path).sealed_bytes for one in segments(spool.folder))
    with pytest.raises(UnavailableError) as error:
        spool.append("m", "predictions", prediction_rows(["b"]), {})
    assert str(error.value) == "the prediction log is closed"


def test_the_segments_of_a_living_server_are_not_touched(spool: Spool) -> None:
    spool.append("m", "predictions", prediction_rows(["a"]), {})
    assert take_over(spool.folder) == 0
    (segment,) = segments(spool.folder)
    assert read_head(segment.path).sealed_bytes == 0
    assert waiting(spool.folder) == []


DIES = """
import os, sys
from pathlib import Path
from perennial.stores.predictions import Spool
from tests.logged import prediction_rows

spool = Spool(Path(sys.argv[1]), seal_seconds=600)
for id in "abc":
    spool.append("m", "predictions", prediction_rows([id]), {})
os.kill(os.getpid(), 9)
"""


def test_a_new_server_takes_over_what_a_killed_one_left(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", DIES, str(tmp_path)], check=False, timeout=240)
    (left,) = segments(tmp_path)
    with left.path.open("ab") as file:
        file.write(b"\xf5PLf torn")
    assert waiting(tmp_path) == []
    spool = Spool(tmp_path)
    ((taken,),) = waiting(tmp_path)
    assert taken.path == left.path
    assert ids(tmp_path) == ["a", "b", "c"]
    finish(taken.path, "live")
    assert take_over(tmp_path) == 0
    assert [path.name for path in tmp_path.iterdir()] == [spool._session.name]
    spool.close()


def test_what_can_not_be_taken_over_is_put_aside(tmp_path: Path) -> None:
    seal(tmp_path, prediction_rows(["a"] * 50))
    ((one,),) = waiting(tmp_path)
    one.path.write_bytes(b"?" * 5000)
    assert take_over(tmp_path) == 1
    assert waiting(tmp_path) == []
    (aside,) = (tmp_path / "damaged").iterdir()
    assert aside.name == f"{one.session}-m-predictions-{one.path.name}"
    assert aside.read_bytes() == b"?" * 5000


def test_whoever_gives_up_waiting_for_the_disk_leaves_the_log_at_work(
    strict: Spool, disk: Disk
) -> None:
    async def give_up() -> None:
        written = strict.append("m", "labels", label_rows(["a"]), {})
        assert written is not None
        async with asyncio.timeout(0.05):
            await asyncio.wrap_future(written)

    disk.free.clear()
    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    disk.free.set()
    later = strict.append("m", "labels", label_rows(["b"]), {})
    assert later is not None
    later.result(20)
    strict.close()
    assert ids(strict.folder) == ["a", "b"]


def test_a_fault_that_nobody_foresaw_is_told_and_the_log_goes_on_after_it(
    strict: Spool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(_: object) -> None:
        raise RuntimeError("hidden")

    said = "the prediction log does not work (RuntimeError)"
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(SegmentWriter, "sync", faulty)
        meanwhile.setattr(Stock, "count", faulty)
        lost = strict.append("m", "predictions", prediction_rows(["a"]), {})
        assert lost is not None
        with pytest.raises(UnavailableError, match=re.escape(said)):
            lost.result(20)
        assert strict.problem == said
        with pytest.raises(UnavailableError, match=re.escape(said)):
            strict.append("m", "predictions", prediction_rows(["b"]), {})
    until(lambda: not strict.problem)
    written = strict.append("m", "predictions", prediction_rows(["c"]), {})
    assert written is not None
    written.result(20)
    assert caplog.messages == [f"the spool {strict.folder} does not work"]


def test_a_spool_that_does_not_work_when_it_is_closed_leaves_its_segments_to_the_keeper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(_: SegmentWriter) -> None:
        raise RuntimeError("hidden")

    spool = Spool(tmp_path, seal_seconds=600)
    spool.append("m", "predictions", prediction_rows(["a"]), {})
    monkeypatch.setattr(SegmentWriter, "sync", faulty)
    spool.close()
    assert waiting(tmp_path) == []
    assert take_over(tmp_path) == 1
    assert ids(tmp_path) == ["a"]


def test_a_folder_that_can_not_hold_a_log_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "spool").touch()
    with pytest.raises(InputError) as error:
        Spool(tmp_path / "spool")
    assert error.value.message == (
        f"{tmp_path}/spool: can't be used for the prediction log: File exists "
        "(make it a folder that the server may write to, on a disk with room)"
    )
