"""A long history costs no more questions, and each finds its rows by an index."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from benchmarks.registry import QUESTIONS, Question, fill, scanned, statements
from perennial.cli.reading import statuses
from perennial.stores.registry import Registry, Standing

pytest_plugins = ["tests.contract.databases"]

OF_A_MODEL = [q for q in QUESTIONS if q.what not in ("all models", "heads of all")]


@pytest.fixture
def registry(registry_url: str) -> Iterator[Registry]:
    """Five models with a few versions, and one with three hundred."""
    fill(registry_url, 5, 24, "few")
    fill(registry_url, 1, 300, "many", first=1000)
    registry = Registry(registry_url)
    yield registry
    registry.close()


def sent(registry: Registry, question: Question, model: str) -> list[str]:
    with statements(registry) as found:
        question.ask(registry, model)
    assert scanned(registry, found, forced=True) == set(), question
    return [text for text, _ in found]


def test_every_question_is_as_many_statements_whatever_the_history_and_reads_no_table_whole(
    registry: Registry,
) -> None:
    for model in ("few-000", "many-000"):
        assert registry.audit(model).faults == ()
    assert registry.count("many-000") == 300
    counts = {}
    for question in OF_A_MODEL:
        few = sent(registry, question, "few-000")
        many = sent(registry, question, "many-000")
        assert len(many) == len(few), question
        counts[question.who, question.what] = len(many)
    assert counts["serving, each second", "routes"] == 1
    assert counts["serving, every 5 s", "decisions, rollouts"] == 3


def test_the_newest_decisions_are_those_of_the_models_asked_for_newest_first(
    registry: Registry,
) -> None:
    found = registry.newest_decisions(["few-001", "many-000"], 4)
    assert found == registry.decisions("many-000", 4)
    few = registry.newest_decisions(["few-001", "few-002"], 20)
    own = [*registry.decisions("few-001"), *registry.decisions("few-002")]
    assert few == sorted(own, key=lambda entry: -entry.id)
    assert registry.newest_decisions([], 20) == []
    assert registry.newest_decisions(["never"], 20) == []


def test_the_rollouts_of_all_models_that_have_not_ended_are_one_question(
    registry: Registry,
) -> None:
    running = registry.rollouts.running()
    assert [r.model for r in running] == [*(f"few-00{i}" for i in range(5)), "many-000"]
    assert running[-1] == registry.rollouts.active("many-000")
    registry.rollouts.command(
        "few-000", "abort", actor="anna", reason="", now=running[0].started_at
    )
    assert [r.model for r in registry.rollouts.running()][:2] == ["few-001", "few-002"]


def test_how_all_models_stand_is_as_many_statements_as_how_one_does_and_the_same(
    registry: Registry,
) -> None:
    who: dict[str, Any] = {"actor": "anna", "now": datetime.now(UTC)}
    for model, action in (("few-000", "abort"), ("few-001", "promote")):
        registry.rollouts.command(model, action, reason="", **who)
    version = registry.version("many-000", 7).ref
    registry.record(
        "many-000", "quarantined", version=version, reason="slow", evidence={}, cause="x", **who
    )
    names = ["never", *registry.models()]
    counts = set()
    for models in ([], ["many-000"], names):
        with statements(registry) as found:
            stand = registry.standings(models, 5)
        assert scanned(registry, found, forced=True) == set()
        assert list(stand) == models
        counts.add(len(found))
    assert counts == {8}
    for model in names:
        route = registry.route(model)
        assert stand[model] == Standing(
            route=route,
            champion=registry.version(model, route.champion) if route.champion else None,
            rollout=registry.rollouts.active(model),
            quarantined=registry.quarantined(model),
            versions=registry.count(model),
            decisions=tuple(registry.decisions(model, 10)),
            retrainings=tuple(registry.retrainings.last(model, 5)),
        )
    assert stand["many-000"].quarantined == {7: "slow"}
    assert stand["few-000"].rollout is None
    assert len(stand["few-000"].retrainings) == 5
    assert stand["never"].champion is None
    with statements(registry) as found:
        status = statuses(registry, names, 2)
    assert len(found) == 8
    assert [len(each["decisions"]) for each in status] == [0, *[2] * 6]


def test_as_many_of_the_newest_versions_as_are_asked_for(registry: Registry) -> None:
    assert [v.ref.version for v in registry.versions("many-000", 3)] == [300, 299, 298]
    assert len(registry.versions("many-000")) == 300
    assert registry.count("never") == 0
    assert len(registry.best_params("many-000", 5)) == 5
