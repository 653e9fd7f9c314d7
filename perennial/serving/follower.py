"""Following the registry: its routes are loaded and adopted here, while requests go on."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable
from logging import getLogger

from pydantic import ValidationError

from perennial.contracts.errors import InputError, PerennialError, Problem
from perennial.contracts.refs import Value
from perennial.contracts.rollouts import Rollout
from perennial.serving.models import Loaded, load
from perennial.serving.service import Logging, Service
from perennial.spec import ModelSpec
from perennial.stores.folders import write_file
from perennial.stores.project import Project
from perennial.stores.registry import AuditEntry, Registry, Route, Version

_log = getLogger("perennial.serving.follower")

STATE = "routes.json"
DECISIONS = 20
_TOLD_EVERY_SECONDS = 5.0
_LONGEST_WAIT_SECONDS = 15.0
"""Between two tries to load a route whose versions can't be loaded."""


class Followed(Value):
    """A route that is followed, and its versions: what a server needs to start again."""

    route: Route
    versions: tuple[Version, ...]


class _State(Value):
    routes: tuple[Followed, ...]


class Follower(threading.Thread):
    """Asks the registry for routes, again and again, and brings the service to follow them.

    A version is loaded, checked and run warm before the first request reaches it; what can't be
    loaded is said and tried again, and the service stays as it was. What is followed is kept in
    ``.perennial/serving``, and served from there when the registry is down at the start.
    """

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(name="follower", daemon=True)
        self._service = service
        self._loop = loop
        self._project = Project(service.settings.project)
        self._ending = threading.Event()
        self._registry: Registry | None = None
        self._followed: dict[str, Followed] = {}
        self._failures: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        self._told_at = 0.0

    def stop(self) -> None:
        """End, after what it is doing."""
        self._ending.set()
        self.join()
        if self._registry is not None:
            self._registry.close()

    def run(self) -> None:
        while not self._ending.is_set():
            self._look()
            self._ending.wait(self._service.settings.poll_seconds)

    def _look(self) -> None:
        try:
            if self._registry is None:
                self._registry = Registry(self._project.registry_url)
            routes = self._registry.routes()
            for route in self._wanted(routes):
                self._follow(route)
            self._tell(self._registry, "")
        except PerennialError as error:
            self._tell(None, error.message)
            if not self._followed:
                self._start_from_disk()
        except Exception:
            _log.exception("the registry could not be followed")
            self._tell(None, "an error of the server; its log has the details")

    def _wanted(self, routes: Iterable[Route]) -> list[Route]:
        names = self._service.settings.models
        return [route for route in routes if route.arms and (not names or route.model in names)]

    def _follow(self, route: Route) -> None:
        known = self._followed.get(route.model)
        if known is not None and known.route == route:
            return
        if time.monotonic() < self._not_before.get(route.model, 0.0):
            return
        assert self._registry is not None
        numbers = sorted({arm.version for arm in route.arms})
        versions = tuple(self._registry.version(route.model, number) for number in numbers)
        if self._adopt(Followed(route=route, versions=versions)):
            state = _State(routes=tuple(self._followed.values()))
            write_file(self._project.home / "serving" / STATE, state.model_dump_json(indent=1))

    def _adopt(self, wanted: Followed) -> bool:
        """Load what is not loaded yet, and switch. Whether it worked."""
        name = wanted.route.model
        present = self._service.models.get(name)
        loaded: dict[int, Loaded] = {}
        try:
            logging = Logging.of(self._spec(name))
            for version in wanted.versions:
                same = present.loaded.get(version.ref.version) if present else None
                if same is None or same.version.ref != version.ref:
                    same = load(version, self._project)
                loaded[version.ref.version] = same
        except PerennialError as error:
            self._failed(name, error.message)
            return False
        except Exception as error:  # whatever a version's feature code does when it is loaded
            _log.exception("a version could not be loaded", extra={"model": name})
            self._failed(name, f"a version can't be loaded: {type(error).__name__}")
            return False
        self._failures.pop(name, None)
        self._followed[name] = wanted
        self._on_loop(self._service.adopt, wanted.route, loaded, logging)
        return True

    def _spec(self, name: str) -> ModelSpec:
        """The model's definition as it is now: what may be kept of its predictions is written
        there, and not in the versions."""
        try:
            return self._project.load_model(name)[1]
        except InputError as error:
            what = f"its model.yaml, which says what of a prediction may be kept: {error.message}"
            raise InputError(Problem(name, what)) from None

    def _failed(self, name: str, problem: str) -> None:
        failures = self._failures[name] = self._failures.get(name, 0) + 1
        wait = min(0.5 * 2**failures, _LONGEST_WAIT_SECONDS)
        self._not_before[name] = time.monotonic() + wait
        if failures == 1:
            _log.error("route not followed", extra={"model": name, "problem": problem})
        self._on_loop(self._service.route_failed, name, problem)

    def _start_from_disk(self) -> None:
        path = self._project.home / "serving" / STATE
        try:
            state = _State.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValidationError):
            return
        kept = {followed.route.model: followed for followed in state.routes}
        for route in self._wanted(followed.route for followed in state.routes):
            if self._adopt(kept[route.model]):
                _log.warning("last known route, from disk", extra={"model": route.model})

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
