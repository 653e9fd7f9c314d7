"""Natural batches: what arrives while one computes is the next, and nobody waits for company."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from perennial.bundle.predictor import Predictor, own_fault
from perennial.bundle.read import open_bundle
from perennial.bundle.write import write_bundle
from perennial.contracts.errors import FeatureError, InputError
from perennial.serving import batching
from perennial.serving.batching import INLINE_ROWS, Batch, Batcher, Job, TooLongError
from perennial.serving.overtime import Overtime, OvertimeError
from perennial.serving.replies import Request
from tests.fuzz.served import FEATURES, ROW, content, make_project
from tests.integration.test_serving import predictor

LEAVES = """

def leaves(remark: pd.Series, items: pd.Series) -> pd.Series:
    import asyncio

    class Stopped(BaseException): ...

    for kind in (SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, Stopped):
        if (remark == kind.__name__).any():
            raise kind("secret 17")
    return items
"""
ODD = """

def backtracks(remark: pd.Series) -> pd.Series:
    import re

    return remark.map(lambda said: re.match("(a+)+$", str(said)) is None)


def catches(remark: pd.Series) -> pd.Series:
    import re

    def one(said: str) -> float:
        try:
            return float(re.match("(c+)+$", str(said)) is None)
        except:
            return 0.0

    return remark.map(one)


def waits(remark: pd.Series, items: pd.Series) -> pd.Series:
    import time
    from pathlib import Path

    for seconds in remark[remark.str.startswith("0.")]:
        time.sleep(float(seconds))
    for path in remark[remark.str.startswith("/")]:
        while not Path(path).exists():
            try:
                time.sleep(0.01)
            except Exception:
                pass
    return items
