"""What earlier versions wrote still opens and says what it said. ``make.py`` wrote it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy.exc import DBAPIError
from tests.golden.make import BUNDLES, REGISTRIES, told

from perennial.bundle.manifest import FORMAT
from perennial.bundle.predictor import Predictor
from perennial.bundle.read import open_bundle
from perennial.contracts.retraining import Trigger
from perennial.spec.production import Retrain
from perennial.stores.registry import Registry
from perennial.stores.registry.replay import replayed
from perennial.stores.registry.schema import REVISION_TABLE, REVISIONS, metadata

pytest_plugins = ["tests.contract.databases"]


def test_every_format_there_ever_was_is_kept() -> None:
    assert {p.name for p in BUNDLES.iterdir()} == {str(n) for n in range(1, FORMAT + 1)}
    assert {p.stem for p in REGISTRIES.glob("*.db")} == set(REVISIONS)


@pytest.mark.parametrize("folder", sorted(BUNDLES.iterdir()), ids=lambda p: p.name)
def test_a_bundle_of_every_format_opens_and_predicts_what_it_did(folder: Path) -> None:
    answers = json.loads((folder / "answers.json").read_text())
    bundle = open_bundle(folder / answers["digest"], answers["digest"])
    predictions = Predictor(bundle).predict(pd.DataFrame(answers["requests"]))
    # Another release of XGBoost or of the C library may round the last bit otherwise.
    np.testing.assert_allclose(predictions.values, answers["values"], rtol=2e-6)
    assert predictions.unseen == answers["unseen"]
    assert bundle.lineage == answers["lineage"]
    assert len(bundle.reference()) == 50


@pytest.mark.parametrize("path", sorted(REGISTRIES.glob("*.db")), ids=lambda p: p.stem)
def test_a_registry_of_every_revision_is_upgraded_and_says_what_it_did(
    path: Path, registry_url: str
) -> None:
    place(path, registry_url)
    expected = json.loads(path.with_suffix(".json").read_text())
    said = told(registry_url)
    assert said.keys() == expected.keys()
    for model, says in expected.items():
        assert {key: _as_then(said[model].get(key), says[key]) for key in says} == says
    engine = sa.create_engine(registry_url)
    with engine.connect() as connection:
        options = {"compare_type": True, "version_table": REVISION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
    for change in ("DELETE FROM decisions", "UPDATE decisions SET seal = ''"):
        with pytest.raises(DBAPIError, match="append-only"), engine.begin() as connection:
            connection.exec_driver_sql(change)
    engine.dispose()
    registry = Registry(registry_url)
    for model in registry.models():
        entry = registry.record(
            model, "refused", version=None, actor="anna", reason="", evidence={}, cause="today",
            now=datetime(2026, 11, 1, tzinfo=UTC),
        )  # fmt: skip
        assert replayed(model, registry.decisions(model)) == registry.route(model)
        audit = registry.audit(model)
        assert audit.faults == ()
        assert audit.last[0].entry == entry
        assert audit.head.number == len(expected[model]["decisions"]) + 1
    registry.close()


def test_rollouts_that_had_ended_are_what_became_of_their_retrainings(registry_url: str) -> None:
    """Versions 3 and 4 were made by retrainings when rollouts didn't tell of their ends; version 5,
    whose rollout runs, too. Two retrainings of 30 May gave nothing."""
    place(REGISTRIES / "0004.db", registry_url)
    before, back, promoted = (datetime(2026, *day) for day in ((5, 30), (5, 31), (6, 3)))
    running, day = datetime(2026, 6, 9, 6), timedelta(days=1)
    tables, engine = sa.MetaData(), sa.create_engine(registry_url)
    with engine.begin() as connection:
        tables.reflect(connection)
        for version, phase, at in ((3, "rolled back", back), (4, "promoted", promoted)):
            row = {
                "model": "parcels", "version": version, "champion": 2, "plan": {},
                "cause": f"judged {at}", "actor": "training", "reason": "passed", "phase": phase,
                "state": {}, "revision": 1, "started_at": at, "updated_at": at + day,
                "ended_at": at + day,
            }  # fmt: skip
            connection.execute(tables.tables["rollouts"].insert().values(row))
        for at in (before, back, promoted, running):
            asked = Trigger(kind="data", data=f"of {at}", at=at.replace(tzinfo=UTC), reason="new")
            row = {
                "model": "parcels", "cause": asked.cause, "trigger": "data",
                "seen_at": at, "asked": asked.model_dump(mode="json"), "actor": "training",
                "answer": "retrain", "reason": "new", "decided_at": at, "earlier": [],
                "state": "finished", "started_run": f"run {at}", "started_at": at,
                "finished_at": at, "outcome": "rolling out",
            }  # fmt: skip
            connection.execute(tables.tables["retrainings"].insert().values(row))
    engine.dispose()
    registry = Registry(registry_url)

    def became(id: int) -> tuple[str | None, datetime]:
        found = registry.retrainings.one(id)
        assert found.finished_at is not None
        return found.outcome, found.finished_at.replace(tzinfo=None)

    assert became(1) == ("kept", datetime(2026, 5, 30, 6, 5))
    assert [became(id) for id in (4, 5, 6, 7)] == [
        ("rolling out", before),  # there was no rollout then
        ("rolled back", back + day),
        ("promoted", promoted + day),
        ("rolling out", running),
    ]
    aborted = (running + day).replace(tzinfo=UTC)
    registry.rollouts.command("parcels", "abort", actor="anna", reason="", now=aborted)
    assert became(7) == ("aborted", running + day)
    assert became(6) == ("promoted", promoted + day)
    later = aborted + timedelta(hours=1)
    news = Trigger(kind="data", data="today's", at=later, reason="new")
    settings = Retrain(on=("data",))
    found, _ = registry.retrainings.decide("parcels", news, settings, actor="x", now=later)
    assert found.current.reason == (
        "data arrived: new, but the last one gave no better version; "
        "a pause of 12h lasts until 2026-06-10 18:00 UTC"
    )
    registry.close()


_OPEN_AT_ONCE = """
import json, multiprocessing, sys
from perennial.stores.registry import Registry

