"""Requests whose rows several versions answer: nothing is kept of a refused one, and the version
that failed is the one that is blamed. And what is kept of requests that were given up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from perennial.bundle.predictor import Predictor
from perennial.bundle.read import open_bundle
from perennial.bundle.write import write_bundle
from perennial.contracts.errors import FeatureError, InputError
from perennial.contracts.features import Feature, FeatureSchema
from perennial.contracts.routes import Arm, Route
from perennial.data.encoding import encode
from perennial.data.frames import canonical_frame
from perennial.decisions.routing import assign
from perennial.serving.batching import INLINE_ROWS, Batch, Batcher, Job
from perennial.serving.metrics import Metrics
from perennial.serving.models import Loaded, load
from perennial.serving.parts import Part, blaming, predicted
from perennial.serving.replies import Refusal, Request
from perennial.serving.rows import Columns, Objects, RequestRows, Table
from perennial.serving.service import Logging, Predicted, Service
from perennial.serving.settings import Settings
from perennial.spec.inputs import Column
from perennial.stores.predictions import Redaction, Spool
from perennial.stores.predictions.segments import Kind, read_segment
from perennial.stores.predictions.waiting import waiting
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from tests.fuzz.served import FEATURES, NOW, ROW, content, make_project
from tests.unit.bundle.conftest import make, make_ensemble

HEAVY, ENDLESS = 13.0, 1e300
CHAMPION, CHALLENGER = (1, "champion"), (3, "challenger")
ARMS = (Arm(version=1, weight=50), Arm(version=3, weight=50))
BOTH, FIRST = ARMS, (Arm(version=1, weight=100),)
FAILS = FEATURES.replace(
    "    return weight_kg",
    "    if (weight_kg == 13).any():\n        raise RuntimeError('heavy')\n    return weight_kg",
)
CUSTOMERS = [f"c-{number}" for number in range(20)]
ONE = next(c for c in CUSTOMERS if assign([c], ARMS, "parcels") == [1])
OTHER = next(c for c in CUSTOMERS if assign([c], ARMS, "parcels") == [3])


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Loaded]:
    """The champion, and a challenger that fails on parcels of 13 kg."""
    root = tmp_path_factory.mktemp("versions")
    make_project(root)
    project = Project(root)
    registry = Registry(project.registry_url)
    fails = content("parcels", "binary", 2, FAILS)
    registry.register(
        "parcels", write_bundle(project.folder("bundles", "parcels"), fails),
        params={}, metrics={}, judgement={}, links={}, actor="tests", reason="passed", now=NOW,
    )  # fmt: skip
    found = {number: load(registry.version("parcels", number), project) for number in (1, 3)}
    registry.close()
    return found


class Scene:
    """A service, and what was kept of what it was asked."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def play(
        self,
        versions: dict[int, Loaded],
        arms: tuple[Arm, ...],
        asking: Callable[[Service], Awaitable[None]],
    ) -> None:
        async def run() -> None:
            spool = Spool(self.root / "spool")
            service = Service(Settings(project=self.root), spool, Metrics(), None, lambda: None)
            route = Route(
                model="parcels", champion=1, arms=arms, shadow=(), generation=1, updated_at=None
            )
            service.adopt(route, versions, Logging(True, Redaction.of(versions[1].spec)))
            await asking(service)
            service.close()

        asyncio.run(run())

    def kept(self, kind: Kind = "predictions") -> list[tuple[str, str, int]]:
        """Request, prediction and version of each row, in the order in which they were logged."""
        return [
            (row["_request_id"], row["_id"], row["_version"])
            for stream in waiting(self.root / "spool")
            for segment in stream
            if segment.kind == kind
            for record in read_segment(segment.path)
            for row in record.batch.to_pylist()
        ]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def asked(name: str) -> Request:
    return Request(name, {}, {}, b"", perf_counter())


async def ask(service: Service, request: Request, rows: RequestRows) -> list[Predicted] | Exception:
    try:
        return await service.predict(service.model("parcels"), None, rows, request)
    except Exception as error:
        return error


def some(*customers: str, **last: Any) -> list[dict[str, Any]]:
    """Rows of these customers; the last one has other values."""
    rows = [{**ROW, "customer": customer} for customer in customers]
    return [*rows[:-1], {**rows[-1], **last}]


def as_objects(rows: Sequence[dict[str, Any]]) -> RequestRows:
    return Objects(rows)


def as_columns(rows: Sequence[dict[str, Any]]) -> RequestRows:
    return Columns({name: [row[name] for row in rows] for name in ROW}, len(rows))


def as_table(rows: Sequence[dict[str, Any]]) -> RequestRows:
    return Table(pa.table({name: [str(row[name]) for row in rows] for name in ROW}))


