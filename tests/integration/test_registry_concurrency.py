"""Processes that register, promote and decide at once: nothing lost or overwritten, all audited."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime

from perennial.contracts.refs import BundleRef
from perennial.stores.registry import Registry

pytest_plugins = ["tests.contract.databases"]

WRITERS = 8
BUNDLES = 5

# Each process registers bundles of its own and one that all of them share, and promotes each: reads
# the route, tries, and reads again while others are quicker. They open the registry at once too.
_WRITERS = """
import json, multiprocessing, sys
from datetime import UTC, datetime
from perennial.contracts.refs import BundleRef
from perennial.stores.registry import Registry, StaleRouteError

url, writers, bundles = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
now = datetime(2026, 3, 1, tzinfo=UTC)
fork = multiprocessing.get_context("fork")
barrier = fork.Barrier(writers)

def write(writer):
    barrier.wait(240)
    registry = Registry(url)
    versions = {}
    for digest in ["shared", *(f"{writer}-{i}" for i in range(bundles))]:
        ref = registry.register(
            "delay", BundleRef(uri=f"/bundles/{digest}", digest=digest), params={},
            metrics={}, judgement={}, links={}, actor=str(writer), reason="passed", now=now,
        )
        versions[digest] = ref.version
        while True:
            route = registry.route("delay")
            try:
                registry.promote(
                    "delay", ref.version, expected_generation=route.generation,
                    actor=str(writer), reason="better", evidence={"over": route.champion},
                    cause=f"{writer} {digest}", now=now,
                )
                break
            except StaleRouteError:
                continue
    return versions

with fork.Pool(writers) as pool:
    print(json.dumps(pool.map(write, range(writers), chunksize=1)))
"""


def test_eight_processes_that_register_and_promote_at_once_lose_nothing(registry_url: str) -> None:
    command = [sys.executable, "-c", _WRITERS, registry_url, str(WRITERS), str(BUNDLES)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=240)
    results = json.loads(done.stdout)

    registry = Registry(registry_url)
    versions = registry.versions("delay")
    decisions = registry.decisions("delay", limit=1000)
    route = registry.route("delay")
    audit = registry.audit("delay")
    registry.close()
    assert (audit.faults, audit.head.number) == ((), len(decisions))

    told = {digest: n for result in results for digest, n in result.items()}
    assert {version.ref.digest: version.ref.version for version in versions} == told
    assert sorted(told.values()) == list(range(1, WRITERS * BUNDLES + 2))
    assert {result["shared"] for result in results} == {told["shared"]}

    promotions = WRITERS * (BUNDLES + 1)
    assert Counter(entry.action for entry in decisions) == {
        "registered": WRITERS * BUNDLES + 1,
        "promoted": promotions,
    }
    promoted = [entry for entry in reversed(decisions) if entry.action == "promoted"]
    assert [entry.generation for entry in promoted] == list(range(1, promotions + 1))
    assert (route.generation, route.champion) == (promotions, promoted[-1].version)
    # Each promotion replaced the champion that it was decided against: no change was overwritten.
    champions = [None, *(entry.version for entry in promoted)]
    assert [entry.evidence["over"] for entry in promoted] == champions[:-1]


DECIDERS = 100

# Ten processes of ten threads each ask at once, with a clock each, for causes of their own or all
# for the same one; then each tries to start whatever was decided.
_DECIDERS = """
import json, multiprocessing, sys, threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from perennial.contracts.retraining import Trigger
from perennial.spec.production import Retrain
from perennial.stores.registry import Registry

url, same = sys.argv[1], sys.argv[2] == "same"
fork = multiprocessing.get_context("fork")
barrier = fork.Barrier(10)

def decide(registry, number):
    now = datetime(2026, 3, 1, tzinfo=UTC) - timedelta(milliseconds=number)
    trigger = Trigger(
        kind="drift", finding="harmful drift", reason="logloss rose", at=now,
        data="same" if same else str(number),
    )
    settings = Retrain(on=("drift",), cooldown="1h")
    found, news = registry.retrainings.decide(
        "delay", trigger, settings, actor=str(number), now=now
    )
    pending = registry.retrainings.unstarted("delay")
    claims = [registry.retrainings.start(r.id, f"run {number}", now) for r in pending]
    return found.id, found.current.answer, news, sum(claims)

def work(process):
    registry = Registry(url)
    barrier.wait(240)
    with ThreadPoolExecutor(10) as pool:
        return list(pool.map(lambda i: decide(registry, 10 * process + i), range(10)))

with fork.Pool(10) as pool:
    print(json.dumps(sum(pool.map(work, range(10), chunksize=1), [])))
"""


def decide_at_once(registry_url: str, causes: str) -> list[tuple[int, str, bool, int]]:
    command = [sys.executable, "-c", _DECIDERS, registry_url, causes]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=240)
    results: list[tuple[int, str, bool, int]] = json.loads(done.stdout)
    assert len(results) == DECIDERS
    return results


def test_a_hundred_causes_at_once_start_one_retraining(registry_url: str) -> None:
    results = decide_at_once(registry_url, "different")
    assert len({number for number, _, _, _ in results}) == DECIDERS
    answers = Counter(answer for _, answer, _, _ in results)
    assert answers["retrain"] == 1
    assert sum(claims for _, _, _, claims in results) == 1
    registry = Registry(registry_url)
    found = registry.retrainings.last("delay", 1000)
    registry.close()
    assert Counter(r.current.answer for r in found) == answers
    assert Counter(r.state for r in found) == {"started": 1, "decided": DECIDERS - 1}


def test_a_cause_told_a_hundred_times_at_once_is_one_retraining(registry_url: str) -> None:
    results = decide_at_once(registry_url, "same")
    assert {(number, answer) for number, answer, _, _ in results} == {(1, "retrain")}
    assert sum(news for _, _, news, _ in results) == 1
    assert sum(claims for _, _, _, claims in results) == 1
    registry = Registry(registry_url)
    assert len(registry.retrainings.last("delay", 1000)) == 1
    registry.close()


_KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from perennial.contracts.refs import BundleRef
from perennial.stores.registry import Registry, registry

registry.append_decision = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)
Registry(sys.argv[1]).register(
    "delay", BundleRef(uri="/bundles/a", digest="a"), params={}, metrics={}, judgement={},
    links={}, actor="killed", reason="passed", now=datetime(2026, 3, 1, tzinfo=UTC),
)
"""


def test_a_process_killed_between_the_version_and_its_audit_leaves_neither(
    registry_url: str,
) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED, registry_url], check=False, timeout=240)
    assert done.returncode == -signal.SIGKILL
    registry = Registry(registry_url)
    assert (registry.models(), registry.versions("delay")) == ([], [])
    ref = registry.register(
        "delay",
        BundleRef(uri="/bundles/a", digest="a"),
        params={},
        metrics={},
        judgement={},
        links={},
        actor="next run",
        reason="passed",
        now=datetime(2026, 3, 1, tzinfo=UTC),
    )
    assert ref.version == 1
    assert [entry.actor for entry in registry.decisions("delay")] == ["next run"]
    registry.close()
