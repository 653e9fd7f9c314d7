"""Following the registry: its routes are loaded and adopted here, while requests go on."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from logging import getLogger
from pathlib import Path

from pydantic import ValidationError

from perennial.bundle.outputs import all_classes
from perennial.contracts.errors import InputError, PerennialError, Problem
from perennial.contracts.refs import Value, VersionRef
from perennial.contracts.rollouts import Rollout
from perennial.serving.models import Loaded, load
from perennial.serving.service import Logging, Service
from perennial.spec import load_spec
from perennial.stores.bundles import open_stored
from perennial.stores.folders import write_file
from perennial.stores.project import Project
from perennial.stores.registry import AuditEntry, Registry, Route, Version
from perennial.stores.stamps import Stamp, stamp_or_none

_log = getLogger("perennial.serving.follower")

DECISIONS = 20
_TOLD_EVERY_SECONDS = 5.0
_LONGEST_WAIT_SECONDS = 15.0
"""Between two tries to load a route whose versions can't be loaded."""
_TURN_SECONDS = 2.0
"""How long all routes wait for one version that is loaded; then it goes on loading beside them."""
_SLOW_SECONDS = 30.0
"""A version that has been loading for longer is told as a problem of its route."""
_END_SECONDS = 5.0
"""How long the end of the server waits for what is done here."""


class Followed(Value):
    """A route that is followed, and its versions: what a server needs to start again."""

    route: Route
    versions: tuple[Version, ...]
    shadows: tuple[Version, ...] = ()


@dataclass(slots=True)
class _Failure:
    """A route that can't be followed: why, as it was told last, how often it was tried, and when
    (monotonic) it may be."""

    generation: int
    problem: str = ""
    tries: int = 0
    not_before: float = 0.0


class _Loading:
    """A version that is being loaded, in a thread of its own: its feature code, or a disk, may keep
    it there for ever, and nothing can end it."""

    def __init__(self, version: Version, project: Project) -> None:
        self._version = version
        self._project = project
        self._future: Future[Loaded] = Future()
        self._began_at = datetime.now(UTC)
        self._began = time.monotonic()
        threading.Thread(target=self._run, name="load", daemon=True).start()

    def _run(self) -> None:
        try:
            self._future.set_result(load(self._version, self._project))
        except BaseException as error:  # feature code may even ask the thread to end
            self._future.set_exception(error)

    def wait(self, seconds: float) -> None:
        wait([self._future], seconds)

    @property
    def done(self) -> bool:
        return self._future.done()

    def result(self) -> Loaded | None:
        """None while it takes. Raises as ``load``, and whatever the version's code does."""
        return self._future.result() if self.done else None

    @property
    def problem(self) -> str:
        """What to tell of one that takes long; "" of others."""
        if self.done or time.monotonic() - self._began < _SLOW_SECONDS:
            return ""
        return (
            f"version {self._version.ref.version} has been loading since "
            f"{self._began_at:%Y-%m-%d %H:%M:%S} UTC: its features.py or its bundle's storage is "
            "slow or hangs; promote another version, or put that right and start the server again"
        )


@dataclass(slots=True)
class _Definition:
    """What may be kept of a model's predictions, and the stamp that its model.yaml had when it was
    read last; None when it was gone."""

    path: Path
    stamp: Stamp | None
    logging: Logging


