"""Late labels of a request: which are kept, and what is said of those that can't be used."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from perennial.bundle.write import write_bundle
from perennial.contracts.errors import InputError
from perennial.contracts.routes import Arm, Route
from perennial.serving.batching import Batch, Job
from perennial.serving.follower import Follower
from perennial.serving.labels import read_labels
from perennial.serving.log_rows import LogRows
from perennial.serving.metrics import Metrics
from perennial.serving.models import LiveModel, Loaded, load
from perennial.serving.openapi import openapi_document
from perennial.serving.replies import Refusal, Request
from perennial.serving.service import Logging, Service
from perennial.serving.settings import Settings
from perennial.spec.rules import LOG_COLUMNS
from perennial.stores.predictions import Redaction, Spool
from perennial.stores.predictions.columns import DATE
from perennial.stores.predictions.joining import LABEL
from perennial.stores.predictions.waiting import waiting
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from tests.fuzz import served
from tests.fuzz.served import NOW, SPEC, content, make_project

SENT = "2026-03-01T06:00:00Z"
LETTER = {"customer": "c-1", "sent": SENT, "label": "a"}
LETTER_ROW = {
    "customer": ["c-1"], "sent": [SENT], "weight_kg": [1.0], "items": [1], "insured": [True],
    "depot": ["north"], "remark": [""],
}  # fmt: skip


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """A version with the classes a, b and c."""
    root = tmp_path_factory.mktemp("letters")
    make_project(root)
    registry = Registry(Project(root).registry_url)
    loaded = load(registry.version("letters", 1), Project(root))
    registry.close()
    return loaded


def route(*versions: int) -> Route:
    arms = tuple(Arm(version=version, weight=100 // len(versions)) for version in versions)
    return Route(model="letters", champion=1, arms=arms, shadow=(), generation=1, updated_at=None)


def live(*versions: Loaded) -> LiveModel:
    """A model whose versions, numbered from 1, answer it together."""
    model = LiveModel("letters")
    numbered = dict(enumerate(versions, 1))
    model.adopt(route(*numbered), numbered)
    return model


def wrong(document: object, model: LiveModel) -> list[str]:
    with pytest.raises(InputError) as caught:
        read_labels(document, model, 10)
    return [str(problem) for problem in caught.value.problems]


def with_classes(loaded: Loaded, *classes: str) -> Loaded:
    return replace(loaded, schema=loaded.schema.model_copy(update={"classes": classes}))


def test_a_class_that_only_the_challenger_knows_is_kept_in_its_rollout(letters: Loaded) -> None:
    challenger = with_classes(letters, "b", "c", "d")
    new = {**LETTER, "label": "d"}

    kept = read_labels([LETTER, new], live(letters, challenger), 10)

    assert kept["label"].to_pylist() == ["a", "d"]
    assert wrong(new, live(letters)) == ["label 1: 'd' is not one of a, b, c"]
    assert wrong({**LETTER, "label": "e"}, live(letters, challenger)) == [
        "label 1: 'e' is not one of a, b, c, d"
    ]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (5, 'expected an object (one label), a list of objects, or {"labels": […]}, not a number'),
        (
            {"labels": "a"},
            'expected an object (one label), a list of objects, or {"labels": […]}, not text',
        ),
        ([LETTER, 5], "label 2 is a number, not an object of column: value"),
    ],
)
def test_what_is_no_label_is_told_as_one(letters: Loaded, document: object, message: str) -> None:
    with pytest.raises(Refusal) as refusal:
        read_labels(document, live(letters), 10)

    assert refusal.value.message == message


def test_a_key_that_can_not_be_read_is_that_of_a_label(letters: Loaded) -> None:
    late = {**LETTER, "sent": "yesterday"}

    (told,) = wrong({"labels": [LETTER, late]}, live(letters))

    assert told.startswith("column 'sent', label 2: 'yesterday' is not a time")


@pytest.mark.parametrize("opens", [True, False])
def test_a_class_that_only_a_shadow_knows_is_kept_while_it_is_one(
    tmp_path: Path, opens: bool
) -> None:
    make_project(tmp_path)
    project = Project(tmp_path)
    made = content("letters", "multiclass", 9)
    schema = made.schema.model_copy(update={"classes": ("b", "c", "d")})
    bundles = project.folder("bundles", "letters")
    ref = write_bundle(bundles, replace(made, schema=schema))
    registry = Registry(project.registry_url)
    registry.register(
        "letters", ref, params={}, metrics={}, judgement={}, links={}, actor="tests",
        reason="passed", now=NOW,
    )  # fmt: skip
    if not opens:
        (Path(ref.uri) / "schema.json").unlink()
    new = {**LETTER, "label": "d"}

    def shadowed(*versions: int) -> None:
        registry.change_route(
            "letters", champion=1, arms=[Arm(version=1, weight=100)], shadow=versions,
            action="route changed", version=1, actor="tests", reason="tested", evidence={},
            expected_generation=registry.route("letters").generation, cause=f"{versions}", now=NOW,
        )  # fmt: skip

    async def look() -> LiveModel:
        settings = Settings(project=tmp_path, models=("letters",))
        service = Service(settings, Spool(tmp_path / "spool"), Metrics(), None, lambda: None)
        follower = Follower(service, asyncio.get_running_loop())
        await asyncio.to_thread(follower.look)
        service.close()
        return service.model("letters")

    shadowed(2)
    model = asyncio.run(look())
    if opens:
        assert read_labels([LETTER, new], model, 10)["label"].to_pylist() == ["a", "d"]
        document = openapi_document({"letters": model}, secured=False, max_rows=10)
        label = document["components"]["schemas"]["letters.label"]
        assert label["properties"]["label"] == {"enum": ["a", "b", "c", "d"]}
    else:  # the champion answers all the same
        assert wrong(new, model) == ["label 1: 'd' is not one of a, b, c"]
    shadowed()
    assert wrong(new, asyncio.run(look())) == ["label 1: 'd' is not one of a, b, c"]
    registry.close()


def test_the_openapi_document_has_the_classes_of_all_loaded_versions(letters: Loaded) -> None:
    models = {"letters": live(letters, with_classes(letters, "b", "c", "d"))}

    document = openapi_document(models, secured=False, max_rows=10)

    label = document["components"]["schemas"]["letters.label"]
    assert label["properties"]["label"] == {"enum": ["a", "b", "c", "d"]}
    assert [way["required"] for way in label["anyOf"]] == [["prediction_id"], ["customer", "sent"]]
    assert "409" in document["paths"]["/models/letters/labels"]["post"]["responses"]


def numbered(letters: Loaded) -> Loaded:
    """The version as if its customers were numbers."""
    columns = dict(letters.spec.columns)
    columns["customer"] = columns["customer"].model_copy(update={"type": "integer"})
    return replace(letters, spec=letters.spec.model_copy(update={"columns": columns}))


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"customer": ""}, "customer is ''"),
        ({"customer": "NA"}, "customer is 'NA'"),
        ({"sent": ""}, "sent is ''"),
        ({"sent": " null "}, "sent is ' null '"),
    ],
)
def test_a_key_that_means_a_missing_value_is_refused_for_no_row_would_have_it(
    letters: Loaded, changed: dict[str, Any], what: str
) -> None:
    good = {**LETTER, "customer": 5}

    assert wrong([good, good, {**good, **changed}], live(numbered(letters))) == [
        f"label 3: {what}, which means a missing value (give prediction_id, or customer, sent)"
    ]


def test_a_text_is_missing_only_when_it_is_empty(letters: Loaded) -> None:
    assert wrong({**LETTER, "customer": ""}, live(letters)) == [
        "label 1: customer is '', which means a missing value "
        "(give prediction_id, or customer, sent)"
    ]
    kept = read_labels({**LETTER, "customer": "NA"}, live(letters), 10)
    assert kept["customer"].to_pylist() == ["NA"]


def test_a_label_with_its_prediction_s_id_needs_no_other_key(letters: Loaded) -> None:
    by_id = {"prediction_id": "p-1", "customer": "", "label": "b"}

    kept = read_labels([LETTER, by_id], live(letters), 10)

    assert kept.select(["_id", "customer", "label"]).to_pylist() == [
        {"_id": None, "customer": "c-1", "label": "a"},
        {"_id": "p-1", "customer": None, "label": "b"},
    ]


@pytest.mark.parametrize("name", ["label", "prediction_id"])
def test_a_row_is_told_by_its_id_where_an_entity_is_called_like_another_key(
    letters: Loaded, name: str
) -> None:
    """One value can't be the entity's and the label: it would be kept as both."""
    renamed = {name: letters.spec.columns["customer"], **letters.spec.columns}
    source = letters.spec.source.model_copy(update={"entity": ("customer", name)})
    update = {"columns": renamed, "source": source}
    model = live(replace(letters, spec=letters.spec.model_copy(update=update)))

    kept = read_labels({"prediction_id": "p-1", "label": "b"}, model, 10)
    assert kept.select(["_id", "label"]).to_pylist() == [{"_id": "p-1", "label": "b"}]
    assert kept.schema.names == ["_received_at", "_id", "label"]
    assert wrong({"label": "a"}, model) == [
        "label 1: doesn't say what it is the label of (give prediction_id)"
    ]
    assert wrong({**LETTER, "prediction_id": "p-1"}, model) == [
        "label 1: unknown key 'customer'", "label 1: unknown key 'sent'"
    ]  # fmt: skip

    schema = openapi_document({"letters": model}, secured=False, max_rows=10)["components"]
    label = schema["schemas"]["letters.label"]
    assert set(label["properties"]) == {"prediction_id", "label", "metrics"}
    assert [way["required"] for way in label["anyOf"]] == [["prediction_id"]]


def test_the_log_s_own_columns_are_those_that_no_model_has(letters: Loaded) -> None:
    """A column that is added to the log is to be kept from models too."""
    labels = read_labels({"prediction_id": "p-1", "label": "b"}, live(letters), 10)
    kept = {
        *log_rows(letters, LETTER_ROW).schema.names,
        *(name for name in labels.schema.names if name.startswith("_")),
    }
    assert kept - {*LETTER_ROW} == LOG_COLUMNS - {DATE, LABEL, f"{LABEL}_metric_0", "_happened"}


def test_a_large_number_is_the_same_entity_in_the_log_in_its_labels_and_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a feature reads it, which gets a float because it may be missing."""
    entity = SPEC.replace("[customer]", "[items]").replace(", nullable: false", "")
    monkeypatch.setattr(served, "SPEC", entity)
    make_project(tmp_path)
    registry = Registry(Project(tmp_path).registry_url)
    loaded = load(registry.version("letters", 1), Project(tmp_path))
    registry.close()
    for items in (1234567890123456789, 2**63 - 1):
        logged = log_rows(loaded, LETTER_ROW | {"items": [items]})
        label = read_labels({"items": items, "sent": SENT, "label": "a"}, live(loaded), 10)
        assert logged["items"].to_pylist() == label["items"].to_pylist() == [items]
        redaction = Redaction((), ("items",), b"secret")
        assert redaction.apply(logged)["items"] == redaction.apply(label)["items"]
    assert "items" in {column.name for column in loaded.schema.inputs}


