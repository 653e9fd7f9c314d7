"""``perennial rollout`` and ``perennial rollback``, as far as they need no Prefect."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from perennial.contracts.routes import Arm
from tests.rolling import CANARY, MODEL, Rolling, rolling

_IMPORTS = """
import sys
sys.argv = ["perennial", *sys.argv[1:]]
from perennial.cli import main
main_exit = 0
try:
    main()
except SystemExit as ended:
    main_exit = ended.code or 0
slow = {"prefect", "pandas", "pyarrow", "duckdb", "deltalake", "xgboost", "sklearn"}
print(main_exit, sorted(slow & sys.modules.keys()))
"""


@pytest.fixture
def place(tmp_path: Path) -> Rolling:
    found = rolling(tmp_path, {"PERENNIAL_PROJECT": str(tmp_path)})
    found.versions(3)
    return found


def begun(place: Rolling) -> None:
    """A rollout of version 2, as if its watcher had just gone."""
    from perennial.stores.rolling_out import begin
    from tests.logged import NOON

    begin(
        place.project, place.registry, MODEL, 2, {}, actor="tests", reason="better",
        cause="judged", force=False, now=NOON,
    )  # fmt: skip


def test_orders_are_obeyed_at_once_and_audited_with_who_and_why(place: Rolling) -> None:
    begun(place)
    paused = place.command("rollout", f"{MODEL}@2", "--pause", "--reason", "lunch")
    assert paused.returncode == 0, paused.stderr
    assert paused.stdout.splitlines()[:2] == [
        "demand@2: paused at canary 20 %, step 1 of 2",
        "lunch",
    ]
    entry = place.registry.decisions(MODEL)[0]
    assert (entry.action, entry.reason) == ("paused", "lunch")
    assert entry.actor.endswith(" by hand")
    assert place.command("rollout", MODEL, "--resume").returncode == 0
    promoted = place.command("rollout", MODEL, "--promote", "--json")
    assert json.loads(promoted.stdout)["state"]["phase"] == "promoted"
    assert place.registry.route(MODEL).arms == (Arm(version=2, weight=100),)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["demand@2", "--pause", "--abort"], "--pause: contradicts --abort"),
        (["demand@3", "--abort"], "demand@3: it is version 2 that is being rolled out"),
        (["demand@2", "--abort", "--bake", "1m"], "--abort: goes without settings"),
        (["demand@two"], "'demand@two' is not NAME or NAME@V"),
        (["demnd", "--abort"], "no model 'demnd'"),
        (["demand", "--approve"], "no step of it waits for approval"),
        (["demand", "--bake", "1m"], "a rollout under way keeps its settings"),
        (["demand@3", "--steps", "5,ten"], "--steps: 'ten' is not a whole number"),
        (["demand@3", "--steps", "50,20,100"], "steps rise and end at 100, not [50, 20, 100]"),
        (["demand@3", "--strategy", "canarry"], "'canarry' is not one of shadow, canary"),
        (["demand@9"], "'demand' has no version 9"),
        (["demand@1"], "demand@1: it is the champion already"),
        (["demand@2"], "rollout 1 of version 2 has not ended"),
        (["demand@3", "--detach"], "--detach: PREFECT_API_URL is not set"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(
    place: Rolling, arguments: list[str], said: str
) -> None:
    begun(place)
    before = place.registry.decisions(MODEL)
    done = place.command("rollout", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert place.registry.decisions(MODEL) == before


def test_nothing_to_watch_is_said(place: Rolling) -> None:
    done = place.command("rollout", MODEL)
    assert done.returncode == 2
    assert done.stderr == (
        "demand: no version of it is being rolled out (perennial rollout demand@V begins one)\n"
    )


def test_a_switch_at_once_needs_no_watching(place: Rolling) -> None:
    place.edit(CANARY, "")
    done = place.command("rollout", f"{MODEL}@3")
    assert (done.returncode, done.stdout) == (
        0,
        "demand@3: promoted\nat once: the plan has no steps\n",
    )


def test_a_rollback_goes_back_and_another_forward_again(place: Rolling) -> None:
    place.edit(CANARY, "")
    place.command("rollout", f"{MODEL}@2")
    back = place.command("rollback", MODEL, "--reason", "the shop is on fire")
    assert back.stdout == "demand: version 1 answers all requests (before: version 2 100 %)\n"
    entry = place.registry.decisions(MODEL)[0]
    assert (entry.action, entry.version) == ("rolled back", 2)
    assert entry.reason == "back to version 1: the shop is on fire"
    again = place.command("rollback", MODEL, "--json")
    assert json.loads(again.stdout)["champion"] == 2
    assert place.command("rollback", MODEL, "--to", "3").returncode == 2


def test_a_rollback_ends_the_rollout_under_way_even_beside_a_broken_model_yaml(
    place: Rolling,
) -> None:
    begun(place)
    place.edit("strategy: canary", "strategy: canry")
    done = place.command("rollback", MODEL)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "demand: version 1 answers all requests (before: version 1 80 %, version 2 20 %)\n"
    )
    assert place.registry.rollouts.last(MODEL)[0].state.phase == "aborted"


def test_a_rollback_loads_nothing_that_is_slow_to_load(place: Rolling) -> None:
    begun(place)
    for arguments in (["rollout", MODEL, "--pause"], ["rollback", MODEL]):
        done = subprocess.run(
            [sys.executable, "-c", _IMPORTS, "--project", str(place.root), *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == "0 []", done.stderr
