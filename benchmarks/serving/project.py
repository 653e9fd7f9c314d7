"""What is served: the flights of 2013, two versions of their model, requests made of flights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from benchmarks import harness
from benchmarks.harness import MODEL, console
from perennial.spec.documents import document_text, read_document

if TYPE_CHECKING:
    from perennial.bundle.read import Bundle

AS_OF = ("2013-03-01T00:00:00+00:00", "2013-09-01T00:00:00+00:00")
"""Two months of flights make version 1, eight months version 2, which takes over."""

_DATA = "flights-2013-09.csv"


def train(root: Path) -> None:
    """A project with both versions, unless it is there already. Version 2 is the champion then."""
    if (root / ".perennial" / "registry.db").is_file():
        console.print(f"serving the two versions in {root}")
        return
    flights = harness.write_flights(root.with_name(f"{root.name}-flights"))
    harness.write_project(root, flights, {"tuning": {"timeout": "4h"}})
    _let_in(root / "models" / harness.EXAMPLE.name / "model.yaml")
    with harness.prefect_server(root.with_name(f"{root.name}-prefect")) as environment:
        for number, as_of in enumerate(AS_OF, 1):
            took = harness.run_flow(root, environment, as_of)
            decision = took.result()["decision"]
            if decision["action"] != "promoted" or decision["version"]["version"] != number:
                raise RuntimeError(f"expected version {number} to take the route: {decision}")
            console.print(f"trained version {number} in {took.seconds:.0f} s")


def _let_in(path: Path) -> None:
    """A gate that both versions pass: what is served matters here, not whether it is better."""
    document = read_document(path.read_text(encoding="utf-8"), path.name)
    document["gates"] = [{"metric": "roc_auc", "min": 0.5}]
    path.write_text(document_text(document), encoding="utf-8")


def bundle(root: Path, version: int) -> Bundle:
    from perennial.bundle.read import open_bundle
    from perennial.stores.project import Project
    from perennial.stores.registry import Registry

    registry = Registry(Project(root).registry_url)
    ref = registry.version(MODEL, version).ref
    registry.close()
    return open_bundle(Path(ref.uri), ref.digest)


def described(served: Bundle) -> str:
    study = served.lineage["study"]
    return (
        f"the booster: {study['best_rounds']} rounds of depth {study['best_params']['max_depth']}, "
        f"{len(served.booster) / 2**20:.1f} MiB; {len(served.schema.features)} features of "
        f"{len(served.schema.inputs)} columns"
    )


def route_to(root: Path, version: int) -> None:
    """Give all requests to a version."""
    import time
    from datetime import UTC, datetime

    from perennial.stores.project import Project
    from perennial.stores.registry import Registry

    registry = Registry(Project(root).registry_url)
    route = registry.route(MODEL)
    registry.promote(
        MODEL,
        version,
        expected_generation=route.generation,
        actor="benchmark",
        reason="to measure the switch",
        evidence={},
        cause=f"benchmark {time.time_ns()}",
        now=datetime.now(UTC),
    )
    registry.close()


@dataclass(frozen=True)
class Flights:
    """Real flights: ``rows`` as a request of ours carries them (all columns that are known before
    departure), ``matrix`` the float32 features that the booster reads, which others are sent ready
    made, and ``predictions`` what both come to."""

    rows: list[dict[str, Any]]
    matrix: np.ndarray
    predictions: np.ndarray

    def bodies(self) -> list[bytes]:
        """One JSON object each."""
        return [json.dumps(row, separators=(",", ":")).encode() for row in self.rows]

    def matrix_rows(self) -> list[list[float | None]]:
        """The shortest decimals that are the same float32; None where a value is missing."""
        return [
            [None if np.isnan(value) else float(str(value)) for value in row] for row in self.matrix
        ]


def table(root: Path, served: Bundle, count: int) -> pa.Table:
    """So many flights of September in the types of the model's table."""
    from perennial.data.frames import arrow_schema, canonical_frame, table_columns

    columns = table_columns(served.spec)
    del columns[served.spec.label.column]
    data = root / "models" / harness.EXAMPLE.name / "data" / _DATA
    rows = pd.read_csv(data, dtype=dict.fromkeys(columns, object))
    picked = rows.sample(count, random_state=0, replace=count > len(rows))
    frame = canonical_frame(picked.reset_index(drop=True), columns)
    return pa.Table.from_pandas(frame, schema=arrow_schema(columns), preserve_index=False)


def flights(root: Path, served: Bundle, count: int = 400) -> Flights:
    from perennial.bundle.predictor import Predictor
    from perennial.data.encoding import encode
    from perennial.data.features import FeatureProgram
    from perennial.data.frames import canonical_frame

    picked = table(root, served, count)
    inputs = {column.name: column for column in served.schema.inputs}
    program = FeatureProgram.load(served.features_source, served.spec)
    features = program.columns(canonical_frame(picked, inputs), served.state)
    matrix, _ = encode(features, served.schema)
    predictions = Predictor(served).predict(picked).values
    return Flights([_plain(row) for row in picked.to_pylist()], matrix, predictions)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.strftime("%Y-%m-%dT%H:%M:%SZ") if hasattr(value, "strftime") else value
        for name, value in row.items()
    }
