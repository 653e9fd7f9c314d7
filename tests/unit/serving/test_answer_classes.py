"""Answers that several versions gave together, each knowing classes of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from perennial.serving import endpoints, open_inference
from perennial.serving.classes import in_one_order
from perennial.serving.models import LiveModel
from perennial.serving.service import Predicted

VALUES = {
    1: np.array([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]], np.float32),
    2: np.array([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2], [0.2, 0.6, 0.2]], np.float32),
    3: np.array([[0.1, 0.2, 0.3, 0.4]], np.float32),
}
PLACES = {1: [0, 3], 2: [1, 2, 5], 3: [4]}
CLASSES: dict[int, tuple[str, ...]] = {
    1: ("bird", "cat", "dog"), 2: ("cat", "dog", "fish"), 3: ("bird", "cat", "dog", "fish"),
}  # fmt: skip


def part(version: int, places: Sequence[int] | None, arm: str = "challenger") -> Predicted:
    values = VALUES[version]
    ids = [f"{version}-{row}" for row in range(len(values))]
    return Predicted(version, arm, "multiclass", CLASSES[version], ids, values, places)


def answered(*versions: int, champion: int = 1) -> list[Predicted]:
    """The rows of ``PLACES`` that these versions answered, moved up to leave no gap."""
    order = sorted(place for version in versions for place in PLACES[version])
    return [
        part(version, [order.index(place) for place in PLACES[version]],
             "champion" if version == champion else "challenger")
        for version in versions
    ]  # fmt: skip


def expected(found: Sequence[Predicted]) -> list[tuple[int, str, dict[str, float]]]:
    """Each row's version, class and probabilities, as its own version tells them."""
    rows = {}
    for one in found:
        assert one.classes is not None
        places = one.places or range(len(one.ids))
        for place, values in zip(places, one.values.tolist(), strict=True):
            known = dict(zip(one.classes, values, strict=True))
            rows[place] = (one.version, max(known, key=lambda name: known[name]), known)
    return [rows[place] for place in range(len(rows))]


def inferred(found: Sequence[Predicted], *, binary: bool = False) -> dict[str, Any]:
    """Outputs of the Open Inference Protocol by their names; the probabilities as an array."""
    wanted = {"class": False, "version": False, "probabilities": binary}
    reply = open_inference._reply(LiveModel("m"), found, {}, wanted)
    end = int(dict(reply.headers).get(b"inference-header-content-length", len(reply.body)))
    outputs = {output["name"]: output for output in json.loads(reply.body[:end])["outputs"]}
    told = outputs["probabilities"]
    values = np.frombuffer(reply.body[end:], "<f4") if binary else np.array(told["data"], "<f4")
    outputs["probabilities"] = {**told, "data": values.reshape(told["shape"])}
    return outputs


MIXED = pytest.mark.parametrize(
    ("versions", "champion", "order"),
    [
        ((1, 2), 1, ["bird", "cat", "dog", "fish"]),
        ((2, 1), 1, ["bird", "cat", "dog", "fish"]),
        ((1, 2), 2, ["cat", "dog", "fish", "bird"]),
        ((3, 1), 1, ["bird", "cat", "dog", "fish"]),
        ((2, 3, 1), 1, ["bird", "cat", "dog", "fish"]),
    ],
)


@MIXED
@pytest.mark.parametrize("binary", [False, True])
def test_a_row_of_an_inference_has_the_class_of_the_version_that_answered_it(
    versions: Sequence[int], champion: int, order: list[str], binary: bool
) -> None:
    found = answered(*versions, champion=champion)
    outputs = inferred(found, binary=binary)
    probabilities = outputs["probabilities"]

    assert json.loads(probabilities["parameters"]["classes"]) == order
    rows = zip(
        outputs["version"]["data"], outputs["class"]["data"], probabilities["data"], strict=True
    )
    for (version, top, values), (own, best, known) in zip(rows, expected(found), strict=True):
        assert (version, top) == (own, best)
        assert values.tolist() == [known.get(name, 0.0) for name in order]


@MIXED
def test_the_probabilities_of_an_arrow_answer_have_one_order_and_tell_it(
    versions: Sequence[int], champion: int, order: list[str]
) -> None:
    found = answered(*versions, champion=champion)
    table = pa.ipc.open_stream(endpoints._arrow(found)).read_all()

    assert json.loads(table.schema.field("probabilities").metadata[b"classes"]) == order
    for row, (own, best, known) in zip(table.to_pylist(), expected(found), strict=True):
        assert (row["version"], row["class"]) == (own, best)
        assert row["probabilities"] == [known.get(name, 0.0) for name in order]


@pytest.mark.parametrize("version", [1, 2, 3])
def test_the_answer_of_one_version_is_in_its_own_order(version: int) -> None:
    found = [part(version, None)]
    outputs = inferred(found)
    table = pa.ipc.open_stream(endpoints._arrow(found)).read_all()

    assert "parameters" not in outputs["probabilities"]
    assert outputs["probabilities"]["data"].tobytes() == VALUES[version].tobytes()
    assert outputs["class"]["data"] == [best for _, best, _ in expected(found)]
    assert table.column("probabilities").to_pylist() == VALUES[version].tolist()
    told = json.loads(table.schema.field("probabilities").metadata[b"classes"])
    assert tuple(told) == CLASSES[version]


def test_versions_that_know_the_same_classes_need_no_word_on_it() -> None:
    found = [part(1, [0, 2]), part(1, [1, 3])]

    assert "parameters" not in inferred(found)["probabilities"]
    assert in_one_order(found)[0] == CLASSES[1]


@pytest.mark.parametrize("classes", [None, ("no", "yes")])
def test_predictions_without_several_classes_stay_as_they_are(
    classes: tuple[str, ...] | None,
) -> None:
    objective = "regression" if classes is None else "binary"
    values = [np.array([0.5, 0.25], np.float32), np.array([0.75], np.float32)]
    places = [[0, 2], [1]]
    found = [
        Predicted(version, "champion", objective, classes, ["a"] * len(own), own, place)
        for version, (own, place) in enumerate(zip(values, places, strict=True), start=1)
    ]
    name = "value" if classes is None else "probability"

    known, kept = in_one_order(found)
    assert known == classes
    assert all(one is other for one, other in zip(kept, values, strict=True))
    table = pa.ipc.open_stream(endpoints._arrow(found)).read_all()
    assert table.column(name).to_pylist() == [0.5, 0.75, 0.25]
