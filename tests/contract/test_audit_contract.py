"""What is done to the audit behind the registry's back, on every database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from perennial.contracts.refs import BundleRef
from perennial.contracts.rollouts import Plan, Step
from perennial.stores.registry import Registry
from perennial.stores.registry.chain import START, Head

pytest_plugins = ["tests.contract.databases"]

NOW = datetime(2026, 3, 1, 12, 30, 15, 120000, tzinfo=UTC)
WHO: dict[str, Any] = {"actor": "anna", "reason": "better, überall 😀", "now": NOW}
STEP = Step(
    strategy="canary", weight=5, bake_seconds=60, timeout_seconds=86_400, min_requests=10, guards=()
)


@pytest.fixture
def registry(registry_url: str) -> Iterator[Registry]:
    """Seven decisions about ``delay`` and one about ``iris``."""
    registry = Registry(registry_url)
    for model, digest in (("delay", "a"), ("iris", "a"), ("delay", "b")):
        registry.register(
            model, BundleRef(uri=f"/bundles/{digest}", digest=digest), params={}, metrics={},
            judgement={"gain": 0.1 + 0.2, "n": 10**20, "ü": [None, -0.0, 1e-320]}, links={}, **WHO,
        )  # fmt: skip
    registry.promote("delay", 1, expected_generation=0, evidence={}, cause="first", **WHO)
    registry.rollouts.begin("delay", 2, Plan(steps=(STEP,)), cause="begin", **WHO)
    registry.rollouts.command("delay", "promote", **WHO)
    registry.rollback("delay", None, **WHO)
    registry.record(
        "delay", "refused", version=None, digest="c", evidence={}, cause="judged c", **WHO
    )
    yield registry
    registry.close()


def tamper(url: str, *statements: str) -> None:
    """Change tables as somebody would who may do anything to the database."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for table in ("decisions", "versions"):
            if engine.dialect.name == "postgresql":
                connection.exec_driver_sql(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
            else:
                for verb in ("update", "delete"):
                    connection.exec_driver_sql(f"DROP TRIGGER {table}_refuse_{verb}")
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("ALTER TABLE decisions DROP CONSTRAINT version_exists")
            connection.exec_driver_sql("ALTER TABLE routes DROP CONSTRAINT champion_exists")
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def entry(number: int) -> str:
    return f"model = 'delay' AND number = {number}"


def test_what_the_registry_wrote_is_whole_and_ends_where_the_next_begins(
    registry: Registry,
) -> None:
    audit = registry.audit("delay", limit=3)
    assert (audit.faults, audit.kept, audit.head.number) == ((), None, 7)
    assert [one.number for one in audit.last] == [7, 6, 5]
    assert [one.entry for one in audit.last] == registry.decisions("delay", 3)
    assert audit.last[0].seal == audit.head.seal
    kept = registry.heads()
    assert {model: head.number for model, head in kept.items()} == {"delay": 7, "iris": 1}
    assert kept["delay"] == audit.head
    registry.record("delay", "refused", version=None, evidence={}, cause="next", **WHO)
    again = registry.audit("delay", kept=audit.head.seal)
    assert (again.faults, again.kept, again.head.number) == ((), 7, 8)
    assert registry.heads()["iris"] == kept["iris"]
    nothing = registry.audit("never")
    assert (nothing.head, nothing.last, nothing.faults) == (START, (), ())


def test_a_decision_that_was_done_already_adds_no_link(registry: Registry) -> None:
    before = registry.heads()
    registry.promote("delay", 1, expected_generation=0, evidence={}, cause="first", **WHO)
    registry.record("delay", "refused", version=None, evidence={}, cause="judged c", **WHO)
    assert registry.heads() == before


@pytest.mark.parametrize(
    ("statements", "seen"),
    [
        (
            [f"UPDATE decisions SET reason = 'worse' WHERE {entry(4)}"],
            ["entry 4 does not say what was sealed: it was changed"],
        ),
        (
            [f"UPDATE decisions SET actor = 'otto' WHERE {entry(7)}"],
            ["entry 7 does not say what was sealed: it was changed"],
        ),
        (
            [f"UPDATE decisions SET at = '2026-03-01 12:30:15.120001' WHERE {entry(1)}"],
            ["entry 1 does not say what was sealed: it was changed"],
        ),
        (
            [f"UPDATE decisions SET evidence = '{{\"gain\": 0.31}}' WHERE {entry(1)}"],
            ["entry 1 does not say what was sealed: it was changed"],
        ),
        ([f"DELETE FROM decisions WHERE {entry(4)}"], ["entry 4 is missing"]),
        (
            ["DELETE FROM decisions WHERE model = 'delay' AND number IN (4, 5)"],
            ["entries 4 to 5 are missing"],
        ),
        ([f"DELETE FROM decisions WHERE {entry(7)}"], ["entry 7 is missing at the end"]),
        (
            ["DELETE FROM decisions WHERE model = 'delay' AND action = 'refused'"],
            ["entry 7 is missing at the end"],
        ),
        (
            [f"UPDATE decisions SET id = 99 WHERE {entry(2)}"],
            ["entry 2 is missing", "entry 2 stands after entry 7: it was put in or moved"],
        ),
        (
            [
                "INSERT INTO decisions (id, at, model, actor, action, reason, evidence, cause, "
                "number, follows, seal) SELECT 99, at, model, actor, action, reason, evidence, "
                f"'once more', 8, seal, follows FROM decisions WHERE {entry(7)}"
            ],
            [
                "entry 8 does not say what was sealed: it was changed",
                "entry 8 is beyond the head, entry 7",
            ],
        ),
        (
            ["UPDATE routes SET seal = '' WHERE model = 'delay'"],
            ["entry 7 is not the one that the head was taken of"],
        ),
        (
            ["UPDATE routes SET champion = 2 WHERE model = 'delay'"],
            ["the route is not what the audit says: it was changed beside it"],
        ),
        (
            ["UPDATE routes SET generation = 0 WHERE model = 'delay'"],
            ["the route is not what the audit says: it was changed beside it"],
        ),
        (
            ["DELETE FROM routes WHERE model = 'delay'"],
            [
                "entries 1 to 7 are beyond the head, entry 0",
                "the route is not what the audit says: it was changed beside it",
            ],
        ),
        (
            ["UPDATE versions SET digest = 'x' WHERE model = 'delay' AND version = 2"],
            [
                "version 2 is not as the audit registered it",
                "version 2 was registered and is not there so",
            ],
        ),
    ],
    ids=[
        "reason",
        "actor",
        "time",
        "evidence",
        "removed",
        "two removed",
        "last removed",
        "refusal",
        "moved",
        "put in",
        "head",
        "champion",
        "generation",
        "route's row",
        "version",
    ],
)
def test_what_was_done_to_a_row_is_seen_and_its_entry_named(
    registry: Registry, registry_url: str, statements: list[str], seen: list[str]
) -> None:
    tamper(registry_url, *statements)
    assert list(registry.audit("delay").faults) == seen
    assert registry.audit("iris").faults == ()


def test_a_tail_that_was_cut_off_stays_seen_when_more_is_decided(
    registry: Registry, registry_url: str
) -> None:
    tamper(registry_url, f"DELETE FROM decisions WHERE {entry(7)}")
    registry.record("delay", "refused", version=None, evidence={}, cause="next", **WHO)
    assert registry.audit("delay").faults == ("entry 7 is missing",)


def test_a_tail_cut_off_together_with_the_head_is_seen_by_a_head_that_was_kept(
    registry: Registry, registry_url: str
) -> None:
    kept = registry.heads()["delay"].seal
    tamper(
        registry_url,
        f"UPDATE routes SET audited = 6, seal = (SELECT seal FROM decisions WHERE {entry(6)}) "
        "WHERE model = 'delay'",
        f"DELETE FROM decisions WHERE {entry(7)}",
    )
    assert registry.audit("delay").faults == ()
    assert registry.heads()["delay"].number == 6
    assert registry.audit("delay", kept=kept).faults == (
        f"no entry has the seal {kept}: what led to it was rewritten",
    )


def test_a_model_that_was_removed_whole_is_seen_by_a_head_that_was_kept(
    registry: Registry, registry_url: str
) -> None:
    kept = registry.heads()["iris"].seal
    tamper(
        registry_url,
        *(f"DELETE FROM {table} WHERE model = 'iris'" for table in ("decisions", "versions")),
        "DELETE FROM routes WHERE model = 'iris'",
    )
    assert "iris" not in registry.heads()
    assert len(registry.audit("iris", kept=kept).faults) == 1


def test_much_that_is_wrong_is_told_bounded(registry: Registry, registry_url: str) -> None:
    for number in range(30):
        registry.record("iris", "refused", version=None, evidence={}, cause=str(number), **WHO)
    tamper(registry_url, "UPDATE decisions SET actor = 'otto'")
    assert len(registry.audit("iris").faults) == 20


def test_what_can_no_longer_be_read_is_a_fault_and_no_failure(
    registry: Registry, registry_url: str
) -> None:
    if not registry_url.startswith("sqlite"):  # PostgreSQL checks types: only JSON is free
        tamper(registry_url, f"UPDATE decisions SET evidence = '{{\"n\": 1e999}}' WHERE {entry(6)}")
        assert "entry 6 does not say what was sealed: it was changed" in (
            registry.audit("delay").faults
        )
        return
    tamper(
        registry_url,
        f"UPDATE decisions SET evidence = 'no JSON', at = 'never' WHERE {entry(6)}",
        f"UPDATE decisions SET number = 'nine' WHERE {entry(2)}",
        "UPDATE routes SET audited = 'many' WHERE model = 'delay'",
    )
    audit = registry.audit("delay")
    assert audit.head == Head(number=0, seal="")
    assert audit.faults == (
        "entry nine does not say what was sealed: it was changed",
        "entry nine stands after entry 1: it was put in or moved",
        "entry 2 is missing",
        "entry 6 does not say what was sealed: it was changed",
        "entries 1 to 7 are beyond the head, entry 0",
        "the route is not what the audit says: it was changed beside it",
    )
    assert [one.number for one in audit.last] == [7, 5, 4, 3, 1]