@pytest.mark.parametrize("form", [as_objects, as_columns, as_table])
@pytest.mark.parametrize("before", [2, INLINE_ROWS + 1])
def test_a_wrong_row_of_one_version_refuses_all_of_a_request_and_is_named_by_its_own_number(
    versions: dict[int, Loaded],
    scene: Scene,
    form: Callable[[Sequence[dict[str, Any]]], RequestRows],
    before: int,
) -> None:
    request = asked("r")
    rows = some(*[OTHER, ONE] * before, OTHER, weight_kg="warm")

    async def asking(service: Service) -> None:
        refused = await ask(service, request, form(rows))
        assert isinstance(refused, Refusal)
        assert (refused.status, refused.code) == (422, "invalid_rows")
        where = f"column 'weight_kg', row {2 * before + 1}"
        assert refused.message == f"{where}: 'warm' is not a number"
        assert [problem.where for problem in refused.problems] == [where]

    scene.play(versions, BOTH, asking)

    assert request.answered == [CHALLENGER]
    assert scene.kept() == []


def test_a_column_that_one_row_lacks_is_told_of_that_row(
    versions: dict[int, Loaded], scene: Scene
) -> None:
    request = asked("r")
    rows = some(ONE, OTHER, ONE, OTHER)
    del rows[3]["items"]

    async def asking(service: Service) -> None:
        refused = await ask(service, request, Objects(rows))
        assert isinstance(refused, Refusal)
        assert refused.message == "column 'items', row 4: is absent"

    scene.play(versions, BOTH, asking)

    assert request.answered == [CHALLENGER]
    assert scene.kept() == []


def test_a_feature_that_comes_out_infinite_is_told_of_the_request_s_own_row(
    versions: dict[int, Loaded], scene: Scene
) -> None:
    async def asking(service: Service) -> None:
        rows = Objects(some(ONE, ONE, OTHER, weight_kg=ENDLESS))
        refused = await ask(service, asked("r"), rows)
        assert isinstance(refused, Refusal)
        assert refused.message.startswith("features: 'weight_kg' is 1e+300 in row 3 (1 of 1 rows)")

    scene.play(versions, BOTH, asking)


def test_an_infinite_feature_of_a_member_is_told_of_the_request_s_own_row(tmp_path: Path) -> None:
    ref = write_bundle(tmp_path / "blend", make_ensemble(tmp_path, "binary"))
    predictor = Predictor(open_bundle(Path(ref.uri), ref.digest))
    rows = make("binary").rows.head(3).assign(items=[1, 2, -1])  # the weight of an item is infinite

    with pytest.raises(InputError) as told, blaming(asked("r"), *CHALLENGER, [4, 7, 9]):
        predictor.predict(rows)

    problem = told.value.problems[0]
    assert problem.where == "member parcels@1, features"
    assert problem.what.startswith("'weight_per_item' is inf in row 10 (1 of 3 rows)")


@pytest.mark.parametrize(
    "name", ["x row 9 (kg)", "x, row 9", "x in row 9 (1 of 1 rows), which float32 can't hold"]
)
def test_a_column_whose_name_tells_of_a_row_keeps_it(name: str) -> None:
    typed, columns = Column(type="float", nullable=False), {name: Column(type="float")}
    schema = FeatureSchema(inputs=(), features=(Feature(name=name),), classes=None)

    with pytest.raises(InputError) as told, blaming(asked("r"), *CHALLENGER, [4, 7, 9]):
        canonical_frame({name: [1.0, "x, row 9", 2.0]}, columns)
    assert str(told.value) == f"column {name!r}, row 8: 'x, row 9' is not a number"

    with pytest.raises(InputError) as told, blaming(asked("r"), *CHALLENGER, [4, 7, 9]):
        canonical_frame({name: [1.0, None, 2.0]}, {name: typed})
    assert str(told.value).startswith(f"column {name!r}: 1 of 3 values are missing")

    with pytest.raises(InputError) as told, blaming(asked("r"), *CHALLENGER, [4, 7, 9]):
        encode(pd.DataFrame({name: [1.0, 2.0, -1e300]}), schema)
    what = f"{name!r} is -1e+300 in row 10 (1 of 3 rows), which float32 can't hold"
    assert [(each.where, each.what) for each in told.value.problems] == [("features", what)]


def test_the_version_whose_code_fails_is_blamed_and_the_other_s_rows_were_predicted(
    versions: dict[int, Loaded], scene: Scene
) -> None:
    request = asked("r")

    async def asking(service: Service) -> None:
        failed = await ask(service, request, Objects(some(ONE, OTHER, weight_kg=HEAVY)))
        assert isinstance(failed, FeatureError)

    scene.play(versions, BOTH, asking)

    assert request.answered == [CHALLENGER]
    assert [(name, version) for name, _, version in scene.kept()] == [("r", 1)]
    assert [(name, version) for name, _, version in scene.kept("failures")] == [("r", 3)]