url, processes = sys.argv[1], int(sys.argv[2])
fork = multiprocessing.get_context("fork")
barrier = fork.Barrier(processes)

def look(_):
    barrier.wait(240)
    registry = Registry(url)
    return {model: registry.audit(model).model_dump(mode="json") for model in registry.models()}

with fork.Pool(processes) as pool:
    print(json.dumps(pool.map(look, range(processes), chunksize=1)))
"""


def test_processes_that_open_an_old_registry_at_once_upgrade_it_once(registry_url: str) -> None:
    place(REGISTRIES / "0003.db", registry_url)
    command_line = [sys.executable, "-c", _OPEN_AT_ONCE, registry_url, "4"]
    done = subprocess.run(command_line, check=True, capture_output=True, text=True, timeout=240)
    first, *others = json.loads(done.stdout)
    assert others == [first] * 3
    assert {model: (len(a["last"]), a["faults"]) for model, a in first.items()} == {
        "letters": (1, []), "parcels": (15, []),
    }  # fmt: skip


# The upgrade is tried by one process after another: each dies before another of its statements,
# every third, until one has no such statement and gets through.
_KILLED = """
import multiprocessing, os, signal, sys
import alembic.command
import sqlalchemy as sa
from sqlalchemy import event
from perennial.stores.registry.engine import connect
from perennial.stores.registry.migrate import migrate

url, table = sys.argv[1:]

def upgrade(n):
    engine, seen = connect(url), 0

    def executes(*_):
        nonlocal seen
        seen += 1
        if seen == n:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(engine, "before_cursor_execute", executes)
    migrate(engine)

fork = multiprocessing.get_context("fork")
n = 1
while True:
    process = fork.Process(target=upgrade, args=(n,))
    process.start()
    process.join()
    if process.exitcode == 0:
        break
    assert process.exitcode == -signal.SIGKILL, process.exitcode
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        found = connection.exec_driver_sql(f"SELECT version_num FROM {table}").scalar_one()
    assert found == "0003", (n, found)
    n += 3
print(n)
"""


def test_an_upgrade_that_is_killed_anywhere_leaves_the_old_tables(registry_url: str) -> None:
    place(REGISTRIES / "0003.db", registry_url)
    command_line = [sys.executable, "-c", _KILLED, registry_url, REVISION_TABLE]
    done = subprocess.run(command_line, check=True, stdout=subprocess.PIPE, text=True, timeout=300)
    assert int(done.stdout) > 20
    expected = json.loads((REGISTRIES / "0003.json").read_text())
    said = told(registry_url)
    for model, says in expected.items():
        assert {key: _as_then(said[model].get(key), says[key]) for key in says} == says


def _as_then(said: Any, says: Any) -> Any:
    """What is said now, without keys that there were none of then and that have no value."""
    if isinstance(said, dict) and isinstance(says, dict):
        known = {k: v for k, v in said.items() if k in says or v is not None}
        return {k: _as_then(v, says[k]) if k in says else v for k, v in known.items()}
    if isinstance(said, list) and isinstance(says, list) and len(said) == len(says):
        return [_as_then(*pair) for pair in zip(said, says, strict=True)]
    return said


def place(path: Path, url: str) -> None:
    """Put a golden registry where this URL leads."""
    target = sa.make_url(url)
    if target.get_backend_name() == "sqlite":
        Path(str(target.database)).parent.mkdir()
        shutil.copy(path, str(target.database))
    else:
        load(path, target)


def load(path: Path, url: sa.URL) -> None:
    """Make a PostgreSQL database as it was at the revision of a golden registry, with its rows."""
    config = Config()
    config.set_main_option("script_location", "perennial.stores.registry:migrations")
    old, new = sa.create_engine(f"sqlite:///{path}"), sa.create_engine(url)
    tables, made = sa.MetaData(), sa.MetaData()
    tables.reflect(old)
    with old.connect() as source, new.begin() as target:
        config.attributes["connection"] = target
        command.upgrade(config, path.stem)
        made.reflect(target)
        for table in made.sorted_tables:
            rows = source.execute(sa.select(tables.tables[table.name])).mappings().all()
            if rows and table.name != REVISION_TABLE:
                target.execute(table.insert(), [dict(row) for row in rows])
            if rows and "id" in table.c:
                target.exec_driver_sql(
                    f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), "
                    f"(SELECT max(id) FROM {table.name}))"
                )
    old.dispose()
    new.dispose()
