"""Rollouts that nobody watches are watched again, whatever became of the event that told so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from perennial.cli.prefect_server import LOOK_SECONDS, api_url, call
from perennial.cli.watchers import deployment_of, have_watched, is_watched
from perennial.stores.project import Project

if TYPE_CHECKING:
    from perennial.contracts.rollouts import Rollout

_FIRST_WAIT = timedelta(minutes=2)
_LONGEST_WAIT = timedelta(hours=1)


@dataclass(frozen=True)
class _Try:
    """A run that was started for a rollout: at which revision, and when the next may be."""

    revision: int
    after: datetime
    wait: timedelta


class Care:
    """Of one project's rollouts, at the Prefect server of its stack.

    An event is one message, and a server may lose it: one that was started again holds back for 15
    minutes what it doesn't know the beginning of. The rollout's row in the registry is not lost.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._tries: dict[int, _Try] = {}
        self._unasked: set[int] = set()
        """Rollouts of which it was told that nobody could say who watches them."""

    def look(self, port: int, now: datetime) -> Iterator[str]:
        """Start a run for each rollout that nobody watches; yields a line on each. When nothing
        comes of it the next waits longer, until somebody watches again. Rollouts of other projects
        at the same registry are theirs. Raises PerennialError where the registry does not answer.
        """
        from perennial.stores.registry import Registry
        from perennial.stores.rolling_out import at_work_since, neglected

        registry = Registry(self._project.registry_url)
        try:
            found = self._of_this_project(neglected(registry, now))
        finally:
            registry.close()
        self._tries = {one.id: self._tries[one.id] for one in found if one.id in self._tries}
        self._unasked &= {one.id for one in found}
        ask = partial(_ask, port)
        for one in found:
            if not self._due(one, now):
                continue
            title = f"rollout of {one.model}@{one.version}"
            try:
                watched = is_watched(ask, one.model, at_work_since(self._project, one, now))
            except OSError as error:  # no try: a server that is slow says nothing about who watches
                if one.id not in self._unasked:
                    yield f"{title}: it can't be asked who watches it: {error}"
                self._unasked.add(one.id)
                continue
            self._unasked.discard(one.id)
            if watched:
                self._tries.pop(one.id, None)
                continue
            try:
                have_watched(ask, deployment_of(ask, one.model))
                said = "a run is started"
            except OSError as error:
                said = f"and no run can be started: {error}"
            self._note(one, now)
            yield f"{title}: nobody watches it, {said}"

    def _of_this_project(self, found: list[Rollout]) -> list[Rollout]:
        if not found:
            return found
        folders, wrong = self._project.model_folders()
        return [one for one in found if wrong or one.model in folders]  # a wrong one has no name

    def _due(self, rollout: Rollout, now: datetime) -> bool:
        last = self._tries.get(rollout.id)
        return last is None or last.revision != rollout.revision or now >= last.after

    def _note(self, rollout: Rollout, now: datetime) -> None:
        last = self._tries.get(rollout.id)
        in_vain = last is not None and last.revision == rollout.revision
        wait = min(2 * last.wait, _LONGEST_WAIT) if last and in_vain else _FIRST_WAIT
        self._tries[rollout.id] = _Try(rollout.revision, now + wait, wait)


def _ask(port: int, method: str, path: str, body: Any) -> Any:
    return call(method, f"{api_url(port)}{path}", body, LOOK_SECONDS)
