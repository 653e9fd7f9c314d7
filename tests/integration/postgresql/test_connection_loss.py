"""A registry whose connections, or whose whole server, go away at the worst moment."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from perennial.contracts.errors import UnavailableError
from perennial.contracts.refs import BundleRef
from perennial.contracts.rollouts import Guard, Plan, Step
from perennial.decisions.rollout import command
from perennial.stores.registry import Registry, engine
from tests.contract import postgres

NOW = datetime(2026, 3, 1, tzinfo=UTC)
WHO: dict[str, Any] = {"actor": "anna", "reason": "better", "now": NOW}
STEP = Step(
    strategy="canary", weight=5, bake_seconds=60, timeout_seconds=86_400, min_requests=10,
    guards=(Guard(name="error_rate", kind="error_rate", limit=0.01),),
)  # fmt: skip
PLAN = Plan(steps=(STEP,))


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    with postgres.running() as server:
        yield server


@pytest.fixture
def url(server: postgres.Server) -> Iterator[str]:
    with postgres.database(server.url, f"loss_{uuid.uuid4().hex}") as url:
        yield url


@pytest.fixture
def registry(url: str) -> Iterator[Registry]:
    """Four versions, the third of which is the champion and the first was."""
    registry = Registry(url)
    for digest in "abcd":
        register(registry, digest)
    for generation, version in enumerate((1, 3)):
        promote(registry, version, generation, f"promote {version}")
    yield registry
    registry.close()


def register(registry: Registry, digest: str) -> int:
    bundle = BundleRef(uri=f"/bundles/{digest}", digest=digest)
    values: dict[str, Any] = {"params": {}, "metrics": {}, "judgement": {}, "links": {}}
    return registry.register("delay", bundle, **values, **WHO).version


def promote(registry: Registry, version: int, generation: int, cause: str) -> None:
    registry.promote(
        "delay", version, expected_generation=generation, evidence={}, cause=cause, **WHO
    )


class Killer:
    """Ends the session of a registry's connection before its next n-th statement, or, for 0, its
    commit; once, from a session of its own."""

    def __init__(self, registry: Registry, url: str, n: int) -> None:
        self._engine, self._url = registry._engine, url
        self._n = n
        self._seen = 0
        self.done = False

    def __enter__(self) -> Killer:
        event.listen(self._engine, "before_cursor_execute", self._executes)
        event.listen(self._engine, "commit", self._commits)
        return self

    def __exit__(self, *_: object) -> None:
        event.remove(self._engine, "before_cursor_execute", self._executes)
        event.remove(self._engine, "commit", self._commits)

    def _executes(self, connection: sa.Connection, *_: object) -> None:
        self._seen += 1
        if self._seen == self._n and not self.done:
            self._kill(connection)

    def _commits(self, connection: sa.Connection) -> None:
        if self._n == 0 and not self.done:
            self._kill(connection)

    def _kill(self, connection: sa.Connection) -> None:
        self.done = True
        pid = connection.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]
        other = sa.create_engine(self._url, poolclass=sa.NullPool)
        with other.connect() as admin:
            query = sa.text("SELECT pg_terminate_backend(:pid, 60000)")
            assert admin.scalar(query, {"pid": pid})


def told(registry: Registry) -> list[Any]:
    audit = registry.audit("delay")
    assert audit.faults == ()
    return [
        audit, registry.route("delay"), registry.rollouts.last("delay"),
        registry.versions("delay"), registry.quarantined("delay"),
    ]  # fmt: skip


def begin(registry: Registry, n: int) -> None:
    registry.rollouts.begin("delay", 4, PLAN, cause=f"begin {n}", **WHO)


def advance(registry: Registry) -> Callable[[], object]:
    running = registry.rollouts.active("delay")
    assert running is not None
    transition = command(running, "promote", NOW, "by hand")
    return lambda: registry.rollouts.advance(
        running, transition, actor="anna", evidence={}, now=NOW
    )


def roll_back(registry: Registry) -> Callable[[], object]:
    return lambda: registry.rollback("delay", None, **WHO)


def abort(registry: Registry) -> Callable[[], object]:
    return lambda: registry.rollouts.command("delay", "abort", **WHO)


def lost(work: Callable[[], object]) -> str:
    """What is told of a connection that is lost meanwhile; "" when the work was done."""
    try:
        work()
    except UnavailableError as error:
        return error.message
    return ""


@pytest.mark.parametrize("kind", [advance, roll_back, abort])
def test_a_session_ended_at_any_statement_leaves_nothing_half_done_and_the_next_try_works(
    registry: Registry, url: str, kind: Callable[[Registry], Callable[[], object]]
) -> None:
    if kind is not roll_back:
        begin(registry, 0)
    before, n = told(registry), 0
    while True:
        work = kind(registry)
        with Killer(registry, url, n) as killer:
            message = lost(work)
        if not killer.done:
            break
        assert ": the connection was lost: " in message
        assert message.endswith("perennial status shows whether it was done") == (n == 0)
        assert told(registry) == before, f"statement {n}"
        n += 1
    assert n > 6
    assert message == ""
    assert registry.audit("delay").head.number > before[0].head.number
    assert registry.route("delay") != before[1]


@pytest.mark.parametrize("work", ["promote", "register", "begin", "record"])
def test_what_may_be_repeated_outlasts_a_session_that_ends_at_any_statement_and_happens_once(
    registry: Registry, url: str, work: str
) -> None:
    n, killed = 0, True
    while killed:
        before = registry.audit("delay").head.number
        with Killer(registry, url, n) as killer:
            if work == "promote":
                promote(registry, 1 + n % 2, registry.route("delay").generation, f"again {n}")
            elif work == "register":
                assert register(registry, f"new {n}") == 5 + n
            elif work == "begin":
                begin(registry, n)
            else:
                registry.record(
                    "delay", "refused", version=None, evidence={}, cause=f"judged {n}", **WHO
                )
            killed = killer.done
        audit = registry.audit("delay")
        assert (audit.faults, audit.head.number) == ((), before + 1)
        if work == "begin":
            registry.rollouts.command("delay", "abort", **WHO)
        n += 1
    assert n > 5


def test_a_server_that_was_restarted_between_two_calls_is_not_noticed(
    registry: Registry, server: postgres.Server
) -> None:
    before = told(registry)
    server.stop()
    server.start()
    assert told(registry) == before
    server.stop()
    server.start()
    registry.rollback("delay", None, **WHO)
    assert registry.route("delay").champion == 1


def test_a_call_waits_for_a_server_that_comes_back(
    registry: Registry, server: postgres.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_AGAIN_SECONDS", 240.0)
    server.stop()
    found: list[int] = []
    caller = threading.Thread(target=lambda: found.append(register(registry, "e")))
    caller.start()
    time.sleep(0.5)
    server.start()
    caller.join(240)
    assert found == [5]
    assert registry.audit("delay").head.number == 7


def test_a_server_that_stays_away_is_told_of_and_nothing_else(
    registry: Registry, server: postgres.Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_AGAIN_SECONDS", 0.3)
    before = told(registry)
    server.stop()
    try:
        for call in (lambda: registry.route("delay"), roll_back(registry)):
            with pytest.raises(UnavailableError) as away:
                call()
            assert away.value.message.startswith(f"registry {url}: the connection was lost: ")
            assert "\n" not in away.value.message
    finally:
        server.start()
    assert told(registry) == before


def test_a_writer_that_stands_still_holds_up_the_others_for_a_while_only(
    registry: Registry, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = "SELECT set_config('lock_timeout', '200ms', true)"
    monkeypatch.setattr(engine, "_LIMITS", sa.text(limits))
    other = sa.create_engine(url)
    with other.begin() as stands:
        stands.exec_driver_sql("SELECT * FROM routes WHERE model = 'delay' FOR UPDATE")
        with pytest.raises(UnavailableError, match="canceling statement due to lock timeout"):
            roll_back(registry)()
    other.dispose()
    roll_back(registry)()
    assert registry.route("delay").champion == 1
