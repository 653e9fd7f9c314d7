"""``perennial audit`` as a person or a program calls it."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from perennial.cli.app import app
from perennial.contracts.errors import InputError
from perennial.contracts.refs import BundleRef
from perennial.stores.project import Project
from perennial.stores.registry import Registry


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with three decisions about one model and one about another."""
    (tmp_path / "models").mkdir()
    registry = Registry(Project(tmp_path).registry_url)
    now = datetime(2026, 3, 1, 6, tzinfo=UTC)
    for number, digest in enumerate("ab"):
        registry.register(
            "delay", BundleRef(uri=f"/{digest}", digest=digest), params={}, metrics={},
            judgement={}, links={}, actor="run 7", reason="passed [all]", now=now,
        )  # fmt: skip
        if number == 0:
            registry.promote(
                "delay", 1, expected_generation=0, actor="anna", reason="the first", evidence={},
                cause="first", now=now,
            )  # fmt: skip
    registry.record(
        "iris", "refused", version=None, actor="run 8", reason="too weak", evidence={"n": 3},
        cause="judged", now=now,
    )  # fmt: skip
    registry.close()
    return tmp_path


def run(project: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--project", str(project), "audit", *arguments])


def head(project: Path, model: str = "delay") -> str:
    registry = Registry(Project(project).registry_url)
    found = registry.heads()[model].seal
    registry.close()
    return found


def execute(project: Path, *statements: str) -> None:
    with sqlite3.connect(project / ".perennial" / "registry.db") as connection:
        for statement in ("DROP TRIGGER decisions_refuse_update", *statements):
            connection.execute(statement)
    connection.close()


def test_all_chains_are_listed_with_the_heads_to_keep(project: Path) -> None:
    done = run(project)
    assert (done.exit_code, [line.split() for line in done.stdout.splitlines()]) == (
        0,
        [
            ["model", "entries", "head"],
            ["delay", "3", "whole", head(project)],
            ["iris", "1", "whole", head(project, "iris")],
        ],
    )


def test_a_models_entries_are_told_newest_first_with_their_seals(project: Path) -> None:
    done = run(project, "delay", "--limit", "2")
    lines = done.stdout.splitlines()
    seal = head(project)
    assert done.exit_code == 0
    assert lines[0] == "delay: 3 entries, whole"
    assert lines[1] == (
        f"     3  {seal[:12]}  2026-03-01 06:00  run 7  registered v2: passed [all]"
    )
    assert lines[2].endswith("  2026-03-01 06:00  anna  promoted v1: the first")
    assert lines[3:] == [f"head  {seal}"]


def test_what_is_no_number_any_more_is_told_as_it_is(project: Path) -> None:
    execute(project, "UPDATE decisions SET number = '[/b]' WHERE model = 'delay' AND number = 2")
    done = run(project)
    assert (done.exit_code, done.exception.__class__) == (1, SystemExit)
    assert "entry [/b] does not say what was sealed: it was changed" in done.stdout


def test_a_changed_entry_ends_with_1_and_is_named(project: Path) -> None:
    execute(project, "UPDATE decisions SET reason = 'best' WHERE model = 'delay' AND number = 2")
    done = run(project, "delay", "--limit", "0")
    assert (done.exit_code, done.stdout.splitlines()) == (
        1,
        [
            "delay: 3 entries, NOT as it was written",
            "  ! entry 2 does not say what was sealed: it was changed",
            f"head  {head(project)}",
        ],
    )
    everything = run(project)
    assert everything.exit_code == 1
    assert "entry 2 does not say" in everything.stdout


def test_json_tells_all_of_an_entry(project: Path) -> None:
    values = json.loads(run(project, "iris", "--json").stdout)
    assert (values["whole"], values["faults"], values["kept"]) == (True, [], None)
    assert values["head"] == {"number": 1, "seal": head(project, "iris")}
    (entry,) = values["entries"]
    assert (entry["number"], entry["action"], entry["evidence"]) == (1, "refused", {"n": 3})
    assert [value["model"] for value in json.loads(run(project, "--json").stdout)] == [
        "delay", "iris",
    ]  # fmt: skip


def test_a_head_that_was_kept_is_found_in_the_chain_or_the_chain_was_rewritten(
    project: Path,
) -> None:
    kept = head(project)
    found = run(project, "delay", "--head", kept, "--limit", "0")
    assert found.exit_code == 0
    assert "  the head that was kept is entry 3 of 3" in found.stdout.splitlines()
    other = run(project, "delay", "--head", head(project, "iris"))
    assert other.exit_code == 1
    assert "what led to it was rewritten" in other.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["delay", "--head", "abc"], "--head: 'abc' is not 64 hexadecimal digits"),
        (["--head", "0" * 64], "--head: a head is that of one model (name the model)"),
        (
            ["dela"],
            "registry: nothing was ever decided about 'dela'; did you mean 'delay'? "
            "(perennial status lists the models)",
        ),
    ],
)
def test_what_can_not_be_asked_is_refused(
    project: Path, arguments: list[str], message: str
) -> None:
    done = run(project, *arguments)
    assert isinstance(done.exception, InputError)
    assert str(done.exception) == message


def test_a_registry_without_decisions_says_so(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    assert run(tmp_path).stdout == "nothing was ever decided\n"