def test_a_version_whose_threads_hang_is_blamed_also_for_many_rows_of_a_split_request(
    versions: dict[int, Loaded], scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, free, pools = asked("r"), threading.Event(), {}
    count = INLINE_ROWS + 1

    def threads(number: int, name: str) -> ThreadPoolExecutor:
        pools[name] = ThreadPoolExecutor(number, name)
        return pools[name]

    async def asking(service: Service) -> None:
        for _ in range(2):
            pools["parcels@3"].submit(free.wait)
        rows = some(*[ONE] * count, *[OTHER] * count)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await ask(service, request, Objects(rows))
        free.set()

    monkeypatch.setattr("perennial.serving.service.ThreadPoolExecutor", threads)
    scene.play(versions, BOTH, asking)

    assert request.answered == [CHALLENGER]
    assert [version for _, _, version in scene.kept()] == [1] * count
    assert [version for _, _, version in scene.kept("failures")] == [3] * count


def test_a_split_request_is_answered_in_parts_that_are_kept(
    versions: dict[int, Loaded], scene: Scene
) -> None:
    request = asked("r")
    ids: dict[str, int] = {}

    async def asking(service: Service) -> None:
        parts = await ask(service, request, Objects(some(OTHER, ONE, ONE, OTHER)))
        assert isinstance(parts, list)
        assert [(part.version, part.places) for part in parts] == [(3, [0, 3]), (1, [1, 2])]
        ids.update((identity, part.version) for part in parts for identity in part.ids)

    scene.play(versions, BOTH, asking)

    assert request.answered == [CHALLENGER, CHAMPION]
    assert len(ids) == 4
    assert {identity: version for _, identity, version in scene.kept()} == ids


@pytest.mark.parametrize("inline", [True, False])
def test_of_a_request_that_was_given_up_nothing_is_kept_and_those_beside_it_are(
    versions: dict[int, Loaded], scene: Scene, inline: bool
) -> None:
    """All of these are one batch: given up is what a request is whose time is over."""
    requests = [asked(f"r-{number}") for number in range(4)]
    ids: list[str] = []

    async def asking(service: Service) -> None:
        tasks = [
            asyncio.create_task(ask(service, request, Objects(some(*[ONE] * (number + 1)))))
            for number, request in enumerate(requests)
        ]
        await asyncio.sleep(0)
        tasks[1].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(found[1], asyncio.CancelledError)
        for answers in (found[0], found[2], found[3]):
            assert isinstance(answers, list)
            ids.extend(answers[0].ids)

    scene.play({1: replace(versions[1], inline=inline)}, FIRST, asking)

    assert [identity for _, identity, _ in scene.kept()] == ids
    assert [name for name, _, _ in scene.kept()] == ["r-0", *["r-2"] * 3, *["r-3"] * 4]


def test_of_a_batch_that_nobody_waits_for_any_more_nothing_is_kept(
    versions: dict[int, Loaded], scene: Scene
) -> None:
    async def asking(service: Service) -> None:
        task = asyncio.create_task(ask(service, asked("lost"), Objects(some(ONE))))
        await asyncio.sleep(0)
        task.cancel()
        await ask(service, asked("next"), Objects(some(ONE, ONE)))

    scene.play({1: versions[1]}, FIRST, asking)

    assert [name for name, _, _ in scene.kept()] == ["next", "next"]


def parts_of(
    request: Request,
    versions: dict[int, Loaded],
    pool: ThreadPoolExecutor,
    done: Callable[[Batch], None],
) -> list[Part]:
    """A row for each version. The champion answers on the loop, the challenger on a thread."""
    loop = asyncio.get_running_loop()
    return [
        Part(
            versions[number],
            Batcher(versions[number].predictor, pool, done, lambda *_: None, number == 1),
            Job({n: [ROW[n]] for n in ROW}, 1, number, arm, ["p"], request, loop.create_future()),
            [place],
        )
        for place, (number, arm) in enumerate((CHAMPION, CHALLENGER))
    ]


def answer(batch: Batch) -> None:
    [job] = batch.jobs
    if not job.answer.cancelled():
        job.answer.set_result(batch.values)


def test_a_version_that_answers_too_late_is_blamed_for_it(versions: dict[int, Loaded]) -> None:
    request, free = asked("r"), threading.Event()

    async def play() -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(free.wait)
            parts = parts_of(request, versions, pool, answer)
            task = asyncio.create_task(predicted(parts))
            await asyncio.sleep(0)
            await parts[0].job.answer
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            free.set()

    asyncio.run(play())

    assert request.answered == [CHALLENGER]


@pytest.mark.parametrize("which", [slice(0, 1), slice(0, 2)])
def test_predictions_that_are_there_when_the_time_is_over_are_answered_for_they_are_kept(
    versions: dict[int, Loaded], which: slice
) -> None:
    """A version that took too long on the loop itself is done before the loop looks at the time."""

    async def play() -> None:
        with ThreadPoolExecutor(1) as pool:

            def done(batch: Batch) -> None:
                answer(batch)
                if all(part.job.answer.done() for part in parts):
                    task.cancel()

            parts = parts_of(asked("r"), versions, pool, done)[which]
            task = asyncio.create_task(predicted(parts))
            values = await task
            assert [len(found) for found in values] == [1] * len(parts)

    asyncio.run(play())
