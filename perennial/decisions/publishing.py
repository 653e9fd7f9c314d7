"""What a destination that keeps models too should hold: which versions, under which aliases."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from perennial.contracts.routes import Route

CHAMPION, CHALLENGER = "champion", "challenger"
ALIASES = (CHAMPION, CHALLENGER)
"""The aliases that follow the route. Others at a destination are left alone."""


def aliases_of(route: Route) -> dict[str, int]:
    """alias → version. ``challenger`` is the version that earns its requests beside the champion:
    an arm of the route, or else a shadow; of several the newest. Neither is there without one."""
    beside = [arm.version for arm in route.arms if arm.version != route.champion]
    found = {CHAMPION: route.champion} if route.champion is not None else {}
    challengers = beside or [version for version in route.shadow if version != route.champion]
    return {**found, CHALLENGER: max(challengers)} if challengers else found


def due(
    versions: Iterable[int], there: Collection[int], aliased: Collection[int], most: int | None
) -> list[int]:
    """The versions to publish now, the oldest first: at most ``most`` (None: all) of those that are
    not ``there``, of which the aliased and then the newest have precedence."""
    missing = sorted(set(versions) - set(there), key=lambda v: (v in aliased, v), reverse=True)
    return sorted(missing[:most])
