"""What a study's name depends on: another name is another study."""

from __future__ import annotations

import pytest

from perennial.contracts.refs import FeaturesRef
from perennial.stores.project import Project
from tasks import tuning
from tests.workplace import Workplace

FEATURES = FeaturesRef(uri="/features", digest="a", rows={"train": 1}, features=1)


def _name(project: Workplace, features: FeaturesRef = FEATURES) -> str:
    _, spec = Project(project.root).load_model("demand")
    return tuning._study_name(spec, features)


def test_a_study_is_named_by_what_it_searches_on(project: Workplace) -> None:
    before = _name(project)
    assert before.startswith("demand-")
    project.edit("min: 0.6", "min: 0.7")
    assert _name(project) == before
    assert _name(project, FEATURES.model_copy(update={"digest": "b"})) != before
    project.edit("rounds: 60", "rounds: 61")
    assert _name(project) != before


@pytest.mark.parametrize("library", ["xgboost", "optuna", "numpy", "scipy"])
def test_another_library_version_searches_anew(
    project: Workplace, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    before = _name(project)
    upgraded = {library: "99"}
    monkeypatch.setattr("tasks._caching.version", lambda name: upgraded.get(name, "1"))
    after = _name(project)
    monkeypatch.setattr("tasks._caching.version", lambda _: "1")
    assert len({before, after, _name(project)}) == 3
