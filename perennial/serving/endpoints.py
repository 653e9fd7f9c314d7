"""The plain endpoints: rows in, predictions out; labels; what is served."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from perennial.contracts.errors import InputError
from perennial.serving.arrow_bodies import read_arrow
from perennial.serving.classes import announced, in_one_order
from perennial.serving.labels import read_labels
from perennial.serving.models import LiveModel
from perennial.serving.replies import ARROW, JSON, Refusal, Reply, Request, wrong_rows
from perennial.serving.requests import Headers
from perennial.serving.rows import decode_json, from_json, from_table
from perennial.serving.service import Predicted, Service


class PlainEndpoints:
    """Handlers of the endpoints below ``/models``."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def predict(self, request: Request) -> Reply:
        """Rows as JSON or as an Arrow IPC stream; predictions likewise, as ``Accept`` says."""
        service = self._service
        model = service.model(request.path["name"])
        single = False
        kind = content_type(request.headers)
        if kind == JSON:
            rows, single = from_json(decode_json(request.body))
        elif kind == ARROW:
            settings = service.settings
            most = {"most_rows": settings.max_rows, "most_bytes": 4 * settings.max_body_bytes}
            try:
                rows = from_table(read_arrow(request.body, **most))
            except InputError as error:
                raise wrong_rows(error) from None
        else:
            raise unsupported(kind, (JSON, ARROW))
        found = await service.predict(model, request.path.get("version"), rows, request)
        if ARROW in request.headers.get(b"accept", b""):
            return Reply(_arrow(found), kind=ARROW)
        if single:
            return Reply.json({"model": model.name, **_objects(found[0])[0]})
        return Reply.json({"model": model.name, "predictions": _in_order(found)})

    async def labels(self, request: Request) -> Reply:
        """Late labels, by prediction id or by entity and event time."""
        model = self._service.model(request.path["name"])
        kind = content_type(request.headers)
        if kind != JSON:
            raise unsupported(kind, (JSON,))
        most = self._service.settings.max_rows
        try:
            record = read_labels(decode_json(request.body), model, most)
        except InputError as error:
            raise wrong_rows(error) from None
        await self._service.log_labels(model, record)
        return Reply.json({"model": model.name, "accepted": len(record)})

    async def models(self, _: Request) -> Reply:
        """All models."""
        models = [describe(model) for _, model in sorted(self._service.models.items())]
        return Reply.json({"models": models})

    async def one_model(self, request: Request) -> Reply:
        """A model: its versions and what a row must have."""
        model = self._service.model(request.path["name"])
        version = model.champion()
        columns = [
            {
                "name": name,
                "type": column.type,
                "nullable": column.nullable,
                "required": name in self._service.reads(model, version).required,
            }
            for name, column in version.predictor.columns.items()
        ]
        return Reply.json({**describe(model), "columns": columns})


def describe(model: LiveModel) -> dict[str, Any]:
    """A model for people and programs."""
    state = model.state()
    return {
        "name": state.name,
        "description": state.description,
        "objective": state.objective,
        "ready": model.ready,
        "generation": state.generation,
        "versions": [
            {"version": v.version, "arm": v.arm, "weight": v.weight, "digest": v.digest}
            for v in state.versions
        ],
    }


def content_type(headers: Headers) -> bytes:
    """The body's type without its parameters; JSON when the request doesn't say."""
    kind = headers.get(b"content-type")
    return JSON if kind is None else kind.partition(b";")[0].strip().lower()


def unsupported(kind: bytes, supported: Sequence[bytes]) -> Refusal:
    known = " or ".join(one.decode() for one in supported)
    what = f"content type {kind[:80].decode('latin-1')!r} is not read here; send {known}"
    return Refusal(415, "unsupported_media_type", what)


def _in_order(found: Sequence[Predicted]) -> list[dict[str, Any]]:
    if len(found) == 1:
        return _objects(found[0])
    rows: dict[int, dict[str, Any]] = {}
    for part in found:
        assert part.places is not None
        rows.update(zip(part.places, _objects(part), strict=True))
    return [rows[place] for place in range(len(rows))]


def _objects(part: Predicted) -> list[dict[str, Any]]:
    """A prediction an object. A number has the digits of its float32, so that reading it back gives
    the same bits."""
    version, arm = part.version, part.arm
    values = part.values.tolist()
    if part.classes is None or part.objective == "binary":
        name = "value" if part.classes is None else "probability"
        return [
            {"id": identity, "version": version, "arm": arm, name: value}
            for identity, value in zip(part.ids, values, strict=True)
        ]
    top = part.values.argmax(axis=1).tolist()
    return [
        {
            "id": identity,
            "version": version,
            "arm": arm,
            "class": part.classes[best],
            "probabilities": dict(zip(part.classes, row, strict=True)),
        }
        for identity, row, best in zip(part.ids, values, top, strict=True)
    ]


def _arrow(found: Sequence[Predicted]) -> bytes:
    """Columns id, version, arm, and value | probability | class and probabilities (a list in the
    order that its field's metadata tell as ``classes``), in the order of the request's rows."""
    classes, values = in_one_order(found)
    parts = [_columns(part, own, classes) for part, own in zip(found, values, strict=True)]
    table = pa.concat_tables(parts, promote_options="default")
    if len(found) > 1:
        places = np.fromiter(chain.from_iterable(p.places or () for p in found), np.int64)
        table = table.take(pa.array(np.argsort(places)))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    body: bytes = sink.getvalue().to_pybytes()
    return body


def _columns(part: Predicted, values: np.ndarray, classes: tuple[str, ...] | None) -> pa.Table:
    """``values`` are the part's predictions in the order of the answer's ``classes``."""
    rows = len(part.ids)
    columns: dict[str, Any] = {
        "id": pa.array(part.ids, pa.string()),
        "version": pa.repeat(pa.scalar(part.version, pa.int64()), rows),
        "arm": pa.repeat(pa.scalar(part.arm, pa.string()), rows),
    }
    if part.classes is None or classes is None or part.objective == "binary":
        columns["value" if part.classes is None else "probability"] = pa.array(values)
        return pa.table(columns)
    top = part.values.argmax(axis=1)
    columns["class"] = pa.array([part.classes[best] for best in top], pa.string())
    offsets = np.arange(rows + 1, dtype=np.int32) * len(classes)
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel()))
    told = pa.field("probabilities", lists.type, metadata={"classes": announced(classes)})
    return pa.table(columns).append_column(told, lists)
