"""The model matrix on disk: float32 arrays that are mapped into memory, not read into it."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from perennial.contracts.features import FeatureSchema
from perennial.contracts.refs import PARTS, Part
from perennial.data.encoding import SchemaBuilder, Seen, encode, seen_in
from perennial.data.frames import arrow_schema, table_columns
from perennial.data.labels import check_classes, encode_label, label_classes
from perennial.data.leaks import check_row_local
from perennial.data.profile import Profile
from perennial.data.programs import Program
from perennial.reports.feature_dot import render_dot
from perennial.reports.feature_graph import render_svg
from perennial.spec import ModelSpec
from perennial.stores.compute import HERE, Compute
from perennial.stores.windows import Window

if TYPE_CHECKING:
    from perennial.learning.matrices import Matrices

Scan = Callable[[Sequence[str]], Iterable["pd.DataFrame | Window"]]

REFERENCE_ROWS = 10_000
"""Raw training rows kept in a bundle for drift and for the parity check."""

CHECKED_ROWS = 20_000
"""Rows on which feature code must prove that it looks at one row at a time."""

_GROUP_ROWS = 65_536


def write_matrices(
    spec: ModelSpec,
    program: Program,
    scan: Scan,
    parts: np.ndarray,
    folder: Path,
    classes: tuple[str, ...] | None = None,
    compute: Compute = HERE,
) -> FeatureSchema:
    """Fit, compute and encode a dataset's features into ``folder`` (laid out as FeaturesRef says).

    ``scan`` gives the dataset's canonical frames in canonical order with the columns asked for, or
    windows of them, which ``compute`` reads where it runs; ``parts`` is the split's int8 a row in
    that order. The same files to the byte come of it wherever they are computed. The fitted state
    and the levels come from training rows only. ``classes`` are those that the members of an
    ensemble predict, by default the label's. Memory holds one batch at a time, and of the whole
    dataset the label and, where it is fitted, the columns that fitted functions read. Raises
    InputError for feature code that fails or looks at other rows.
    """
    state = _fitted(program, scan, parts, compute)
    label = spec.label.column
    builder = SchemaBuilder(program, spec)
    labels = []
    # Closed, so that code that fails leaves no database open behind its traceback.
    with closing(_pieces(scan(list(dict.fromkeys((*program.inputs, label)))), parts)) as pieces:
        for found, seen in compute.map(partial(_look, program, label, state), pieces):
            labels.append(found)
            if seen is not None:
                builder.merge(seen)
    known = pd.concat(labels, ignore_index=True)
    if classes is None:
        classes = label_classes(known[parts >= 0], spec)
    else:
        check_classes(known[parts >= 0], spec, classes)
    schema = builder.schema(classes)

    for number, part in enumerate(PARTS):
        encoded = encode_label(known[parts == number], spec, classes)
        np.save(folder / f"{part}.y.npy", encoded)
    wanted = _sample(np.flatnonzero(parts == 0), spec.split.seed)
    with closing(_pieces(scan(list(table_columns(spec))), parts, wanted)) as pieces:
        results = compute.map(partial(_encode, program, schema, state), pieces)
        _write_rows(results, parts, len(schema.features), folder)
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


def read_training(folder: Path, memory: int | None = None) -> Matrices:
    """The training and the validation part, as boosters are fitted to them; in pages, when one has
    more bytes than ``memory``."""
    from perennial.learning.matrices import Matrices

    train, validation = read_matrix(folder, "train"), read_matrix(folder, "validation")
    return Matrices(*train, *validation, read_schema(folder), memory)


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


@dataclass(frozen=True)
class _Piece:
    """Rows that lie together: ``parts`` is the split of each, ``checked`` that feature code is
    tested on them, ``wanted`` are those that go into the sample of training rows."""

    rows: pd.DataFrame | Window
    parts: np.ndarray
    checked: bool
    wanted: np.ndarray

    def frame(self) -> pd.DataFrame:
        return self.rows.frame() if isinstance(self.rows, Window) else self.rows


def _pieces(
    rows: Iterable[pd.DataFrame | Window], parts: np.ndarray, wanted: np.ndarray | None = None
) -> Generator[_Piece, None, None]:
    sampled = np.zeros(len(parts), bool)
    if wanted is not None:
        sampled[wanted] = True
    training = np.flatnonzero(parts == 0)
    start = 0
    for each in rows:
        end = start + len(each)
        checked = bool(len(training)) and start <= training[0] < end
        yield _Piece(each, parts[start:end], checked, sampled[start:end])
        start = end


def _fitted(program: Program, scan: Scan, parts: np.ndarray, compute: Compute) -> dict[str, Any]:
    """The state, fitted in one place: a function of the model's own may need all rows."""
    if not program.fitted:
        return {}
    pieces: Iterable[_Piece] = _pieces(scan(program.fit_inputs), parts)
    if compute.remote:
        pieces = list(pieces)
    (state,) = compute.map(partial(_fit, program), [pieces])
    return state


