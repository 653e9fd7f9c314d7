"""``perennial serve``: which names it takes. That it answers is in the integration tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from perennial.cli.app import app

DEMAND = """
name: {name}
objective: binary
source: {{kind: csv, uri: data.csv}}
label: {{column: outcome}}
columns: {{weight: {{type: float}}, outcome: {{type: boolean}}}}
split: {{kind: random, validation: 0.2, test: 0.2}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a draft that is no model yet, and two models that are."""
    for folder, text in {
        "demand": DEMAND.format(name="demand"),
        "second": DEMAND.format(name="letters"),
        "draft": "name: draft\n",
    }.items():
        (tmp_path / "models" / folder).mkdir(parents=True)
        (tmp_path / "models" / folder / "model.yaml").write_text(text)
    return tmp_path


class _StartedError(Exception):
    """In the place of the server."""


def serve(monkeypatch: pytest.MonkeyPatch, project: Path, *names: str) -> str:
    """What is said to who serves these names; "" when the server is started."""

    def started(*_: object) -> None:
        raise _StartedError

    monkeypatch.setattr(os, "execv", started)
    done = CliRunner().invoke(app, ["--project", str(project), "serve", *names])
    return "" if isinstance(done.exception, _StartedError) else str(done.exception)


@pytest.mark.parametrize("names", [[], ["demand"], ["letters"], ["demand", "letters"]])
def test_a_draft_that_is_not_served_keeps_no_server_from_starting(
    monkeypatch: pytest.MonkeyPatch, project: Path, names: list[str]
) -> None:
    assert serve(monkeypatch, project, *names) == ""


def test_names_are_checked_each_by_itself(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    models = project / "models"
    required = [
        f"{models}/draft/model.yaml, {key}: this key is required"
        for key in ("objective", "source", "label", "columns")
    ]

    assert serve(monkeypatch, project, "demand", "draft").splitlines() == required
    assert serve(monkeypatch, project, "demand", "lettrs").splitlines() == [
        f"{models}: no model 'lettrs'; did you mean 'letters'? (models here: demand, letters)",
        *required,  # it may be this one
    ]


def test_a_name_that_two_models_have_is_refused_where_their_folders_leave_it_open(
    monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    models = project / "models"
    (models / "draft" / "model.yaml").write_text(DEMAND.format(name="letters"))

    assert serve(monkeypatch, project, "demand") == ""
    assert serve(monkeypatch, project, "letters").splitlines() == [
        f"{models}: no model 'letters' (models here: demand)",
        f"{models}/second/model.yaml, name: the name 'letters' is also that of "
        f"{models}/draft/model.yaml (give each model its own name)",
    ]