"""
ENDLESS = "a" * 50 + "b"
KINDS = ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "CancelledError", "Stopped"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    root = tmp_path_factory.mktemp("batched")
    make_project(root)
    return predictor(root, 1)


@pytest.fixture(scope="module")
def leaving(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """Its feature code raises what is no Exception when a remark names it."""
    made = write_bundle(
        tmp_path_factory.mktemp("leaving"), content("parcels", "binary", 1, FEATURES + LEAVES)
    )
    return Predictor(open_bundle(Path(made.uri), made.digest))


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """Its feature code waits until there is the file that a remark names, or for the seconds that
    it tells, and has a pattern that takes some remarks for ever."""
    made = write_bundle(
        tmp_path_factory.mktemp("odd"), content("parcels", "binary", 1, FEATURES + ODD)
    )
    return Predictor(open_bundle(Path(made.uri), made.digest))


class Clock(Overtime):
    """Counts how often something began on the loop."""

    def __init__(self) -> None:
        super().__init__(0.4)
        self.begun = 0

    def begin(self) -> None:
        self.begun += 1
        super().begin()


def job(model: Predictor, rows: int = 1, **changed: Any) -> Job:
    row = {**ROW, **changed}
    return Job(
        rows={name: [row[name]] * rows for name in model.columns},
        count=rows,
        version=1,
        arm="champion",
        ids=[str(i) for i in range(rows)],
        request=Request("", {}, {}, b"", perf_counter()),
        answer=asyncio.get_running_loop().create_future(),
    )


class Scene:
    """A batcher, and the sizes of the batches it made."""

    def __init__(
        self,
        model: Predictor,
        pool: ThreadPoolExecutor,
        *,
        inline: bool,
        overtime: Overtime | None = None,
    ) -> None:
        self.sizes: list[int] = []
        self.failed: list[tuple[Job, Exception]] = []
        self.moves: list[bool] = []
        self.batcher = Batcher(
            model, pool, self._done, self._failed, inline, overtime, self.moves.append
        )

    def _done(self, batch: Batch) -> None:
        self.sizes.append(len(batch.jobs))
        start = 0
        for one in batch.jobs:
            if not one.answer.done():
                one.answer.set_result(batch.values[start : start + one.count])
            start += one.count

    def _failed(self, job: Job, error: Exception) -> None:
        self.failed.append((job, error))

    async def answers(self, jobs: Sequence[Job]) -> list[Any]:
        for one in jobs:
            self.batcher.submit(one)
        return await asyncio.gather(*(one.answer for one in jobs), return_exceptions=True)


@pytest.mark.parametrize("inline", [True, False])
def test_what_arrives_together_is_computed_together(model: Predictor, inline: bool) -> None:
    async def play() -> None:
        with ThreadPoolExecutor(1) as pool:
            scene = Scene(model, pool, inline=inline)
            alone = await scene.answers([job(model)])
            many = await scene.answers([job(model) for _ in range(10)])
        assert scene.sizes == [1, 10]
        assert {float(v[0]) for v in many} == {float(alone[0][0])}

    asyncio.run(play())


def test_what_arrives_while_a_batch_computes_is_the_next_one(model: Predictor) -> None:
    async def play() -> None:
        with ThreadPoolExecutor(1) as pool:
            scene = Scene(model, pool, inline=False)
            first = job(model)
            scene.batcher.submit(first)
            for _ in range(3):
                await asyncio.sleep(0)  # its computation begins on the thread
            await scene.answers([job(model) for _ in range(7)])
            assert first.answer.done()
        assert scene.sizes == [1, 7]

    asyncio.run(play())


def test_a_batch_has_a_limit_and_larger_requests_go_by_themselves(model: Predictor) -> None:
    async def play() -> None:
        with ThreadPoolExecutor(1) as pool:
            scene = Scene(model, pool, inline=True)
            jobs = [job(model, rows=INLINE_ROWS // 2) for _ in range(5)]
            jobs.append(job(model, rows=INLINE_ROWS + 1))
            answers = await scene.answers(jobs)
        assert [len(values) for values in answers] == [one.count for one in jobs]
        assert sorted(scene.sizes) == [1, 1, 2, 2]

    asyncio.run(play())


@pytest.mark.parametrize("inline", [True, False])
def test_a_row_that_can_not_be_read_fails_its_own_request_only(
    model: Predictor, inline: bool
) -> None:
    async def play() -> None:
        with ThreadPoolExecutor(1) as pool:
            scene = Scene(model, pool, inline=inline)
            jobs = [job(model, weight_kg=weight) for weight in (1.0, "heavy", 2.0, None)]
            answers = await scene.answers(jobs)
            alone = [(await scene.answers([job(model, weight_kg=w)]))[0] for w in (1.0, 2.0, None)]
        assert isinstance(answers[1], InputError)
        assert [type(error) for _, error in scene.failed] == [type(answers[1])]
        good = [answers[0], answers[2], answers[3]]
        assert np.concatenate(good).tobytes() == np.concatenate(alone).tobytes()

    asyncio.run(play())


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_exception_fails_its_own_request_and_the_next_are_answered(
    leaving: Predictor, kind: str, inline: bool
) -> None:
    async def play() -> None:
        with ThreadPoolExecutor(1) as pool:
            scene = Scene(leaving, pool, inline=inline)
            async with asyncio.timeout(20):
                (alone,) = await scene.answers([job(leaving, remark=kind)])
                jobs = [job(leaving, remark=remark) for remark in ("", kind, "fragile")]
                first, failed, last = await scene.answers(jobs)
                (large,) = await scene.answers([job(leaving, INLINE_ROWS + 1, remark=kind)])
                (after,) = await scene.answers([job(leaving)])
        assert [len(values) for values in (first, last, after)] == [1, 1, 1]
        for error in (alone, failed, large):
            assert isinstance(error, FeatureError)
            assert own_fault(error)
            assert f"raised {kind}" in str(error)
        assert [error for _, error in scene.failed] == [alone, failed, large]

    asyncio.run(play())


def test_a_batch_that_can_not_be_passed_on_does_not_stop_the_next(model: Predictor) -> None:
    class Breaking(Scene):
        def _done(self, batch: Batch) -> None:
            if not self.sizes:
                self.sizes.append(0)
                raise RuntimeError("the log's disk is gone")
            super()._done(batch)

    async def play(inline: bool) -> None:
        with ThreadPoolExecutor(1) as pool:
            scene = Breaking(model, pool, inline=inline)
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)
            lost = job(model)
            scene.batcher.submit(lost)
            while not scene.sizes:
                await asyncio.sleep(0.001)
            async with asyncio.timeout(20):
                (after,) = await scene.answers([job(model)])
        assert len(after) == 1

    for inline in (True, False):
        asyncio.run(play(inline))


def test_a_request_that_was_given_up_hurts_nobody(model: Predictor) -> None:
    async def play() -> None:
        with ThreadPoolExecutor(1) as pool:
            scene = Scene(model, pool, inline=True)
            lost = job(model, weight_kg="heavy")
            lost.answer.cancel()
            answers = await scene.answers([lost, job(model)])
        assert isinstance(answers[0], asyncio.CancelledError)
        assert len(answers[1]) == 1

    asyncio.run(play())


def test_a_request_that_waits_is_moved_off_the_loop_and_the_third_takes_the_version_along(
    odd: Predictor, tmp_path: Path
) -> None:
    clock = Clock()

    async def play() -> None:
        with ThreadPoolExecutor(4) as pool:
            scene = Scene(odd, pool, inline=True, overtime=clock)
            files = [tmp_path / f"{number}" for number in range(3)]
            held = [job(odd, remark=str(file)) for file in files]
            for number, one in enumerate(held):
                beside = job(odd)
                scene.batcher.submit(one)
                scene.batcher.submit(beside)
                assert len(await beside.answer) == 1
                (after,) = await scene.answers([job(odd)])
                assert len(after) == 1
                assert clock.begun == (2, 4, 5)[number]
            assert not any(one.answer.done() for one in held)
            for file in files:
                file.touch()
            answers = await asyncio.gather(*(one.answer for one in held))
        assert [len(values) for values in answers] == [1, 1, 1]
        assert not scene.failed
        assert scene.moves == [False]

    asyncio.run(play())


@pytest.mark.parametrize("seconds", ["0.15", "0.6"])
def test_a_version_that_becomes_slow_goes_to_its_threads_and_comes_back_when_it_is_quick_again(
    odd: Predictor, seconds: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()

    async def play() -> None:
        with ThreadPoolExecutor(2) as pool:
            scene = Scene(odd, pool, inline=True, overtime=clock)
            for _ in range(3):
                assert not scene.moves
                await scene.answers([job(odd, remark=seconds)])
                await scene.answers([job(odd)])
            assert scene.moves == [False]
            begun = clock.begun
            await scene.answers([job(odd, remark=seconds)])
            assert clock.begun == begun
            monkeypatch.setattr(batching, "_SLOW_WITHIN_SECONDS", 0.3)
            await scene.answers([job(odd)])
            assert scene.moves == [False]
            await asyncio.sleep(0.3)
            await scene.answers([job(odd)])
            assert scene.moves == [False, True]
            assert clock.begun == begun
            await scene.answers([job(odd)])
            assert clock.begun == begun + 1
        assert not scene.failed

    asyncio.run(play())


def test_a_version_that_is_slow_now_and_then_stays_on_the_loop(
    odd: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "_SLOW_WITHIN_SECONDS", 0.2)

    async def play() -> None:
        with ThreadPoolExecutor(2) as pool:
            scene = Scene(odd, pool, inline=True, overtime=Clock())
            for _ in range(4):
                await scene.answers([job(odd, remark="0.15")])
        assert not scene.moves

    asyncio.run(play())


def test_what_leaves_the_lock_to_nobody_does_not_take_the_version_to_its_threads(
    odd: Predictor,
) -> None:
    async def play() -> None:
        with ThreadPoolExecutor(1) as pool:
            scene = Scene(odd, pool, inline=True, overtime=Clock())
            for _ in range(batching._SLOW + 1):
                (ended,) = await scene.answers([job(odd, remark=ENDLESS)])
                assert isinstance(ended, TooLongError)
        assert not scene.moves

    asyncio.run(play())


def test_a_request_that_leaves_the_lock_to_nobody_is_ended_and_those_beside_it_are_answered(
    odd: Predictor,
) -> None:
    async def play() -> None:
        with ThreadPoolExecutor(1) as pool:
            scene = Scene(odd, pool, inline=True, overtime=Overtime(0.5))
            (alone,) = await scene.answers([job(odd, 2, remark=ENDLESS)])
            jobs = [job(odd), job(odd, remark=ENDLESS), job(odd)]
            first, ended, last = await scene.answers(jobs)
        assert [len(values) for values in (first, last)] == [1, 1]
        for error, rows in ((alone, "2 rows"), (ended, "1 row")):
            assert isinstance(error, TooLongError)
            assert own_fault(error)
            assert str(error) == f"features.py: did not end within 1 s for {rows}"
        assert [error for _, error in scene.failed] == [alone, ended]

    asyncio.run(play())


def test_the_clock_rings_though_what_ran_before_has_taken_the_signal() -> None:
    clock = Overtime(0.4)
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.alarm(5)
    signal.alarm(0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    clock.begin()
    try:
        with pytest.raises(OvertimeError) as over:
            time.sleep(5)
    finally:
        clock.end()
    assert over.value.yields
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_feature_code_that_catches_everything_is_ended_soon_and_its_values_answer_nobody(
    odd: Predictor,
) -> None:
    async def play() -> None:
        with ThreadPoolExecutor(1) as pool:
            scene = Scene(odd, pool, inline=True, overtime=Overtime(0.5))
            started = perf_counter()
            (ended,) = await scene.answers([job(odd, 20, remark=ENDLESS.replace("a", "c"))])
            assert perf_counter() - started < 5
            assert isinstance(ended, TooLongError)
            (after,) = await scene.answers([job(odd)])
        assert len(after) == 1
        assert not scene.moves

    asyncio.run(play())


STANDS_STILL = """
import time
from perennial.serving.overtime import Overtime
clock = Overtime(0.6)
clock.begin()
print("begun", flush=True)
time.sleep(0.2)
clock.end()
print("done")
"""


def test_a_process_that_stood_still_has_not_computed_for_too_long() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STANDS_STILL], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.5)
    process.send_signal(signal.SIGCONT)
    assert process.communicate(timeout=60)[0] == "done\n"


def test_requests_that_were_given_up_behind_a_batch_that_never_ends_are_not_kept(
    odd: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "_MANY", 10)

    async def play() -> None:
        with ThreadPoolExecutor(1) as pool:
            scene = Scene(odd, pool, inline=False)
            scene.batcher.submit(job(odd, remark=str(tmp_path / "there")))
            await asyncio.sleep(0.1)
            given_up = [job(odd) for _ in range(100)]
            for one in given_up:
                scene.batcher.submit(one)
                one.answer.cancel()
            last = job(odd)
            scene.batcher.submit(last)
            (tmp_path / "there").touch()
            assert len(await last.answer) == 1
        assert sum(scene.sizes) < 15

    asyncio.run(play())


class Rows(dict[str, Any]):
    """What a weak reference can be made to."""


def test_requests_that_were_given_up_behind_threads_that_hang_leave_nothing_there(
    odd: Predictor, tmp_path: Path
) -> None:
    async def play() -> None:
        with ThreadPoolExecutor(1) as pool:
            scene = Scene(odd, pool, inline=True)
            held = job(odd, INLINE_ROWS + 1, remark=str(tmp_path / "there"))
            scene.batcher.submit(held)
            large = job(odd, INLINE_ROWS + 1)
            large.rows = Rows(large.rows)
            kept = weakref.ref(large.rows)
            scene.batcher.submit(large)
            large.answer.cancel()
            del large
            await asyncio.sleep(0.1)
            gc.collect()
            left = kept()
            (tmp_path / "there").touch()
            assert left is None
            assert len(await held.answer) == INLINE_ROWS + 1
        assert scene.sizes == [1]

    asyncio.run(play())


def test_nothing_is_left_behind(model: Predictor) -> None:
    """Jobs that come one by one, each after a turn of the loop, are all answered."""

    async def play() -> None:
        with ThreadPoolExecutor(1) as pool:
            scene = Scene(model, pool, inline=True)
            jobs = [job(model) for _ in range(40)]
            for one in jobs:
                scene.batcher.submit(one)
                await asyncio.sleep(0)
            async with asyncio.timeout(20):
                await asyncio.gather(*(one.answer for one in jobs))
        assert sum(scene.sizes) == 40

    asyncio.run(play())
