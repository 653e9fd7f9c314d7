"""Orders to a run that watches a rollout: done once, also by a Prefect server that is slow."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.logging import disable_run_logger
from prefect.settings import PREFECT_API_URL, temporary_settings

from perennial.contracts.refs import BundleRef
from perennial.contracts.rollouts import Plan, Step
from perennial.stores.registry import Registry
from tasks._desk import Desk
from tasks.rollout import RolloutOrder

NOW = datetime(2026, 3, 9, 12, tzinfo=UTC)
STEP = Step(
    strategy="canary", weight=5, bake_seconds=60, timeout_seconds=3600, min_requests=10,
    approval=False, guards=(),
)  # fmt: skip


@flow
def watching() -> None:
    """What a run is of."""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """A model whose second version is being rolled out."""
    registry = Registry(f"sqlite:///{tmp_path}/registry.db")
    for digest in "ab":
        registry.register(
            "delay", BundleRef(uri=f"/{digest}", digest=digest), params={}, metrics={},
            judgement={}, links={}, actor="t", reason="", now=NOW,
        )  # fmt: skip
    registry.promote(
        "delay", 1, expected_generation=0, actor="t", reason="", evidence={}, cause="1", now=NOW
    )
    registry.rollouts.begin(
        "delay", 2, Plan(steps=(STEP,)), actor="t", reason="", cause="2", now=NOW
    )
    yield registry
    registry.close()


@pytest.fixture
def run(prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[UUID]:
    with (
        temporary_settings({PREFECT_API_URL: prefect_server}),
        disable_run_logger(),
        get_client(sync_client=True) as client,
    ):
        found = client.create_flow_run(watching)
        monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(found.id))
        yield found.id


def test_an_order_that_prefect_is_slow_to_forget_is_done_once(
    run: UUID, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: Any) -> None:
        raise httpx.ReadTimeout("no answer")

    def paused() -> list[str]:
        return [one.actor for one in registry.decisions("delay") if one.action == "paused"]

    RolloutOrder(command="pause", reason="lunch", by="Ada").send_to(run)
    with monkeypatch.context() as slow:
        slow.setattr(SyncPrefectClient, "delete_flow_run_input", silent)
        Desk().take_orders(registry, "delay")
    assert paused() == ["Ada"]
    registry.rollouts.command("delay", "resume", actor="Bob", reason="back", now=NOW)

    Desk().take_orders(registry, "delay")  # of the next task, as a rollout goes on

    assert paused() == ["Ada"]
    with get_client(sync_client=True) as client:
        assert client.filter_flow_run_input(run, "", limit=5, exclude_keys=set()) == []
