"""Versions and aliases told to MLflow and the W&B Registry, from what the registry holds.

What is published is read at the destination itself, by the bundle's digest, so there is no other
record to go wrong: whatever was missed (a server that was down, a kill, a rollback without Prefect)
the next time makes good, and a time when nothing is missing changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from perennial.bundle.read import Bundle
from perennial.contracts.errors import IntegrityError, PerennialError
from perennial.contracts.publishing import Destination, Publication
from perennial.decisions.publishing import aliases_of, due
from perennial.stores.bundles import open_stored
from perennial.stores.project import Project
from perennial.stores.publishing.mlflow import MlflowServer
from perennial.stores.publishing.wandb import WandbRegistry
from perennial.stores.registry import Registry, Version

MOST_AT_ONCE = 20
"""Versions that a flow publishes at most; the command ``perennial publish`` knows no limit."""
_MOST_TOLD = 5
"""Errors of one look that are told."""


class Place(Protocol):
    """A model at a destination. Methods raise UnavailableError when it doesn't answer."""

    def digests(self) -> set[str]:
        """The digests of the versions that are there, each whole."""

    def add(self, version: Version, bundle: Bundle) -> None:
        """Publish a version; one that is there already stays one."""

    def point(self, aliases: Mapping[str, str]) -> list[str]:
        """Make aliases point at digests, and drop those of ``ALIASES`` that are not given. Returns
        the ones that were changed."""


class Server(Protocol):
    """A destination of a project's versions. ``place`` is its address, without credentials."""

    @property
    def project(self) -> Project: ...
    @property
    def name(self) -> Destination: ...
    @property
    def place(self) -> str: ...
    def open(self, model: str) -> AbstractContextManager[Place]: ...


def servers(project: Project) -> list[Server]:
    """The destinations that settings name."""
    found: list[Server | None] = [MlflowServer.named(project), WandbRegistry.named(project)]
    return [server for server in found if server is not None]


def publish(server: Server, registry: Registry, model: str, most: int | None = None) -> Publication:
    """Publish what a destination lacks of a model, and let its aliases follow the route.

    Safe to repeat, to kill anywhere, and to run twice at once. Never raises for a destination that
    fails: ``error`` says so. Raises UnavailableError when the registry doesn't answer.
    """
    versions = {version.ref.version: version for version in registry.versions(model)}
    route = registry.route(model)
    done: list[int] = []
    moved: dict[str, None] = {}
    aliases: dict[str, int] = {}
    there: set[int] = set()
    errors: list[str] = []
    try:
        with server.open(model) as place:
            known = place.digests()
            there = {number for number, v in versions.items() if v.ref.digest in known}
            for number in due(versions, there, aliases_of(route).values(), most):
                try:
                    bundle = open_stored(versions[number].ref, server.project)
                    place.add(versions[number], bundle)
                except IntegrityError as error:  # a bundle that is gone holds up no other
                    errors.append(f"version {number}: {error.message}")
                    continue
                done.append(number)
            there |= {*done}
            while True:  # until the route is what was told: of two at once the last is right
                aliases = {a: v for a, v in aliases_of(route).items() if v in there}
                wanted = {alias: versions[v].ref.digest for alias, v in aliases.items()}
                moved |= dict.fromkeys(place.point(wanted))
                latest = registry.route(model)
                if latest.generation == route.generation:
                    break
                route = latest
    except PerennialError as error:
        errors.append(error.message)
    return Publication(
        model=model,
        destination=server.name,
        place=server.place,
        versions=tuple(done),
        waiting=len(versions.keys() - there - {*done}),
        aliases=aliases,
        moved=tuple(moved),
        error=_told(errors),
    )


def _told(errors: list[str]) -> str:
    hidden = len(errors) - _MOST_TOLD
    return "; ".join([*errors[:_MOST_TOLD], *([f"… and {hidden} more"] if hidden > 0 else [])])
