"""What is published of the schema: the JSON Schema for editors, and the generated pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from docs.generate import ROOT, main, stale
from perennial.spec import parse_spec
from perennial.spec.documents import read_document
from perennial.spec.publish import json_schema
from perennial.spec.reference import EXAMPLE, reference_page
from perennial.spec.schema import ModelSpec

MODELS = sorted((ROOT / "models").glob("*/model.yaml"))


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_the_models_of_this_project_are_valid_for_editors(validator: Draft202012Validator) -> None:
    assert len(MODELS) >= 3
    for path in MODELS:
        document = read_document(path.read_text(encoding="utf-8"), str(path))
        assert [f"{path}: {error.message}" for error in validator.iter_errors(document)] == []


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"nme": "m"}, ""),
        ({"name": "Flight"}, "name"),
        ({"name": ...}, ""),
        ({"format": 2}, "format"),
        ({"objective": "ranking"}, "objective"),
        ({"source.kind": "xml"}, "source.kind"),
        ({"source.delimiter": ";;"}, "source.delimiter"),
        ({"source.entity": "id"}, "source.entity"),
        ({"label.delay": 2}, "label.delay"),
        ({"label.delay": "2 days"}, "label.delay"),
        ({"columns": {}}, "columns"),
        ({"columns.amount.typ": "float"}, "columns.amount"),
        ({"columns.amount.type": "number"}, "columns.amount.type"),
        ({"columns.country.allowed": [0.5]}, "columns.country.allowed"),
        ({"split.validation": 1.5}, "split.validation"),
        ({"split.seed": -1}, "split.seed"),
        ({"training.device": "gpu"}, "training.device"),
        ({"training.rounds": 0}, "training.rounds"),
        ({"training.params": {"eta": 0.1}}, "training.params"),
        ({"training.params": {"max_depth": 1.5}}, "training.params.max_depth"),
        ({"training.params": {"tree_method": "hist"}}, "training.params"),
        ({"training.params": {"grow_policy": "wide"}}, "training.params.grow_policy"),
        ({"training.params": {"subsample": 0}}, "training.params.subsample"),
        ({"tuning.metric": "auc"}, "tuning.metric"),
        ({"tuning.space": {"max_dept": [3, 8]}}, "tuning.space"),
        ({"tuning.space": {"gamma": [3]}}, "tuning.space.gamma"),
        ({"tuning.space": {"gamma": {"low": 1}}}, "tuning.space.gamma"),
        ({"gates": [{"metric": "auc", "min": 0.5}]}, "gates.0"),
        ({"gates": [{"metric": "roc_auc", "p99_ms": 5}]}, "gates.0"),
        ({"gates": [{"slices": [], "metric": "logloss", "max_regression": 0}]}, "gates.0"),
        ({"drift.false_alarm_rate": 1}, "drift.false_alarm_rate"),
        ({"retrain.on": ["weather"]}, "retrain.on.0"),
        ({"rollout.guards": {"errors": 1}}, "rollout.guards"),
    ],
)
def test_an_editor_marks_a_mistake_where_it_is(
    document: Any, validator: Draft202012Validator, changes: dict[str, Any], place: str
) -> None:
    assert list(validator.iter_errors(document({}))) == []
    errors = list(validator.iter_errors(document(changes)))
    assert [".".join(map(str, error.absolute_path)) for error in errors] == [place]


def test_every_key_has_a_description(validator: Draft202012Validator) -> None:
    def undescribed(name: str, section: dict[str, Any]) -> list[str]:
        return [
            f"{name}.{key}"
            for key, node in section.get("properties", {}).items()
            if "description" not in node and "$ref" not in node
        ]

    schema: Any = validator.schema
    sections = {"model": schema, **schema["$defs"]}
    assert all(section["description"] for section in sections.values())
    assert [key for name, s in sections.items() for key in undescribed(name, s)] == []


def test_defaults_are_written_as_a_user_would_write_them() -> None:
    sections = json_schema()["$defs"]
    assert sections["Source"]["properties"]["lateness"]["default"] == "30d"
    assert sections["Split"]["properties"]["validation"]["default"] == "2w"
    assert sections["Tuning"]["properties"]["timeout"]["default"] == "30m"
    assert "default" not in sections["Column"]["properties"]["min"]


def test_the_page_shows_every_key_and_an_example_that_loads() -> None:
    page = reference_page()
    assert parse_spec(EXAMPLE).name == "late-payment"
    assert EXAMPLE in page
    for key in (*ModelSpec.model_fields, "max_share", "max_regression", "p99_ms", "log", "window"):
        assert f"\n| `{key}` | " in page


def test_the_generated_pages_are_those_the_code_would_write_now() -> None:
    assert stale() == [], "run: python -m docs.generate"


def test_a_stale_page_is_named_by_check_and_written_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("docs.generate.ROOT", tmp_path)
    monkeypatch.setattr("docs.generate.PAGES", {"a/page.md": lambda: "text\n"})
    assert main(["--check"]) == 1
    assert capsys.readouterr().out == "stale: a/page.md\n"
    assert not (tmp_path / "a").exists()
    assert main([]) == 0
    assert capsys.readouterr().out == "written: a/page.md\n"
    assert main(["--check"]) == 0
    (tmp_path / "a" / "page.md").write_text("edited\n")
    assert main(["--check"]) == 1
