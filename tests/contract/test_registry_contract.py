"""What every database behind the registry must do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from perennial.contracts.errors import InputError, IntegrityError
from perennial.contracts.refs import BundleRef, VersionRef
from perennial.stores.registry import Arm, Registry, Route, StaleRouteError
from perennial.stores.registry.schema import REVISION_TABLE, metadata

pytest_plugins = ["tests.contract.databases"]

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
JUDGEMENT = {"outcome": "passed", "reason": "all 3 gates passed", "verdicts": []}


@pytest.fixture
def registry(registry_url: str) -> Any:
    registry = Registry(registry_url)
    yield registry
    registry.close()


def register(registry: Registry, digest: str, model: str = "delay", **changes: Any) -> VersionRef:
    values: dict[str, Any] = {
        "params": {"max_depth": 6, "learning_rate": 0.1},
        "metrics": {"roc_auc": 0.74, "brier": None},
        "judgement": JUDGEMENT,
        "links": {"prefect_run": "8f0c", "study": "delay-2026-03"},
        "actor": "continuous-training",
        "reason": "passed every gate",
        "now": NOW,
    } | changes
    bundle = BundleRef(uri=f"/bundles/{model}/{digest}", digest=digest)
    return registry.register(model, bundle, **values)


def promote(registry: Registry, version: int, generation: int, cause: str, **changes: Any) -> Route:
    values: dict[str, Any] = {
        "actor": "anna",
        "reason": "beats version 1 by 0.012",
        "evidence": {"gain": 0.012, "low": 0.004},
        "now": NOW,
    } | changes
    return registry.promote("delay", version, expected_generation=generation, cause=cause, **values)


def record(registry: Registry, cause: str, **changes: Any) -> Any:
    values: dict[str, Any] = {
        "action": "kept champion",
        "version": None,
        "digest": "d9",
        "actor": "continuous-training",
        "reason": "roc_auc 0.61 is below 0.65",
        "evidence": JUDGEMENT,
        "now": NOW,
    } | changes
    return registry.record("delay", cause=cause, **values)


def test_versions_count_from_one_within_their_model(registry: Registry) -> None:
    refs = [register(registry, "a"), register(registry, "b"), register(registry, "c", "iris")]
    assert [(ref.model, ref.version) for ref in refs] == [("delay", 1), ("delay", 2), ("iris", 1)]
    assert [version.ref for version in registry.versions("delay")] == [refs[1], refs[0]]
    assert registry.models() == ["delay", "iris"]


def test_a_version_comes_back_as_it_was_registered(registry: Registry) -> None:
    ref = register(registry, "a", now=datetime(2026, 3, 1, 14, tzinfo=timezone(timedelta(hours=2))))
    version = registry.version("delay", 1)
    assert (
        version.ref
        == ref
        == VersionRef(model="delay", version=1, digest="a", uri="/bundles/delay/a")
    )
    assert version.created_at == NOW
    assert version.created_at.tzinfo is UTC
    assert version.params == {"max_depth": 6, "learning_rate": 0.1}
    assert version.metrics == {"roc_auc": 0.74, "brier": None}
    assert version.judgement == JUDGEMENT
    assert version.links == {"prefect_run": "8f0c", "study": "delay-2026-03"}


def test_the_same_digest_again_is_the_same_version_and_writes_nothing(registry: Registry) -> None:
    first = register(registry, "a")
    again = register(registry, "a", reason="another run made it too", links={})
    assert again == first
    assert len(registry.versions("delay")) == 1
    assert [entry.reason for entry in registry.decisions("delay")] == ["passed every gate"]


def test_the_decision_that_replaced_a_champion_is_the_last_one(registry: Registry) -> None:
    for digest in "abc":
        register(registry, digest)
    assert registry.replaced("delay", 1) is None
    promote(registry, 1, 0, "one")
    promote(registry, 2, 1, "two")
    assert registry.replaced("delay", 2) is None
    replaced = registry.replaced("delay", 1)
    assert replaced is not None
    assert (replaced.action, replaced.version) == ("promoted", 2)
    registry.rollback("delay", None, actor="anna", reason="bad", now=NOW)
    record(registry, "after it")
    back = registry.replaced("delay", 2)
    assert back is not None
    assert (back.action, back.reason) == ("rolled back", "back to version 1: bad")
    assert [registry.replaced("delay", version) for version in (1, 3)] == [None, None]


def test_a_registration_is_in_the_audit(registry: Registry) -> None:
    register(registry, "a")
    (entry,) = registry.decisions("delay")
    assert (entry.action, entry.version, entry.digest) == ("registered", 1, "a")
    assert (entry.actor, entry.at, entry.generation) == ("continuous-training", NOW, None)
    assert entry.evidence == JUDGEMENT


def test_a_model_nobody_decided_about_has_no_champion_and_an_empty_route(
    registry: Registry,
) -> None:
    empty = Route(model="delay", champion=None, arms=(), shadow=(), generation=0, updated_at=None)
    assert registry.route("delay") == empty
    assert registry.champion("delay") is None
    assert registry.versions("delay") == []
    assert registry.models() == []
    register(registry, "a")
    assert registry.route("delay") == empty
    assert registry.champion("delay") is None


def test_promotion_changes_champion_route_and_audit_together(registry: Registry) -> None:
    register(registry, "a")
    second = register(registry, "b")
    promote(registry, 1, 0, "run 1")
    route = promote(registry, 2, 1, "run 2", now=NOW + timedelta(hours=1))
    assert route == registry.route("delay")
    assert route == Route(
        model="delay",
        champion=2,
        arms=(Arm(version=2, weight=100),),
        shadow=(),
        generation=2,
        updated_at=NOW + timedelta(hours=1),
    )
    assert registry.champion("delay") == second
    entry = registry.decisions("delay")[0]
    assert (entry.action, entry.version, entry.digest) == ("promoted", 2, "b")
    assert (entry.generation, entry.cause, entry.actor) == (2, "run 2", "anna")
    assert entry.evidence == {
        "gain": 0.012,
        "low": 0.004,
        "route": {"champion": 2, "arms": [{"version": 2, "weight": 100}], "shadow": []},
    }


def test_a_promotion_decided_on_an_old_route_is_refused_and_leaves_no_trace(
    registry: Registry,
) -> None:
    register(registry, "a")
    register(registry, "b")
    promote(registry, 1, 0, "run 1")
    before = registry.route("delay"), registry.decisions("delay")
    with pytest.raises(StaleRouteError) as refused:
        promote(registry, 2, 0, "run 2")
    assert str(refused.value) == (
        "the route of 'delay' was at generation 0 when this was decided and is at 1 now "
        "(champion: 1); decide anew on the present route"
    )
    assert (registry.route("delay"), registry.decisions("delay")) == before


def test_a_promotion_repeated_after_a_crash_happens_once(registry: Registry) -> None:
    register(registry, "a")
    first = promote(registry, 1, 0, "run 1")
    again = promote(registry, 1, 0, "run 1", now=NOW + timedelta(days=1))
    assert again == first == registry.route("delay")
    assert [entry.action for entry in registry.decisions("delay")] == ["promoted", "registered"]


def test_an_unknown_version_names_the_known_ones(registry: Registry) -> None:
    with pytest.raises(InputError) as unknown:
        registry.version("delay", 3)
    assert str(unknown.value) == "registry: 'delay' has no version 3 (it has no version yet)"
    register(registry, "a")
    register(registry, "b")
    with pytest.raises(InputError) as unknown:
        promote(registry, 3, 0, "run 1")
    assert str(unknown.value) == "registry: 'delay' has no version 3 (its versions are 1 to 2)"
    assert registry.route("delay").generation == 0


def test_a_refused_candidate_is_in_the_audit_without_a_version(registry: Registry) -> None:
    entry = record(registry, "run 1")
    assert registry.decisions("delay") == [entry]
    assert (entry.version, entry.digest, entry.reason) == (None, "d9", "roc_auc 0.61 is below 0.65")
    assert registry.models() == ["delay"]


def test_the_same_cause_is_recorded_once_a_model(registry: Registry) -> None:
    first = record(registry, "run 1")
    assert record(registry, "run 1", reason="said again") == first
    assert (
        registry.record(
            "iris",
            "refused",
            version=None,
            actor="a",
            reason="r",
            evidence={},
            cause="run 1",
            now=NOW,
        ).id
        != first.id
    )
    assert len(registry.decisions("delay")) == 1


def test_decisions_come_newest_first_and_bounded(registry: Registry) -> None:
    for i in range(5):
        # A clock that runs backwards does not change the order of what happened.
        record(registry, f"run {i}", now=NOW - timedelta(minutes=i))
    assert [e.cause for e in registry.decisions("delay", limit=2)] == ["run 4", "run 3"]


def test_warm_starts_get_the_newest_parameters_each_once(registry: Registry) -> None:
    for digest, depth in (("a", 4), ("b", 6), ("c", 8), ("d", 6)):
        register(registry, digest, params={"max_depth": depth})
    assert registry.best_params("delay", 2) == [{"max_depth": 6}, {"max_depth": 8}]
    assert registry.best_params("delay", 0) == []
    assert registry.best_params("iris", 3) == []


def test_a_time_without_zone_is_refused(registry: Registry) -> None:
    with pytest.raises(sa.exc.StatementError, match="has no time zone"):
        register(registry, "a", now=datetime(2026, 3, 1))
    assert registry.models() == []


@pytest.mark.parametrize("table", ["versions", "decisions"])
@pytest.mark.parametrize(
    "change", ["UPDATE {} SET digest = 'x'", "DELETE FROM {}"], ids=["update", "delete"]
)
def test_the_database_itself_refuses_to_rewrite_history(
    registry: Registry, registry_url: str, table: str, change: str
) -> None:
    register(registry, "a")
    engine = sa.create_engine(registry_url)
    with pytest.raises(DBAPIError, match=f"{table} is append-only"), engine.begin() as connection:
        connection.exec_driver_sql(change.format(table))
    engine.dispose()
    assert registry.version("delay", 1).ref.digest == "a"
    assert len(registry.decisions("delay")) == 1


def test_history_stays_when_the_registry_is_opened_again(
    registry: Registry, registry_url: str
) -> None:
    register(registry, "a")
    promote(registry, 1, 0, "run 1")
    other = Registry(registry_url)
    assert other.champion("delay") == registry.champion("delay")
    assert other.decisions("delay") == registry.decisions("delay")
    other.close()


def test_the_migrations_make_the_tables_the_code_expects(
    registry: Registry, registry_url: str
) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    engine = sa.create_engine(registry_url)
    with engine.connect() as connection:
        options = {"compare_type": True, "version_table": REVISION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_a_registry_of_a_newer_perennial_is_refused(registry: Registry, registry_url: str) -> None:
    register(registry, "a")
    engine = sa.create_engine(registry_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {REVISION_TABLE} SET version_num = '0999'")
    with pytest.raises(IntegrityError) as newer:
        Registry(registry_url)
    shown = sa.make_url(registry_url).render_as_string()
    assert str(newer.value) == (
        f"registry {shown}: its schema 0999 is newer than this Perennial knows (0005) "
        "(upgrade perennial)"
    )
    engine.dispose()


def change(registry: Registry, arms: tuple[Arm, ...], generation: int, **changes: Any) -> Route:
    values: dict[str, Any] = {
        "champion": 1, "shadow": (), "action": "route changed", "version": 2, "actor": "rollout",
        "reason": "5 % to version 2", "evidence": {}, "cause": f"step {generation}", "now": NOW,
    } | changes  # fmt: skip
    return registry.change_route("delay", arms=arms, expected_generation=generation, **values)


def test_a_route_may_share_requests_and_cast_a_shadow(registry: Registry) -> None:
    for digest in ("d1", "d2", "d3"):
        register(registry, digest)
    promote(registry, 1, 0, "first")
    arms = (Arm(version=1, weight=95), Arm(version=2, weight=5))
    changed = change(registry, arms, 1, shadow=(3,))
    assert (changed.champion, changed.arms, changed.shadow) == (1, arms, (3,))
    assert registry.route("delay") == changed
    assert registry.routes() == [changed]
    newest = registry.decisions("delay")[0]
    assert (newest.action, newest.version, newest.generation) == ("route changed", 2, 2)
    assert change(registry, arms, 1, shadow=(3,)) == changed  # the same cause, done once
    with pytest.raises(StaleRouteError, match="generation 1 when this was"):
        change(registry, arms, 1, cause="another")


@pytest.mark.parametrize(
    ("weights", "shadow", "champion", "what"),
    [
        ({1: 95, 2: 6}, (), 1, "don't sum to 100"),
        ({1: 110, 2: -10}, (), 1, "don't sum to 100"),
        ({1: 95, 2: 5}, (2,), 1, "two places"),
        ({2: 100}, (), 1, "is no arm"),
    ],
)
def test_an_impossible_route_is_refused_and_nothing_is_written(
    registry: Registry, weights: dict[int, int], shadow: tuple[int, ...], champion: int, what: str
) -> None:
    register(registry, "d1")
    register(registry, "d2")
    before = promote(registry, 1, 0, "first")
    arms = tuple(Arm(version=version, weight=weight) for version, weight in weights.items())
    with pytest.raises(ValueError, match=what):
        change(registry, arms, 1, shadow=shadow, champion=champion)
    with pytest.raises(InputError, match="has no version 9"):
        change(registry, (Arm(version=1, weight=99), Arm(version=9, weight=1)), 1)
    assert registry.route("delay") == before
    assert len(registry.decisions("delay")) == 3
