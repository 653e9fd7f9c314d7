"""The OpenAPI document and its page, of a model that is loaded as the server loads it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from perennial.bundle.write import write_bundle
from perennial.contracts.refs import VersionRef
from perennial.contracts.routes import Arm, Route
from perennial.serving.models import LiveModel, load
from perennial.serving.openapi import docs_page, openapi_document
from perennial.stores.project import Project
from perennial.stores.registry import Version
from tests.unit.bundle.conftest import make

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ROW = {
    "sent": "2026-03-01T06:00:00Z", "weight_kg": 1.5, "items": 2, "insured": None, "depot": "x",
}  # fmt: skip


@dataclass(frozen=True)
class Described:
    objective: str
    document: dict[str, Any]

    def accepts(self, schema: str, value: object) -> bool:
        root = {"$ref": f"#/components/schemas/{schema}", "components": self.document["components"]}
        return bool(jsonschema.Draft202012Validator(root).is_valid(value))


def _model(folder: Path, objective: str) -> LiveModel:
    ref = write_bundle(folder, make(objective).content)
    version = Version(
        ref=VersionRef(model="parcels", version=3, digest=ref.digest, uri=ref.uri),
        created_at=NOW, params={}, metrics={}, judgement={}, links={},
    )  # fmt: skip
    route = Route(
        model="parcels", champion=3, arms=(Arm(version=3, weight=100),), shadow=(), generation=1,
        updated_at=NOW,
    )  # fmt: skip
    model = LiveModel("parcels")
    model.adopt(route, {3: load(version, Project(folder))})
    return model


@pytest.fixture(scope="module", params=["binary", "multiclass", "regression"])
def described(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Described:
    model = _model(tmp_path_factory.mktemp("bundles"), request.param)
    models = {"parcels": model, "not-ready": LiveModel("not-ready")}
    return Described(request.param, openapi_document(models, secured=True, max_rows=100))


def test_every_reference_leads_somewhere(described: Described) -> None:
    def refs(value: object) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"]} if "$ref" in value else set()
            return own.union(*(refs(part) for part in value.values()))
        if isinstance(value, list):
            return set().union(*(refs(part) for part in value))
        return set()

    names = {ref.removeprefix("#/components/schemas/") for ref in refs(described.document)}

    assert names <= described.document["components"]["schemas"].keys()
    assert {"parcels.row", "parcels.label", "parcels.prediction", "Error", "Infer"} <= names


def test_a_row_has_the_models_columns_in_their_types(described: Described) -> None:
    assert described.accepts("parcels.row", ROW)
    for wrong in (
        {"weight_kg": "1.5"}, {"weight_kg": 1e300}, {"items": None}, {"items": 1.5},
        {"items": 2**63}, {"insured": 1}, {"depot": 7}, {"outcome": 1}, {"colour": "red"},
    ):  # fmt: skip
        assert not described.accepts("parcels.row", ROW | wrong), wrong
    for name in ROW:
        assert not described.accepts("parcels.row", {n: v for n, v in ROW.items() if n != name})


def test_levels_are_examples_for_others_are_predicted_as_missing(described: Described) -> None:
    depot = described.document["components"]["schemas"]["parcels.row"]["properties"]["depot"]

    assert depot["examples"] == ["north", "south", "west"]
    assert depot["description"] == (
        "Training saw these; any other value is predicted as a missing one."
    )


def test_a_prediction_is_what_the_objective_gives(described: Described) -> None:
    known = {"id": "1", "version": 3, "arm": "champion"}
    right = {
        "binary": {"probability": 0.5},
        "multiclass": {"class": "b", "probabilities": {"a": 0.2, "b": 0.5, "c": 0.3}},
        "regression": {"value": -3.5},
    }

    for objective, values in right.items():
        fits = described.accepts("parcels.prediction", known | values)
        assert fits == (objective == described.objective)


def test_a_prediction_may_be_of_a_class_that_only_a_challenger_knows(tmp_path: Path) -> None:
    model = _model(tmp_path, "multiclass")
    champion = model.loaded[3]
    newer = replace(
        champion, schema=champion.schema.model_copy(update={"classes": ("b", "c", "d")})
    )
    arms = (Arm(version=3, weight=90), Arm(version=4, weight=10))
    model.adopt(model.route.model_copy(update={"arms": arms}), {3: champion, 4: newer})
    document = openapi_document({"parcels": model}, secured=False, max_rows=100)
    described = Described("multiclass", document)
    known = {"id": "1", "version": 4, "arm": "challenger"}

    new = {"class": "d", "probabilities": {"b": 0.1, "c": 0.2, "d": 0.7}}
    assert described.accepts("parcels.prediction", known | new)
    old = {"class": "a", "probabilities": {"a": 0.7, "b": 0.1, "c": 0.2}}
    assert described.accepts("parcels.prediction", known | old)
    assert not described.accepts("parcels.prediction", known | new | {"class": "e"})
    assert not described.accepts("parcels.prediction", known | {**new, "probabilities": {"d": 1}})


def test_a_label_says_what_it_is_of(described: Described) -> None:
    label = {"binary": "true", "multiclass": "a", "regression": 1.5}[described.objective]

    assert described.accepts("parcels.label", {"label": label, "prediction_id": "1"})
    alone = {"sent": "2026-03-01T06:00:00Z"}  # of which of its moment's rows?
    for wrong in ({}, {"prediction_id": None}, alone, {"prediction_id": "1", "more": 1}):
        assert not described.accepts("parcels.label", {"label": label, **wrong}), wrong
    assert not described.accepts("parcels.label", {"label": [], "prediction_id": "1"})


def test_a_label_may_bring_further_numbers(described: Described) -> None:
    label = {"binary": "true", "multiclass": "a", "regression": 1.5}[described.objective]
    known = {"label": label, "prediction_id": "1"}

    for right in ({"revenue": 12.5, "visits": None}, {}, None):
        assert described.accepts("parcels.label", {**known, "metrics": right}), right
    for wrong in ({"Revenue": 1}, {"revenue": "12"}, [12.5], {f"m{i}": 1 for i in range(21)}):
        assert not described.accepts("parcels.label", {**known, "metrics": wrong}), wrong


def test_a_model_without_a_version_is_left_out(described: Described) -> None:
    assert not [path for path in described.document["paths"] if "not-ready" in path]


def test_tokens_are_asked_for_everywhere_but_for_health(described: Described) -> None:
    assert described.document["security"] == [{"token": []}]
    open_paths = [
        path
        for path, methods in described.document["paths"].items()
        if any(operation.get("security") == [] for operation in methods.values())
    ]
    assert open_paths == ["/v2/health/live", "/v2/health/ready"]
    assert "security" not in openapi_document({}, secured=False, max_rows=1)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.fetched: list[str | None] = []
        self.ids: set[str | None] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.ids |= {value for name, value in attrs if name == "id"}
        self.fetched += [v for name, v in attrs if name in ("src", "href", "action")]
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_shows_every_path_and_needs_nothing_from_elsewhere(described: Described) -> None:
    page = docs_page(described.document)
    tags = _Tags()
    tags.feed(page)

    assert tags.open == []
    assert not tags.seen & {"script", "link", "img", "iframe", "form"}
    assert {to for to in tags.fetched if to and not to.startswith("#")} == {"openapi.json"}
    assert {to[1:] for to in tags.fetched if to and to.startswith("#")} <= tags.ids
    assert all(f"<code>{path}</code>" in page for path in described.document["paths"])


def test_what_a_model_says_of_itself_is_text_on_the_page(tmp_path: Path) -> None:
    model = _model(tmp_path, "binary")
    document = openapi_document({"parcels": model}, secured=False, max_rows=1)
    operation = document["paths"]["/models/parcels/predict"]["post"]
    operation["summary"] = operation["description"] = "<script>alert(1)</script>"

    page = docs_page(document)

    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
