"""What a run asks of a Prefect server that takes connections and gives no answer."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext, SyncClientContext
from prefect.logging import disable_run_logger
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED,
    temporary_settings,
)

from perennial.contracts.errors import UnavailableError
from perennial.contracts.refs import BundleRef
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from tasks import _desk
from tasks._desk import Desk, forget_deaths, is_relieved
from tasks.rollout import remind
from tests.rollout_examples import ROLLOUT
from tests.workplace import Workplace

NOW = datetime.now(UTC)
SOON = 20.0
"""Seconds. Far less than a run's own client waits, or one that asks again."""


@pytest.fixture(autouse=True)
def _run(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A flow run of a deployment, whose client was made when it began, as Prefect does it."""
    own = FlowRun(flow_id=uuid4(), deployment_id=uuid4(), parameters={"model": "parcels"})
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(own.id))
    monkeypatch.setattr(_desk, "_BRIEF", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = {
            PREFECT_API_URL: f"http://127.0.0.1:{silent.getsockname()[1]}/api",
            PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED: False,  # it would be asked
        }
        with (
            temporary_settings(settings),
            disable_run_logger(),
            SyncClientContext(),
            FlowRunContext.model_construct(flow_run=own),
        ):
            yield


@pytest.fixture
def registry(project: Workplace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """One with a rollout that nobody has looked at for an hour."""
    monkeypatch.setenv("PERENNIAL_PROJECT", str(project.root))
    registry, long_ago = Registry(Project.current().registry_url), NOW - timedelta(hours=1)
    for digest in "ab":
        registry.register(
            "parcels", BundleRef(uri=f"/{digest}", digest=digest), params={}, metrics={},
            judgement={}, links={}, actor="t", reason="", now=long_ago,
        )  # fmt: skip
    registry.promote(
        "parcels", 1, expected_generation=0, actor="t", reason="", evidence={}, cause="1",
        now=long_ago,
    )  # fmt: skip
    registry.rollouts.begin(
        "parcels", 2, ROLLOUT.plan, actor="t", reason="", cause="2", now=long_ago
    )
    yield registry
    registry.close()


def _seconds(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def test_a_page_is_not_waited_for() -> None:
    drawn_before = Desk()
    drawn_before._page = uuid4()

    assert _seconds(lambda: Desk().draw(ROLLOUT)) < SOON
    assert _seconds(lambda: drawn_before.draw(ROLLOUT)) < SOON


def test_orders_are_not_waited_for_and_prefect_is_then_left_alone(registry: Registry) -> None:
    desk = Desk()

    assert _seconds(lambda: desk.take_orders(registry, "parcels")) < SOON
    assert desk._asked_again > time.monotonic()


def test_a_run_that_cannot_know_of_younger_ones_stays() -> None:
    found: list[bool] = []

    minute = timedelta(minutes=1)
    assert _seconds(lambda: found.append(is_relieved(ROLLOUT, minute, NOW))) < SOON
    assert found == [False]


def test_deaths_that_cannot_be_forgotten_hold_up_nothing() -> None:
    assert _seconds(forget_deaths) < SOON


@pytest.mark.usefixtures("registry")
def test_who_watches_is_asked_again_when_there_is_no_answer() -> None:
    def ask() -> None:
        with pytest.raises(UnavailableError, match="Prefect does not answer: timed out"):
            remind.fn("parcels")

    assert _seconds(ask) < SOON
