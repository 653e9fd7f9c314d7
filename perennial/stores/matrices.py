"""The model matrix on disk: float32 arrays that are mapped into memory, not read into it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from perennial.contracts.features import FeatureSchema
from perennial.contracts.refs import PARTS, Part
from perennial.data.encoding import SchemaBuilder, encode
from perennial.data.frames import arrow_schema, table_columns
from perennial.data.labels import check_classes, encode_label, label_classes
from perennial.data.leaks import check_row_local
from perennial.data.profile import Profile
from perennial.data.programs import Program
from perennial.reports.feature_dot import render_dot
from perennial.reports.feature_graph import render_svg
from perennial.spec import ModelSpec

if TYPE_CHECKING:
    from perennial.learning.matrices import Matrices

Scan = Callable[[Sequence[str]], Iterator[pd.DataFrame]]

REFERENCE_ROWS = 10_000
"""Raw training rows kept in a bundle for drift and for the parity check."""

CHECKED_ROWS = 20_000
"""Rows on which feature code must prove that it looks at one row at a time."""


def write_matrices(
    spec: ModelSpec,
    program: Program,
    scan: Scan,
    parts: np.ndarray,
    folder: Path,
    classes: tuple[str, ...] | None = None,
) -> FeatureSchema:
    """Fit, compute and encode a dataset's features into ``folder`` (laid out as FeaturesRef says).

    ``scan`` gives the dataset's canonical frames in canonical order with the columns asked for;
    ``parts`` is the split's int8 a row in that order. The fitted state and the levels come from
    training rows only. ``classes`` are those that the members of an ensemble predict, by default
    the label's. Memory holds one batch at a time, and of the whole dataset the label and the
    columns that fitted functions read. Raises InputError for feature code that fails or looks
    at other rows.
    """
    state = program.fit(_training_rows(scan, program.fit_inputs, parts)) if program.fitted else {}
    label = spec.label.column
    labels = pd.concat([frame[label] for frame in scan([label])], ignore_index=True)
    builder = SchemaBuilder(program, spec)
    for place, frame in _placed(scan, program.inputs):
        training = frame[parts[place] == 0]
        if builder.rows == 0 and len(training):
            check_row_local(program, training.head(CHECKED_ROWS), state)
        if len(training):
            builder.add(program.compute(training, state))
    if classes is None:
        classes = label_classes(labels[parts >= 0], spec)
    else:
        check_classes(labels[parts >= 0], spec, classes)
    schema = builder.schema(classes)

    for number, part in enumerate(PARTS):
        encoded = encode_label(labels[parts == number], spec, classes)
        np.save(folder / f"{part}.y.npy", encoded)
    _write_rows(spec, program, schema, state, scan, parts, folder)
    (folder / "schema.json").write_text(schema.model_dump_json(indent=1))
    (folder / "state.json").write_text(json.dumps(state, indent=1, sort_keys=True))
    graph = program.graph()
    (folder / "graph.dot").write_text(render_dot(graph), encoding="utf-8")
    (folder / "graph.svg").write_text(render_svg(graph), encoding="utf-8")
    return schema


def read_matrix(folder: Path, part: Part) -> tuple[np.ndarray, np.ndarray]:
    """A part's matrix and labels, mapped into memory read-only."""
    x = np.load(folder / f"{part}.x.npy", mmap_mode="r", allow_pickle=False)
    y = np.load(folder / f"{part}.y.npy", mmap_mode="r", allow_pickle=False)
    return x, y


def read_training(folder: Path) -> Matrices:
    """The training and the validation part, as boosters are fitted to them."""
    from perennial.learning.matrices import Matrices

    train, validation = read_matrix(folder, "train"), read_matrix(folder, "validation")
    return Matrices(*train, *validation, read_schema(folder))


def read_schema(folder: Path) -> FeatureSchema:
    return FeatureSchema.model_validate_json((folder / "schema.json").read_text())


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object that was written beside the matrices."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def reference_profile(folder: Path, spec: ModelSpec) -> dict[str, Any]:
    """The profile of the sample of training rows, which later batches are compared with."""
    columns = table_columns(spec)
    profile = Profile(columns)
    profile.add(pq.read_table(folder / "reference.parquet").cast(arrow_schema(columns)))
    return profile.as_dict()


def _write_rows(
    spec: ModelSpec,
    program: Program,
    schema: FeatureSchema,
    state: dict[str, object],
    scan: Scan,
    parts: np.ndarray,
    folder: Path,
) -> None:
    """One pass that fills the matrices, and keeps the test rows and a sample of training rows."""
    counts = {part: int((parts == number).sum()) for number, part in enumerate(PARTS)}
    width = len(schema.features)
    matrices = {
        part: np.lib.format.open_memmap(
            folder / f"{part}.x.npy", mode="w+", dtype=np.float32, shape=(counts[part], width)
        )
        for part in PARTS
    }
    filled = dict.fromkeys(PARTS, 0)
    wanted = _sample(np.flatnonzero(parts == 0), spec.split.seed)
    reference: list[pd.DataFrame] = []
    columns = list(table_columns(spec))
    writer: pq.ParquetWriter | None = None
    for place, frame in _placed(scan, columns):
        used = parts[place] >= 0
        for number, part in enumerate(PARTS):
            chosen = frame[parts[place] == number]
            if not len(chosen):
                continue
            encoded, _ = encode(program.compute(chosen, state), schema)
            matrices[part][filled[part] : filled[part] + len(chosen)] = encoded
            filled[part] += len(chosen)
        if used.any():
            reference.append(frame[np.isin(np.arange(place.start, place.stop), wanted)])
            test = pa.Table.from_pandas(frame[parts[place] == 2], preserve_index=False)
            writer = writer or pq.ParquetWriter(folder / "test.rows.parquet", test.schema)
            writer.write_table(test)
    if writer is not None:
        writer.close()
    for matrix in matrices.values():
        matrix.flush()
    sample = pa.Table.from_pandas(pd.concat(reference), preserve_index=False)
    pq.write_table(sample, folder / "reference.parquet")


def _sample(rows: np.ndarray, seed: int) -> np.ndarray:
    if len(rows) <= REFERENCE_ROWS:
        return rows
    return np.random.default_rng(seed).choice(rows, REFERENCE_ROWS, replace=False)


def _placed(scan: Scan, columns: Sequence[str]) -> Iterator[tuple[slice, pd.DataFrame]]:
    """Frames with the place of their rows in the dataset."""
    start = 0
    for frame in scan(columns):
        yield slice(start, start + len(frame)), frame
        start += len(frame)


def _training_rows(scan: Scan, columns: Sequence[str], parts: np.ndarray) -> pd.DataFrame:
    frames: list[pd.DataFrame] = [f[parts[place] == 0] for place, f in _placed(scan, columns)]
    return pd.concat(frames)
