"""Whoever is killed, and wherever: a rollout, its route, audit and quarantine change together."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from perennial.contracts.refs import BundleRef
from perennial.contracts.rollouts import Guard, Plan, Step
from perennial.stores.registry import Registry
from perennial.stores.registry.replay import replayed

pytest_plugins = ["tests.contract.databases"]

NOW = datetime(2026, 3, 1, tzinfo=UTC)
GUARD = Guard(name="error_rate", kind="error_rate", limit=0.01)
STEP = Step(
    strategy="canary", weight=5, bake_seconds=60, timeout_seconds=86_400, min_requests=10,
    guards=(GUARD,),
)  # fmt: skip
PLAN = Plan(steps=(STEP,))

# The work is tried by one process after another: the first dies at its commit, the others before
# their first, second, third … statement, until one has no such statement and gets through.
_KILLED = """
import json, multiprocessing, os, signal, sys
from datetime import UTC, datetime
from sqlalchemy import event
from perennial.contracts.rollouts import Check, Measurement
from perennial.contracts.verdicts import Evidence, Outcome, Verdict
from perennial.decisions.rollout import step
from perennial.stores.registry import Registry

url, work = sys.argv[1:]
now = datetime(2026, 3, 1, 1, tzinfo=UTC)
who = {"actor": "anna", "reason": "tried", "now": now}

def supersede(registry, running):
    registry.rollouts.begin("delay", 2, running.plan, cause="once more", force=True, **who)

def fail(registry, running):
    measured = Measurement(guard="error_rate", n_challenger=200, value=0.4)
    evidence = Evidence(rule="error_rate")
    verdict = Verdict(outcome=Outcome.FAILED, reason="80 of 200 failed", evidence=evidence)
    check = Check(
        at=now, step=0, outcome="failed", requests=200, measurements=(measured,),
        verdicts=(verdict,),
    )
    transition = step(running, check, now)
    registry.rollouts.advance(running, transition, actor="rollout", evidence={}, now=now)

def go_back(registry, running):
    registry.rollback("delay", 4, **who)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def try_it(n):
    registry, statements = Registry(url), 0
    running = registry.rollouts.active("delay")

    def executes(*_):
        nonlocal statements
        statements += 1
        if statements == n:
            die()

    event.listen(registry._engine, "before_cursor_execute", executes)
    if n == 0:
        event.listen(registry._engine, "commit", lambda _: die())
    globals()[work](registry, running)

def told():
    registry = Registry(url)
    found = [
        registry.route("delay"), registry.decisions("delay"), registry.rollouts.last("delay"),
        registry.quarantined("delay"),
    ]
    registry.close()
    return found

fork = multiprocessing.get_context("fork")
before, n = told(), 0
while True:
    process = fork.Process(target=try_it, args=(n,))
    process.start()
    process.join()
    if process.exitcode == 0:
        break
    assert process.exitcode == -signal.SIGKILL, process.exitcode
    assert told() == before, f"statement {n}"
    n += 1
print(json.dumps(n))
"""


@pytest.fixture
def registry(registry_url: str) -> Any:
    """Four versions; 4 was the champion, and 1 is."""
    registry = Registry(registry_url)
    who: dict[str, Any] = {"actor": "anna", "reason": "better", "now": NOW}
    for digest in ("d1", "d2", "d3", "d4"):
        registry.register(
            "delay", BundleRef(uri=f"/bundles/{digest}", digest=digest), params={}, metrics={},
            judgement={}, links={}, **who,
        )  # fmt: skip
    for generation, version in enumerate((4, 1)):
        registry.promote(
            "delay", version, expected_generation=generation, evidence={},
            cause=f"promote {version}", **who,
        )  # fmt: skip
    yield registry
    registry.close()


def killed_everywhere(url: str, work: str) -> None:
    command = [sys.executable, "-c", _KILLED, url, work]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=300)
    assert json.loads(done.stdout) > 6


def begin(registry: Registry, version: int, cause: str) -> Any:
    return registry.rollouts.begin(
        "delay", version, PLAN, actor="training", reason="better", cause=cause, now=NOW
    )


def actions(registry: Registry, n: int) -> list[tuple[str, int | None]]:
    assert replayed("delay", registry.decisions("delay", 1000)) == registry.route("delay")
    return [(entry.action, entry.version) for entry in registry.decisions("delay", n)[::-1]]


def test_a_failed_check_that_is_killed_anywhere_is_written_as_a_whole_or_not_at_all(
    registry: Registry, registry_url: str
) -> None:
    begin(registry, 3, "first")
    killed_everywhere(registry_url, "fail")
    assert registry.rollouts.one(1).state.phase == "rolled back"
    assert registry.quarantined("delay").keys() == {3}
    assert actions(registry, 2) == [("rolled back", 3), ("quarantined", 3)]
    assert registry.route("delay").generation == 4


def test_a_rollout_that_supersedes_another_and_is_killed_anywhere_begins_whole_or_not_at_all(
    registry: Registry, registry_url: str
) -> None:
    begin(registry, 2, "first")
    killed_everywhere(registry_url, "fail")
    begin(registry, 3, "second")
    killed_everywhere(registry_url, "supersede")
    assert [(r.version, r.state.phase) for r in registry.rollouts.last("delay")] == [
        (2, "running"), (3, "superseded"), (2, "rolled back"),
    ]  # fmt: skip
    assert registry.quarantined("delay") == {}
    last = [("superseded", 3), ("released", 2), ("rollout began", 2)]
    assert actions(registry, 3) == last


def test_a_rollback_that_is_killed_anywhere_is_done_as_a_whole_or_not_at_all(
    registry: Registry, registry_url: str
) -> None:
    begin(registry, 3, "first")
    killed_everywhere(registry_url, "go_back")
    assert registry.route("delay").champion == 4
    assert registry.rollouts.one(1).state.phase == "aborted"
    assert actions(registry, 2) == [("aborted", 3), ("rolled back", 1)]
