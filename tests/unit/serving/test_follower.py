"""A service that follows a registry and model.yaml files, look by look, in this process."""

from __future__ import annotations

import asyncio
import logging
import math
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from perennial.bundle.predictor import Predictor
from perennial.bundle.read import open_bundle
from perennial.bundle.write import write_bundle
from perennial.contracts.refs import BundleRef
from perennial.serving import follower
from perennial.serving.follower import Follower
from perennial.serving.metrics import Metrics
from perennial.serving.replies import Request
from perennial.serving.rows import Objects
from perennial.serving.service import Service
from perennial.serving.settings import Settings
from perennial.stores.predictions import Spool
from perennial.stores.predictions.waiting import Stock
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from perennial.stores.registry.schema import routes
from tests.fuzz.served import MODELS, NOW, ROW, content, make_project
from tests.waiting import until

OWN_HOUR = "return sent.dt.hour"
NO_FILE = "no such file: its disk is not mounted, or nothing was trained yet"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("followed")
    make_project(root)
    return root


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Project:
    """A copy with a registry of its own; the bundles are those of the first."""
    ignored = shutil.ignore_patterns("bundles")
    shutil.copytree(made, tmp_path, dirs_exist_ok=True, ignore=ignored)
    return Project(tmp_path)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """One look follows what it finds, also on a busy machine."""
    monkeypatch.setattr(follower, "_TURN_SECONDS", 240.0)


class Following:
    """A service and what it follows."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.follower = Follower(service, asyncio.get_running_loop())

    async def look(self) -> None:
        await asyncio.to_thread(self.follower.look)

    def try_again(self, model: str) -> None:
        """As if it were time to."""
        self.follower._failures[model].not_before = 0.0

    def route_problem(self, model: str) -> float:
        """The metric of that name."""
        text = self.service.metrics.render(self.service.spool.lag()).decode()
        return float(text.split(f'perennial_route_problem{{model="{model}"}} ')[1].split()[0])

    def weights(self, model: str) -> dict[int, int]:
        return {arm.version: arm.weight for arm in self.service.models[model].route.arms}

    async def answer(self, model: str, **changed: Any) -> tuple[int, float]:
        """The version that answers a row, and its first value."""
        request = Request("", {}, {}, b"", perf_counter())
        rows = Objects([{**ROW, **changed}])
        (found,) = await self.service.predict(self.service.model(model), None, rows, request)
        return found.version, float(found.values.flat[0])

    def kept(self, model: str) -> list[str]:
        """Which of two columns may be kept of a model's predictions."""
        batch = pa.RecordBatch.from_pydict({"customer": ["c-1"], "remark": ["fragile"]})
        return list(self.service._logging[model].redaction.apply(batch).schema.names)


@asynccontextmanager
async def following(project: Project, *models: str) -> AsyncIterator[Following]:
    service = Service(
        Settings(project=project.root, models=models),
        Spool(project.home / "spool"),
        Metrics(),
        tracing=None,
        shadow_wanted=lambda: None,
    )
    one = Following(service)
    try:
        yield one
    finally:
        if one.follower._registry is not None:
            one.follower._registry.close()
        service.close()


def route_of(project: Project, model: str, version: int | None) -> None:
    """Give all requests to a version; None takes the route away, as before the first version."""
    registry = Registry(project.registry_url)
    generation = registry.route(model).generation
    if version is None:
        engine = sa.create_engine(project.registry_url)
        with engine.begin() as connection:
            change = routes.update().where(routes.c.model == model)
            connection.execute(change.values(arms=[], champion=None))
        engine.dispose()
    else:
        registry.promote(
            model, version, expected_generation=generation, actor="tests", reason="tested",
            evidence={}, cause=f"generation {generation}", now=datetime.now(UTC),
        )  # fmt: skip
    registry.close()