class Follower(threading.Thread):
    """Asks the registry for routes, again and again, and brings the service to follow them.

    A version is loaded, checked and run warm before the first request reaches it; what can't be
    loaded is said and tried again, and the service stays as it was. One that takes long to load
    keeps no other route waiting, nor the way back from it. What is followed is kept in
    ``.perennial/serving/routes``, a file a model, for all servers of the project; while the
    registry is down, or not there, a model that is not served yet is served from there. What
    model.yaml says of the prediction log is followed too.
    """

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(name="follower", daemon=True)
        self._service = service
        self._loop = loop
        self._project = Project(service.settings.project)
        self._routes = self._project.home / "serving" / "routes"
        self._ending = threading.Event()
        self._registry: Registry | None = None
        self._followed: dict[str, Followed] = {}
        self._unwritten: set[str] = set()
        self._failures: dict[str, _Failure] = {}
        self._loading: dict[VersionRef, _Loading] = {}
        self._definitions: dict[str, _Definition] = {}
        self._told_at = 0.0
        self._unforeseen = ""

    def stop(self) -> None:
        """End, after what it is doing if that does not take long."""
        self._ending.set()
        self.join(_END_SECONDS)
        if self._registry is not None and not self.is_alive():
            self._registry.close()

    def run(self) -> None:
        while not self._ending.is_set():
            self.look()
            self._ending.wait(self._service.settings.poll_seconds)

    def look(self) -> None:
        """Follow the registry and the definitions as they are now."""
        self._look_at_registry()
        for model in self._followed:
            self._definition(model)

    def _look_at_registry(self) -> None:
        try:
            if self._registry is None:
                self._registry = Registry(self._project.registry_url, make=False)
            wanted = self._wanted(self._registry.routes())
            self._expect(wanted)
            for route in wanted:
                self._follow(route)
            self._tell(self._registry, "")
            self._unforeseen = ""
        except PerennialError as error:
            self._tell(None, error.message)
            self._start_from_disk()
        except Exception as error:
            if repr(error) != self._unforeseen:  # as long as it is the same, it is told once
                self._unforeseen = repr(error)
                _log.exception("the registry could not be followed")
            self._tell(None, "an error of the server; its log has the details")

    def _wanted(self, routes: Iterable[Route]) -> list[Route]:
        names = self._service.settings.models
        return [route for route in routes if route.arms and (not names or route.model in names)]

    def _expect(self, routes: Iterable[Route]) -> None:
        self._on_loop(self._service.expect, [route.model for route in routes])

    def _follow(self, route: Route) -> None:
        known = self._followed.get(route.model)
        if known is not None and known.route == route:
            self._forget_loaded(route.model)  # what was asked for meanwhile, and is no more
            if route.model in self._unwritten:
                self._keep(known)
            return
        if not self._may_try(route):
            return
        assert self._registry is not None
        numbers = sorted({arm.version for arm in route.arms})
        versions = tuple(self._registry.version(route.model, number) for number in numbers)
        shadows = tuple(self._registry.version(route.model, number) for number in route.shadow)
        followed = Followed(route=route, versions=versions, shadows=shadows)
        if self._adopt(followed):
            self._keep(followed)

    def _keep(self, followed: Followed) -> None:
        """Write a route for the next start. What can't be written is tried again at each look."""
        model = followed.route.model
        try:
            write_file(self._routes / f"{model}.json", followed.model_dump_json(indent=1))
        except OSError as error:
            if model not in self._unwritten:
                self._unwritten.add(model)
                fields = {"model": model, "problem": str(error)}
                _log.error("route not kept on disk", extra=fields)
        else:
            if model in self._unwritten:
                self._unwritten.remove(model)
                _log.info("route kept on disk again", extra={"model": model})

    def _adopt(self, wanted: Followed) -> bool:
        """Load what is not loaded yet, and switch once all is. Whether it worked."""
        name = wanted.route.model
        try:
            logging = self._definition(name)
            loaded = self._load(wanted)
        except PerennialError as error:
            self._failed(wanted.route, error.message)
            return False
        except BaseException as error:  # feature code may even ask the thread to end
            _log.exception("a version could not be loaded", extra={"model": name})
            self._failed(wanted.route, f"a version can't be loaded: {type(error).__name__}")
            return False
        if loaded is None:
            return False
        self._failures.pop(name, None)
        self._forget_loaded(name)
        self._followed[name] = wanted
        classes = self._classes(wanted.shadows)
        self._on_loop(self._service.adopt, wanted.route, loaded, logging, classes)
        return True

    def _load(self, wanted: Followed) -> Mapping[int, Loaded] | None:
        """The versions of a route; None while one is being loaded, which is told when it takes
        long. Raises as ``load``, and whatever a version's code does."""
        present = self._service.models.get(wanted.route.model)
        loaded: dict[int, Loaded] = {}
        for version in wanted.versions:
            ref = version.ref
            same = present.loaded.get(ref.version) if present else None
            if same is None or same.version.ref != ref:
                loading = self._loading.get(ref)
                if loading is None:
                    loading = self._loading[ref] = _Loading(version, self._project)
                    loading.wait(_TURN_SECONDS)
                same = loading.result()
                if same is None:
                    if loading.problem:
                        self._tell_failure(wanted.route, loading.problem)
                    return None
            loaded[ref.version] = same
        return loaded

    def _forget_loaded(self, model: str) -> None:
        """Of a model's versions that were loaded, let go of those that nobody came to use. What
        still loads is kept: it is not begun again as long as it hangs."""
        for ref, loading in [*self._loading.items()]:
            if ref.model == model and loading.done:
                del self._loading[ref]

    def _classes(self, shadows: Iterable[Version]) -> tuple[str, ...]:
        """The classes of versions in shadow. What keeps one from being opened is told by the
        process that is to score it, and in the way of nobody here."""
        known = []
        for version in shadows:
            with suppress(PerennialError):
                known.append(open_stored(version.ref, self._project).schema.classes)
        return all_classes(known) or ()

    def _definition(self, name: str) -> Logging:
        """Follow what a model's model.yaml says may be kept of its predictions: it is written
        there, and not in its versions. The file is read again when it has changed; while it is
        wrong, what was read last stays. Raises InputError when nothing was."""
        known = self._definitions.get(name)
        path = None if known is None else known.path
        seen = None if path is None else stamp_or_none(path)
        if known is not None and known.stamp == seen:
            return known.logging
        try:
            path = self._project.model_folder(name) / "model.yaml"
            seen = stamp_or_none(path)  # before it is read, or a change meanwhile is missed
            logging = Logging.of(load_spec(path))
        except Exception as error:  # whatever is wrong with it, routes are to be followed further
            reason = error.message if isinstance(error, PerennialError) else repr(error)
            what = f"its model.yaml, which says what of a prediction may be kept: {reason}"
            if known is None:
                raise InputError(Problem(name, what)) from None
            known.path, known.stamp = path or known.path, seen
            _log.error("log settings not followed", extra={"model": name, "problem": what})
            return known.logging
        self._definitions[name] = _Definition(path, seen, logging)
        if known is not None:
            self._on_loop(self._service.adopt_logging, name, logging)
            _log.info("log settings followed", extra={"model": name})
        return logging

    def _may_try(self, route: Route) -> bool:
        """Whether it is time to load a route, which may have failed before."""
        failure = self._failure_of(route)
        return failure is None or time.monotonic() >= failure.not_before

    def _failed(self, route: Route, problem: str) -> None:
        """Tell of a route that can't be followed, and try it again later, from the beginning."""
        failure = self._tell_failure(route, problem)
        self._forget_loaded(route.model)
        failure.tries += 1
        pause = min(0.5 * 2**failure.tries, _LONGEST_WAIT_SECONDS)
        failure.not_before = time.monotonic() + pause

    def _tell_failure(self, route: Route, problem: str) -> _Failure:
        failure = self._failure_of(route)
        if failure is None:
            failure = self._failures[route.model] = _Failure(route.generation)
        if problem != failure.problem:
            failure.problem = problem
            _log.error("route not followed", extra={"model": route.model, "problem": problem})
        self._on_loop(self._service.route_failed, route.model, problem)
        return failure

    def _failure_of(self, route: Route) -> _Failure | None:
        """None when only another generation of it failed, if any."""
        failure = self._failures.get(route.model)
        return failure if failure and failure.generation == route.generation else None

    def _start_from_disk(self) -> None:
        kept = {followed.route.model: followed for followed in self._kept()}
        wanted = self._wanted(followed.route for followed in kept.values())
        if wanted:
            self._expect(wanted)
        for route in wanted:
            missing = route.model not in self._followed
            if missing and self._may_try(route) and self._adopt(kept[route.model]):
                _log.warning("last known route, from disk", extra={"model": route.model})

    def _kept(self) -> Iterator[Followed]:
        """What was followed last, by this server or others of the project."""
        for path in sorted(self._routes.glob("*.json")):
            with suppress(OSError, ValidationError):
                yield Followed.model_validate_json(path.read_text(encoding="utf-8"))

    def _tell(self, registry: Registry | None, problem: str) -> None:
        """Give the service what its status page shows of the registry."""
        decisions: tuple[AuditEntry, ...] | None = None
        rollouts: tuple[Rollout, ...] = ()
        now = time.monotonic()
        if registry is not None and now - self._told_at > _TOLD_EVERY_SECONDS:
            decisions = tuple(registry.newest_decisions([*self._followed], DECISIONS))
            running = registry.rollouts.running()
            rollouts = tuple(r for r in running if r.model in self._followed)
            self._told_at = now
        self._on_loop(self._service.registry_told, problem, decisions, rollouts)

    def _on_loop(self, call: object, *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *arguments)  # type: ignore[arg-type]
