"""The users of docs/postgresql.md: what each may, and what is said to who may not."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from perennial.contracts.errors import InputError, UnavailableError
from perennial.contracts.refs import BundleRef
from perennial.contracts.retraining import Trigger
from perennial.contracts.rollouts import Plan, Step
from perennial.learning.studies import StudyStore
from perennial.spec.production import Retrain
from perennial.spec.schema import Range
from perennial.stores.registry import Registry
from tests.contract import postgres
from tests.integration.postgresql.conftest import PASSWORD, Documented

NOW = datetime(2026, 3, 1, tzinfo=UTC)
WHO: dict[str, Any] = {"actor": "anna", "reason": "better", "now": NOW}
STEP = Step(
    strategy="canary", weight=5, bake_seconds=60, timeout_seconds=86_400, min_requests=10, guards=()
)
SPACE = {"max_depth": Range(low=3, high=8)}


def test_the_user_of_day_by_day_does_all_the_registrys_work_and_can_not_rewrite_the_audit(
    documented: Documented,
) -> None:
    registry = Registry(documented.registry)
    for digest in "ab":
        registry.register(
            "delay", BundleRef(uri=f"/{digest}", digest=digest), params={}, metrics={},
            judgement={}, links={}, **WHO,
        )  # fmt: skip
    registry.promote("delay", 1, expected_generation=0, evidence={}, cause="first", **WHO)
    rollout = registry.rollouts.begin("delay", 2, Plan(steps=(STEP,)), cause="begin", **WHO)
    registry.rollouts.command("delay", "promote", **WHO)
    registry.rollback("delay", None, **WHO)
    trigger = Trigger(kind="hand", reason="by hand", at=NOW, data="run 1")
    asked, _ = registry.retrainings.decide("delay", trigger, Retrain(), actor="anna", now=NOW)
    assert registry.retrainings.start(asked.id, "run 1", NOW)
    assert registry.retrainings.finish(asked.id, "run 1", "kept", NOW + timedelta(hours=1))
    assert registry.audit("delay").faults == ()
    assert registry.rollouts.one(rollout.id).state.phase == "promoted"
    registry.close()

    engine = sa.create_engine(documented.url("perennial_app", "perennial", "postgresql+psycopg"))
    for statement in (
        "UPDATE decisions SET actor = 'otto'",
        "DELETE FROM decisions",
        "TRUNCATE decisions",
        "UPDATE versions SET digest = 'x'",
        "DELETE FROM routes",
        "DELETE FROM rollouts",
        "UPDATE registry_revision SET version_num = '0001'",
        "CREATE TABLE mine (id integer)",
        "ALTER TABLE decisions DISABLE TRIGGER ALL",
    ):
        with (
            pytest.raises(sa.exc.ProgrammingError, match=r"permission denied|must be owner"),
            engine.begin() as connection,
        ):
            connection.exec_driver_sql(statement)
    engine.dispose()


@pytest.mark.parametrize(
    ("user", "database", "changes", "why"),
    [
        (
            "perennial_app", "perennial", {"password": "wrong"},
            'FATAL: password authentication failed for user "perennial_app"',
        ),
        ("nobody_here", "perennial", {}, 'password authentication failed for user "nobody_here"'),
        ("prefect", "perennial", {}, 'permission denied for database "perennial"'),
        (
            "perennial_owner", "elsewhere", {}, 'FATAL: database "elsewhere" does not exist',
        ),
        ("perennial_app", "perennial", {"host": "db.invalid"}, "db.invalid"),
    ],
)  # fmt: skip
def test_a_wrong_address_is_told_with_host_and_database_and_never_the_password(
    documented: Documented,
    user: str,
    database: str,
    changes: dict[str, str],
    why: str,
    tmp_path: Path,
) -> None:
    url = documented.url(user, database, **changes)
    with pytest.raises(InputError) as refused:
        Registry(url)
    message = refused.value.message
    place = sa.make_url(url)
    assert message.startswith(
        f"registry postgresql+psycopg://{user}:***@{place.host}:{place.port}/{database}: "
    )
    assert why in message
    assert message.endswith("(check user, password, host and database in PERENNIAL_REGISTRY_URL)")
    for secret in (PASSWORD, "p@ssword", "p%40ssword", "wrong"):
        assert secret not in message

    with (
        pytest.raises(UnavailableError) as studies,
        StudyStore.open(url, "s", SPACE, greater_is_better=False),
    ):
        raise AssertionError("opened")
    assert why.removeprefix("FATAL: ") in studies.value.message
    for secret in (PASSWORD, "p@ssword", "p%40ssword"):
        assert secret not in studies.value.message


def test_a_command_ends_with_one_line_and_2_when_the_password_is_wrong(
    documented: Documented, tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    url = documented.url("perennial_app", "perennial", password="wr0ng")
    done = subprocess.run(
        [sys.executable, "-m", "perennial", "--project", str(tmp_path), "status"],
        env={**os.environ, "PERENNIAL_REGISTRY_URL": url}, capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "password authentication failed" in done.stderr
    assert "wr0ng" not in done.stderr


def test_a_password_among_the_parameters_of_an_address_is_not_told_either(
    documented: Documented,
) -> None:
    port = documented.server.port
    with pytest.raises(InputError) as refused:
        Registry(f"postgresql://perennial_app@127.0.0.1:{port}/perennial?password=wr0ng")
    assert "password authentication failed" in refused.value.message
    assert "wr0ng" not in refused.value.message


def test_a_port_where_nobody_listens_is_worth_a_retry(documented: Documented) -> None:
    with pytest.raises(UnavailableError) as refused:
        Registry("postgresql://perennial_app:wr0ng@127.0.0.1:1/perennial")
    assert "registry postgresql+psycopg://perennial_app:***@127.0.0.1:1/perennial: " in str(
        refused.value
    )
    assert "wr0ng" not in str(refused.value)


def test_who_may_not_make_the_tables_is_told_who_has_to(documented: Documented) -> None:
    with postgres.database(documented.server.url, "fresh"):
        url = documented.url("perennial_app", "fresh")
        with pytest.raises(InputError) as refused:
            Registry(url)
    shown = sa.make_url(url).set(drivername="postgresql+psycopg").render_as_string()
    assert str(refused.value) == (
        f"registry {shown}: its tables are not made yet, 0005 is needed, and this user may not "
        "make them (run perennial status once as their owner; see docs/postgresql.md)"
    )


def test_who_may_only_read_reads_and_is_told_what_is_missing(documented: Documented) -> None:
    engine = sa.create_engine(documented.server.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE looker LOGIN PASSWORD '{PASSWORD}'")
        connection.exec_driver_sql("GRANT pg_read_all_data TO looker")
        connection.exec_driver_sql("GRANT CONNECT ON DATABASE perennial TO looker")
    engine.dispose()
    registry = Registry(documented.url("looker", "perennial"))
    registry.audit("delay")
    with pytest.raises(InputError, match=r"permission denied for table routes \(docs/postgresql"):
        registry.record("delay", "refused", version=None, evidence={}, cause="c", **WHO)
    registry.close()