def register(
    project: Project, model: str, seed: int, hour: str = OWN_HOUR, objective: str = "regression"
) -> BundleRef:
    """Register another version, in whose features.py ``hour`` has this body, which was not run
    before."""
    made = content(model, objective, seed)
    source = made.features_source.replace(OWN_HOUR, hour)
    made = replace(made, features_source=source)
    ref = write_bundle(project.folder("bundles", model), made)
    registry = Registry(project.registry_url)
    registry.register(
        model, ref, params={}, metrics={}, judgement={}, links={}, actor="tests", reason="passed",
        now=NOW,
    )  # fmt: skip
    registry.close()
    return ref


def expected(ref: BundleRef) -> float:
    """What a version makes of the row."""
    predictor = Predictor(open_bundle(Path(ref.uri), ref.digest))
    found = predictor.predict({name: [ROW[name]] for name in predictor.columns})
    return float(found.values[0])


def remove(database: Path) -> None:
    for file in database.parent.glob(f"{database.name}*"):
        file.unlink()


@contextmanager
def tampered(project: Project, model: str, version: int) -> Iterator[None]:
    """A version whose booster differs in one bit, until the end of the block."""
    registry = Registry(project.registry_url)
    booster = Path(registry.version(model, version).ref.uri) / "booster.ubj"
    registry.close()
    intact = booster.read_bytes()
    booster.write_bytes(intact[:-1] + bytes([intact[-1] ^ 1]))
    try:
        yield
    finally:
        booster.write_bytes(intact)


def test_a_model_routed_later_that_can_not_be_loaded_is_unready_by_itself(project: Project) -> None:
    route_of(project, "prices", None)

    async def test() -> None:
        async with following(project) as one:
            await one.look()
            assert one.service.ready
            with tampered(project, "prices", 1):
                route_of(project, "prices", 1)
                await one.look()
                assert one.service.ready
                assert not one.service.models["prices"].ready
                assert "its content was changed" in one.service.models["prices"].problem
                assert one.route_problem("prices") == 1.0
            one.try_again("prices")
            await one.look()
            assert one.service.ready
            assert one.service.models["prices"].ready
            assert one.route_problem("prices") == 0.0

    asyncio.run(test())


def test_a_server_is_ready_once_all_models_of_its_first_look_answer(project: Project) -> None:
    async def test() -> None:
        async with following(project) as one:
            assert not one.service.ready
            with tampered(project, "prices", 1):
                await one.look()
                assert [one.service.models[name].ready for name in MODELS] == [True, True, False]
                assert not one.service.ready
            one.try_again("prices")
            await one.look()
            assert one.service.ready

    asyncio.run(test())


def test_a_server_of_named_models_is_ready_once_these_answer(project: Project) -> None:
    route_of(project, "letters", None)

    async def test() -> None:
        async with following(project, "letters", "parcels") as one:
            await one.look()
            assert one.service.models["parcels"].ready
            assert not one.service.ready
            route_of(project, "letters", 1)
            await one.look()
            assert one.service.ready
            assert "prices" not in one.service.models

    asyncio.run(test())