def log_rows(loaded: Loaded, row: dict[str, Any]) -> pa.RecordBatch:
    nobody: Any = Future()
    job = Job(
        rows={}, count=1, version=1, arm="champion", ids=["p-1"],
        request=Request("r", {}, {}, b"", 0.0), answer=nobody,
    )  # fmt: skip
    rows = loaded.predictor.read(row)
    values = loaded.predictor.predict_frame(rows).values
    return LogRows(loaded).of(Batch([job], rows, values, {}, 0.0, 1.0))


@pytest.mark.parametrize("enabled", [True, False])
def test_labels_are_refused_where_nothing_is_kept(
    letters: Loaded, tmp_path: Path, enabled: bool
) -> None:
    async def send() -> Refusal | None:
        spool = Spool(tmp_path / "spool")
        service = Service(Settings(project=tmp_path), spool, Metrics(), None, lambda: None)
        service.adopt(route(1), {1: letters}, Logging(enabled, Redaction.of(letters.spec)))
        model = service.model("letters")
        labels: pa.RecordBatch = read_labels(LETTER, model, 10)
        try:
            await service.log_labels(model, labels)
        except Refusal as refusal:
            return refusal
        finally:
            service.close()
        return None

    refusal = asyncio.run(send())

    if enabled:
        assert refusal is None
    else:
        assert refusal is not None
        assert (refusal.status, refusal.code) == (409, "nothing_kept")
        assert "no labels of 'letters' are kept" in refusal.message
    kinds = [segment.kind for stream in waiting(tmp_path / "spool") for segment in stream]
    assert kinds == (["labels"] if enabled else [])
