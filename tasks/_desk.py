"""What a run that watches a rollout has to do with Prefect: the page people see, what they ask."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRunInput, StateType
from prefect.client.schemas.sorting import ArtifactSort
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException
from prefect.input import RunInput
from prefect.runtime import flow_run
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.utilities.context import get_task_and_flow_run_ids
from pydantic import ValidationError

from perennial.contracts.errors import InputError, UnavailableError
from perennial.contracts.rollouts import Command, Phase, Rollout
from perennial.reports.markdown import plain
from perennial.reports.rollout_progress import headline, render_markdown
from perennial.stores.registry import Registry

_REDRAWN = 60.0
NO_ANSWER = (httpx.HTTPError, PrefectException, RuntimeError)
"""How Prefect's client says that its server doesn't answer."""
_BRIEF = 2.0
"""Seconds. A look comes before a page: no server that is slow or away may hold up the next."""
_LEFT_ALONE = 30.0
"""Seconds that a Prefect server which didn't answer is not asked again."""
_SLACK = timedelta(seconds=30)
"""How much longer than it should a page may take to be drawn again."""
_taken: set[str] = set()
"""Keys of the orders that this process took: a server that is slow to forget one shows it again,
and an approval done twice would be that of another step."""


class RolloutOrder(RunInput):
    """What a person asks of a rollout, sent to a run that watches it: ``send_to`` (docs/rollouts).

    ``by`` is who, for the audit."""

    command: Command
    reason: str
    by: str = ""


_ORDERS = f"{RolloutOrder.__name__.lower()}-"
"""How ``send_to`` begins the keys of orders."""


@contextmanager
def briefly() -> Iterator[SyncPrefectClient]:
    """A client that asks once and waits 2 s for an answer. Raises one of ``NO_ANSWER``.

    It is one of its own: within a run ``get_client`` gives the run's, which waits a minute whatever
    the settings are by now, and so do Prefect's functions that ask by themselves.
    """
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client({"timeout": _BRIEF}, sync_client=True) as client,
    ):
        yield client


class Desk:
    """What a watching task has to do with Prefect: the page people see, and what they ask."""

    def __init__(self) -> None:
        self._page: UUID | None = None
        self._drawn: tuple[float, object] = (0.0, None)
        self._asked_again = 0.0

    @contextmanager
    def _asking(self) -> Iterator[SyncPrefectClient]:
        """Prefect is asked within, briefly; a server that doesn't answer is left alone a while."""
        try:
            with briefly() as client:
                yield client
        except NO_ANSWER as error:
            get_run_logger().warning("Prefect does not answer: %s", error)
            self._asked_again = time.monotonic() + _LEFT_ALONE

    def draw(self, rollout: Rollout) -> None:
        """The page as an artifact: a new one for each task, then rewritten where it is."""
        (at, place), now = self._drawn, time.monotonic()
        if now < self._asked_again or (place == place_of(rollout) and now - at < _REDRAWN):
            return
        text, what = render_markdown(rollout), plain(headline(rollout))
        with self._asking() as client:
            if self._page is None:
                self._page = _create(client, _page_of(rollout), text, what)
            else:
                client.update_artifact(self._page, ArtifactUpdate(data=text, description=what))
            self._drawn = (now, place_of(rollout))

    def take_orders(self, registry: Registry, model: str) -> None:
        """Do what people asked of this run, once: an order that was done is deleted."""
        if time.monotonic() < self._asked_again:
            return
        run = UUID(str(flow_run.get_id()))
        with self._asking() as client:
            for item in client.filter_flow_run_input(run, _ORDERS, limit=20, exclude_keys=set()):
                try:
                    if item.key not in _taken:
                        _obey(registry, model, item)
                except UnavailableError as error:
                    get_run_logger().warning("An order waits: %s", error)
                    return
                _taken.add(item.key)
                client.delete_flow_run_input(run, item.key)


def _obey(registry: Registry, model: str, item: FlowRunInput) -> None:
    try:
        order = RolloutOrder.load_from_flow_run_input(item)
        registry.rollouts.command(
            model, order.command, actor=order.by or f"input of {actor()}",
            reason=order.reason, now=datetime.now(UTC),
        )  # fmt: skip
    except (InputError, ValidationError) as error:
        get_run_logger().warning("An order was left undone: %s", error)


def is_relieved(rollout: Rollout, every: timedelta, now: datetime) -> bool:
    """Whether a younger run of this run's deployment watches the rollout, looking so often: then
    this one leaves its place at the worker to others. That a run goes on says little: it may wait
    for the registry, write a report, or be gone with its machine. One that looks draws the page.

    A run without deployment is somebody's at a terminal, and stays.
    """
    context = FlowRunContext.get()
    own = context.flow_run if context else None
    if own is None or own.deployment_id is None:
        return False
    at_work = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[own.deployment_id]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING])),
    )
    try:
        with briefly() as client:
            runs = client.read_flow_runs(flow_run_filter=at_work)
            younger = [r.id for r in runs if r.created and own.created and r.created > own.created]
            if not younger:
                return False
            pages = client.read_artifacts(
                artifact_filter=ArtifactFilter(
                    key=ArtifactFilterKey(any_=[_page_of(rollout)]),
                    flow_run_id=ArtifactFilterFlowRunId(any_=younger),
                ),
                sort=ArtifactSort.UPDATED_DESC,
                limit=1,
            )
    except NO_ANSWER:
        return False
    # One drawn before this rollout began was of the one before, which may have been its run's last.
    drawn_since = max(now - timedelta(seconds=_REDRAWN) - every - _SLACK, rollout.started_at)
    return any(page.updated is not None and page.updated > drawn_since for page in pages)


def forget_deaths() -> None:
    """Have this run's own death counted as the first in a row, if it comes to that."""
    context = FlowRunContext.get()
    own = context.flow_run if context else None
    if own is None:
        return
    parameters = {**own.parameters, "deaths": 0, "died": None}
    try:
        with briefly() as client:
            client.update_flow_run(own.id, parameters=parameters)
    except NO_ANSWER as error:
        get_run_logger().warning("Deaths that are over still count: %s", error)


def _create(client: SyncPrefectClient, key: str, text: str, description: str) -> UUID:
    """``create_markdown_artifact`` by this client."""
    task_run, run = get_task_and_flow_run_ids()
    page = ArtifactCreate(
        key=key, type="markdown", description=description, data=text, task_run_id=task_run,
        flow_run_id=run,
    )  # fmt: skip
    return client.create_artifact(page).id


def _page_of(rollout: Rollout) -> str:
    """The key of a watched rollout's artifact."""
    return f"{rollout.model}-rollout"


def place_of(rollout: Rollout) -> tuple[int, int, Phase]:
    """What changes when a rollout gets on."""
    return rollout.id, rollout.state.step, rollout.state.phase


def actor() -> str:
    """The run, for the audit."""
    return f"flow run {flow_run.get_id()}"