def test_a_server_whose_log_does_not_work_is_not_ready_until_it_does(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(_: Stock) -> None:
        raise RuntimeError("hidden")

    async def test() -> None:
        async with following(project) as one:
            await one.look()
            with monkeypatch.context() as meanwhile:
                meanwhile.setattr(Stock, "count", faulty)
                until(lambda: not one.service.ready)
                said = "the prediction log does not work (RuntimeError)"
                assert one.service.state().log_problem == said
            until(lambda: one.service.ready)

    asyncio.run(test())


def test_what_may_be_kept_is_followed_without_a_new_route(project: Project) -> None:
    definition = project.models / "parcels" / "model.yaml"

    async def test() -> None:
        async with following(project) as one:
            await one.look()
            assert one.kept("parcels") == ["customer", "remark"]
            with definition.open("a") as file:
                file.write("log: {omit: [remark]}\n")
            await one.look()
            assert one.kept("parcels") == ["customer"]
            assert one.kept("letters") == ["customer", "remark"]

    asyncio.run(test())


def test_while_model_yaml_is_wrong_what_it_said_before_stays_and_that_is_logged_once(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    definition = project.models / "parcels" / "model.yaml"
    with definition.open("a") as file:
        file.write("log: {omit: [remark]}\n")
    right = definition.read_text()

    async def test() -> None:
        async with following(project) as one:
            await one.look()
            definition.write_text(right + "nonsense: [\n")
            for _ in range(3):
                await one.look()
                assert one.kept("parcels") == ["customer"]
            definition.unlink()
            route_of(project, "parcels", 2)  # what was kept before may be kept of it too
            await one.look()
            assert one.weights("parcels") == {2: 100}
            assert one.kept("parcels") == ["customer"]
            definition.write_text(right.replace("[remark]", "[depot]"))
            await one.look()
            assert one.kept("parcels") == ["customer", "remark"]

    asyncio.run(test())
    told = [r for r in caplog.records if r.message == "log settings not followed"]
    assert [getattr(record, "model", "") for record in told] == ["parcels", "parcels"]
    assert "not valid YAML" in told[0].__dict__["problem"]


def test_without_its_registry_s_file_a_server_starts_on_the_last_route_and_makes_none(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    database = project.home / "registry.db"

    async def first() -> None:
        async with following(project) as one:
            await one.look()

    async def second() -> None:
        async with following(project) as one:
            for _ in range(3):
                await one.look()
            assert one.service.ready
            assert one.weights("parcels") == {1: 50, 2: 50}
            assert one.service.registry_problem == f"registry {database}: {NO_FILE}"

    asyncio.run(first())
    remove(database)
    asyncio.run(second())
    assert not database.exists()
    told = [record for record in caplog.records if record.message == "the registry does not answer"]
    assert [record.__dict__["problem"] for record in told] == [f"registry {database}: {NO_FILE}"]


def test_a_registry_that_vanishes_is_told_once_and_the_last_route_stays(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    database = project.home / "registry.db"
    kept = database.read_bytes()

    async def test() -> None:
        async with following(project) as one:
            await one.look()
            remove(database)
            for _ in range(3):
                await one.look()
                assert one.service.ready
                assert not database.exists()
            database.write_bytes(kept)
            route_of(project, "parcels", 2)
            await one.look()
            assert one.weights("parcels") == {2: 100}

    asyncio.run(test())
    wrong = [(r.message, r.exc_info) for r in caplog.records if r.levelno >= logging.ERROR]
    assert wrong == [("the registry does not answer", None)]


def test_a_number_that_a_new_registry_gives_to_another_bundle_is_answered_by_that_one(
    project: Project,
) -> None:
    async def test() -> None:
        async with following(project, "prices") as one:
            await one.look()
            first = await one.answer("prices")
            remove(project.home / "registry.db")
            second = register(project, "prices", seed=12)
            route_of(project, "prices", 1)
            await one.look()
            assert await one.answer("prices") == (1, expected(second))
            assert await one.answer("prices") != first
            (version,) = one.service.models["prices"].state().versions
            registry = Registry(project.registry_url)
            assert version.digest == registry.version("prices", 1).ref.digest
            registry.close()

    asyncio.run(test())


def test_servers_of_one_project_keep_what_each_of_them_followed(project: Project) -> None:
    """Also those of one model, and one that is started with all of them."""

    async def follow(*models: str) -> None:
        async with following(project, *models) as one:
            await one.look()

    async def start(*models: str) -> None:
        async with following(project, *models) as one:
            await one.look()
            assert one.service.registry_problem
            assert one.service.ready
            assert sorted(one.service.models) == sorted(models or ("letters", "prices"))

    asyncio.run(follow("prices"))
    asyncio.run(follow("letters"))
    remove(project.home / "registry.db")
    for models in (("prices",), ("letters",), ("letters", "prices"), ()):
        asyncio.run(start(*models))


def test_a_route_that_can_not_be_written_is_written_once_it_can(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    kept = project.home / "serving" / "routes"
    away = kept.with_name("away")

    async def test() -> None:
        async with following(project) as one:
            await one.look()
            kept.rename(away)
            kept.touch()  # no folder: nothing can be written there
            route_of(project, "parcels", 2)
            for _ in range(2):
                await one.look()
                assert one.weights("parcels") == {2: 100}
                assert not one.service.registry_problem
            kept.unlink()
            away.rename(kept)
            await one.look()
        remove(project.home / "registry.db")
        async with following(project) as one:
            await one.look()
            assert one.weights("parcels") == {2: 100}

    asyncio.run(test())
    told = [r for r in caplog.records if r.message == "route not kept on disk"]
    assert [vars(record)["model"] for record in told] == ["parcels"]


def test_a_last_route_that_is_damaged_costs_its_own_model_only(project: Project) -> None:
    async def test() -> None:
        async with following(project) as one:
            await one.look()
        remove(project.home / "registry.db")
        (project.home / "serving" / "routes" / "letters.json").write_text("{")
        async with following(project) as one:
            await one.look()
            assert sorted(one.service.models) == ["parcels", "prices"]
            assert one.service.ready

    asyncio.run(test())


def test_without_a_registry_what_can_not_be_loaded_is_tried_again_though_others_are_served(
    project: Project,
) -> None:
    async def first() -> None:
        async with following(project) as one:
            await one.look()

    async def second() -> None:
        async with following(project) as one:
            with tampered(project, "letters", 1):
                remove(project.home / "registry.db")
                for _ in range(2):
                    await one.look()
                assert [one.service.models[m].ready for m in MODELS] == [True, False, True]
                assert not one.service.ready
            one.try_again("letters")
            parcels = one.service.models["parcels"].loaded
            await one.look()
            assert one.service.ready
            assert one.service.models["letters"].problem == ""
            assert one.service.models["parcels"].loaded is parcels, "it is not loaded again"

    asyncio.run(first())
    asyncio.run(second())


@pytest.mark.parametrize("hour", ["raise SystemExit(0)", "raise BaseException"])
def test_a_version_whose_code_asks_the_thread_to_end_ends_no_following(
    project: Project, hour: str
) -> None:
    async def test() -> None:
        async with following(project) as one:
            await one.look()
            register(project, "prices", 5, hour)
            route_of(project, "prices", 2)
            await one.look()
            assert one.weights("prices") == {1: 100}
            assert one.route_problem("prices") == 1.0
            assert one.service.models["prices"].problem
            route_of(project, "parcels", 2)
            await one.look()
            assert one.weights("parcels") == {2: 100}

    asyncio.run(test())


@pytest.fixture
def hang(tmp_path: Path) -> Iterator[Path]:
    """A file; code that waits while it is there goes on at the end."""
    file = tmp_path / "hang"
    file.touch()
    yield file
    file.unlink(missing_ok=True)


def hanging(hang: Path) -> str:
    return f"import os, time\n    while os.path.exists({str(hang)!r}):\n        time.sleep(0.01)\n"


def loads() -> list[threading.Thread]:
    """The threads that load a version at this moment."""
    return [thread for thread in threading.enumerate() if thread.name == "load"]


@pytest.mark.parametrize("where", ["function", "module"])
def test_a_version_that_hangs_while_it_is_loaded_holds_up_no_route_and_not_the_way_back(
    project: Project,
    hang: Path,
    where: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(follower, "_SLOW_SECONDS", 0.1)
    hour = f"{hanging(hang)}    {OWN_HOUR}"
    if where == "module":
        hour = f"{OWN_HOUR}\n\n\nif True:\n    {hanging(hang)}"

    async def test() -> None:
        async with following(project) as one:
            await one.look()
            monkeypatch.setattr(follower, "_TURN_SECONDS", 0.1)
            second = register(project, "prices", 5, hour)
            register(project, "letters", 6, "return sent.dt.hour + 1", "multiclass")
            for model in ("prices", "parcels", "letters"):
                route_of(project, model, 2)
                await one.look()
            for _ in range(600):
                if one.weights("parcels") == one.weights("letters") == {2: 100}:
                    break
                await asyncio.sleep(0.1)
                await one.look()
            weights = [one.weights(model) for model in ("letters", "parcels", "prices")]
            assert weights == [{2: 100}, {2: 100}, {1: 100}]
            assert (await one.answer("prices"))[0] == 1
            assert one.route_problem("prices") == 1.0
            problem = one.service.models["prices"].problem
            assert problem.startswith("version 2 has been loading since ")
            (load,) = loads()  # which is not begun again

            route_of(project, "prices", 1)
            await one.look()
            assert one.route_problem("prices") == 0.0
            route_of(project, "prices", 2)
            await one.look()
            assert one.route_problem("prices") == 1.0

            hang.unlink()
            load.join()
            await one.look()
            assert one.weights("prices") == {2: 100}
            assert one.route_problem("prices") == 0.0
            assert await one.answer("prices") == (2, expected(second))

    asyncio.run(test())
    told = [r.__dict__["model"] for r in caplog.records if r.message == "route not followed"]
    assert told.count("prices") == 2  # others may take as long on a busy machine


def test_what_takes_long_to_load_is_no_problem_at_first_and_followed_when_it_is_done(
    project: Project, hang: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with following(project) as one:
            await one.look()
            monkeypatch.setattr(follower, "_TURN_SECONDS", 0.1)
            register(project, "prices", 5, f"{hanging(hang)}    {OWN_HOUR}")
            route_of(project, "prices", 2)
            await one.look()
            assert one.weights("prices") == {1: 100}
            assert one.route_problem("prices") == 0.0
            (load,) = loads()
            hang.unlink()
            load.join()
            await one.look()
            assert one.weights("prices") == {2: 100}
            assert not one.follower._loading

    asyncio.run(test())


def test_a_registry_that_lost_its_tables_is_told_once(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    database = project.home / "registry.db"

    async def test() -> None:
        async with following(project) as one:
            await one.look()
            remove(database)
            database.touch()
            for _ in range(3):
                await one.look()
            assert one.service.ready
            assert one.weights("parcels") == {1: 50, 2: 50}

    asyncio.run(test())
    wrong = [r.message for r in caplog.records if r.levelno >= logging.ERROR]
    assert wrong == ["the registry could not be followed", "the registry does not answer"]


def test_a_server_that_comes_before_the_first_training_waits_for_the_registry(
    project: Project,
) -> None:
    database = project.home / "registry.db"
    kept = database.read_bytes()
    remove(database)

    async def test() -> None:
        async with following(project) as one:
            await one.look()
            assert not one.service.ready
            assert not database.exists()
            database.touch()  # as somebody does who is about to make the tables
            await one.look()
            assert not one.service.ready
            assert "nothing was trained yet: no tables" in one.service.registry_problem
            database.write_bytes(kept)
            await one.look()
            assert one.service.ready
            assert one.service.registry_problem == ""

    asyncio.run(test())


def test_a_route_that_can_not_be_loaded_does_not_hold_up_the_next_one(project: Project) -> None:
    route_of(project, "parcels", 1)

    async def test() -> None:
        async with following(project) as one:
            await one.look()
            with tampered(project, "parcels", 2):
                route_of(project, "parcels", 2)
                await one.look()
                one.follower._failures["parcels"].not_before = math.inf
            await one.look()
            assert one.weights("parcels") == {1: 100}, "it is not yet time to try again"
            route_of(project, "parcels", 2)
            await one.look()
            assert one.weights("parcels") == {2: 100}
            assert one.service.models["parcels"].problem == ""

    asyncio.run(test())