def _fit(program: Program, pieces: Iterable[_Piece]) -> dict[str, Any]:
    return program.fit(pd.concat([piece.frame()[piece.parts == 0] for piece in pieces]))


def _look(
    program: Program, label: str, state: dict[str, Any], piece: _Piece
) -> tuple[pd.Series, Seen | None]:
    """The labels of some rows, and what the features of those for training hold."""
    frame = piece.frame()
    training = frame[piece.parts == 0]
    if piece.checked:
        check_row_local(program, training.head(CHECKED_ROWS), state)
    seen = None
    if len(training):
        seen = seen_in(program.compute(training, state), program.features)
    return frame[label], seen


@dataclass(frozen=True)
class _Encoded:
    """A piece of each matrix, in the order of PARTS; raw rows of the test part and of the sample,
    None where no row of the piece is in any part."""

    matrices: tuple[np.ndarray | None, ...]
    test: pa.Table | None
    reference: pd.DataFrame | None


def _encode(
    program: Program, schema: FeatureSchema, state: dict[str, Any], piece: _Piece
) -> _Encoded:
    frame, parts = piece.frame(), piece.parts
    matrices: list[np.ndarray | None] = []
    for number in range(len(PARTS)):
        chosen = frame[parts == number]
        computed = program.compute(chosen, state) if len(chosen) else None
        encoded = None if computed is None else encode(computed, schema, program.place)[0]
        matrices.append(encoded)
    if not (parts >= 0).any():
        return _Encoded(tuple(matrices), None, None)
    test = pa.Table.from_pandas(frame[parts == 2], preserve_index=False)
    return _Encoded(tuple(matrices), test, frame[piece.wanted])


def _write_rows(results: Iterable[_Encoded], parts: np.ndarray, width: int, folder: Path) -> None:
    """Fill the matrices, and keep the test rows and the sample of training rows."""
    matrices = [
        np.lib.format.open_memmap(
            folder / f"{part}.x.npy",
            mode="w+",
            dtype=np.float32,
            shape=(int((parts == number).sum()), width),
        )
        for number, part in enumerate(PARTS)
    ]
    filled = [0] * len(PARTS)
    reference: list[pd.DataFrame] = []
    with ExitStack() as stack:
        rows: _Groups | None = None
        for encoded in results:
            for number, x in enumerate(encoded.matrices):
                if x is not None:
                    matrices[number][filled[number] : filled[number] + len(x)] = x
                    filled[number] += len(x)
            if encoded.test is not None and encoded.reference is not None:
                reference.append(encoded.reference)
                if rows is None:
                    rows = stack.enter_context(
                        _Groups(folder / "test.rows.parquet", encoded.test.schema)
                    )
                rows.add(encoded.test)
    for matrix in matrices:
        matrix.flush()
    sample = pa.Table.from_pandas(pd.concat(reference), preserve_index=False)
    pq.write_table(sample, folder / "reference.parquet")


class _Groups:
    """A Parquet file of row groups of one size, however the rows come: the same rows make the same
    bytes."""

    def __init__(self, path: Path, schema: Any) -> None:
        self._writer = pq.ParquetWriter(path, schema)
        self._waiting = schema.empty_table()

    def add(self, rows: Any) -> None:
        self._waiting = pa.concat_tables([self._waiting, rows])
        while self._waiting.num_rows >= _GROUP_ROWS:
            self._write(self._waiting.slice(0, _GROUP_ROWS))
            self._waiting = self._waiting.slice(_GROUP_ROWS)

    def __enter__(self) -> _Groups:
        return self

    def __exit__(self, *_: object) -> None:
        if self._waiting.num_rows:
            self._write(self._waiting)
        self._writer.close()

    def _write(self, rows: Any) -> None:
        self._writer.write_table(rows.combine_chunks(), row_group_size=_GROUP_ROWS)


def _sample(rows: np.ndarray, seed: int) -> np.ndarray:
    if len(rows) <= REFERENCE_ROWS:
        return rows
    return np.random.default_rng(seed).choice(rows, REFERENCE_ROWS, replace=False)
