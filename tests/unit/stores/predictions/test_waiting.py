"""A segment is there until all who need it are done."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from perennial.stores.predictions import Spool
from perennial.stores.predictions.segments import read_head
from perennial.stores.predictions.waiting import (
    Reader,
    Stock,
    finish,
    give_up_shadows,
    segments,
    waiting,
)
from tests.logged import prediction_rows, seal

ROWS = prediction_rows(["a"])


def numbers(spool: Path, reader: Reader) -> list[int]:
    return [one.number for stream in waiting(spool, reader) for one in stream]


def names(spool: Path) -> list[str]:
    return sorted(path.name for path in spool.glob("*/*/*/*"))


def test_a_segment_without_shadows_ends_with_its_commit(tmp_path: Path) -> None:
    (one,) = seal(tmp_path, ROWS)
    assert numbers(tmp_path, "shadow") == []
    finish(one.path, "live")
    assert names(tmp_path) == []


@pytest.mark.parametrize("order", [("live", "shadow"), ("shadow", "live")])
def test_the_last_reader_removes_the_segment_and_the_marks(
    tmp_path: Path, order: tuple[Reader, Reader]
) -> None:
    (one,) = seal(tmp_path, ROWS, shadow=[2])
    first, last = order
    finish(one.path, first)
    finish(one.path, first)
    assert numbers(tmp_path, first) == []
    assert numbers(tmp_path, last) == [1]
    finish(one.path, last)
    assert names(tmp_path) == []
    finish(one.path, last)


def test_the_last_reader_needs_no_room_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (one,) = seal(tmp_path, ROWS, shadow=[2])
    finish(one.path, "live")
    monkeypatch.setattr(Path, "touch", no_room)
    finish(one.path, "shadow")
    assert names(tmp_path) == []


def test_one_record_with_a_shadow_is_enough(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for shadow in ([], [3], []):
        spool.append("m", "predictions", ROWS, {"shadow": shadow})
    spool.close()
    ((one,),) = waiting(tmp_path, "shadow")
    assert read_head(one.path).shadowed


def test_nothing_behind_an_open_segment_is_given_out(tmp_path: Path) -> None:
    _, second, _ = seal(tmp_path, ROWS, ROWS, ROWS)
    head = second.path.read_bytes()
    second.path.write_bytes(head[:8] + bytes(8) + head[16:])
    assert numbers(tmp_path, "live") == [1]


def test_a_stream_is_given_out_in_order_and_in_part(tmp_path: Path) -> None:
    seal(tmp_path, *[ROWS] * 12)
    assert [one.number for one in waiting(tmp_path, most=10)[0]] == list(range(1, 11))


def test_shadows_that_do_not_come_are_waited_for_only_so_long(tmp_path: Path) -> None:
    old, young, live = seal(tmp_path, ROWS, ROWS, ROWS, shadow=[2])
    finish(old.path, "live")
    finish(young.path, "live")
    hour_ago = old.path.stat().st_mtime - 3600
    os.utime(old.path, (hour_ago, hour_ago))
    assert give_up_shadows(tmp_path, 1800, 2**30) == 1
    assert [one.number for one in segments(tmp_path)] == [2, 3]
    assert give_up_shadows(tmp_path, 1800, young.bytes) == 0
    assert give_up_shadows(tmp_path, 1800, young.bytes - 1) == 1
    assert numbers(tmp_path, "live") == [3]
    assert live.path.exists()


class Clock:
    """The machine's time, which is set forward and back; the monotonic clock goes on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.real = time.time
        self.ahead = self.passed = 0.0
        began = int(time.monotonic())  # sums of whole numbers are exact
        monkeypatch.setattr(time, "time", lambda: self.real() + self.ahead + self.passed)
        monkeypatch.setattr(time, "monotonic", lambda: began + self.passed)


@pytest.mark.parametrize("ahead", [-7200, 10_800])
def test_how_long_a_segment_waits_does_not_depend_on_a_clock_that_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    clock, stock = Clock(monkeypatch), Stock(tmp_path)
    stock.count()
    first, _ = seal(tmp_path, ROWS, ROWS)
    stock.count()
    clock.passed += 100
    seal(tmp_path, ROWS)  # a stream of its own
    clock.ahead = ahead
    clock.passed += 20
    assert (stock.lag.segments, stock.lag.oldest_seconds) == (2, 120.0)
    stock.count()
    assert (stock.lag.segments, stock.lag.oldest_seconds) == (3, 120.0)
    finish(first.path, "live")
    stock.count()  # the next of its stream is as old
    assert (stock.lag.segments, stock.lag.oldest_seconds) == (2, 120.0)


def test_what_was_there_before_waits_since_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    first, second = seal(tmp_path, ROWS, ROWS)
    clock.ahead = 300
    stock = Stock(tmp_path)
    stock.count()
    assert stock.lag.oldest_seconds == pytest.approx(300, abs=60)
    clock.passed += 50
    finish(first.path, "live")
    stock.count()
    assert stock.lag.oldest_seconds == pytest.approx(350, abs=60)
    finish(second.path, "live")
    stock.count()
    assert stock.lag.oldest_seconds == 0.0
