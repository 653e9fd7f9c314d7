"""What can be wrong before any training, told within seconds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perennial.contracts.errors import InputError
from perennial.decisions.wording import counted
from perennial.spec import ModelSpec
from perennial.stores.project import Project, feature_source

if TYPE_CHECKING:
    import pandas as pd

    from perennial.data.checks import Checked
    from perennial.data.programs import Program

_TRIED_ROWS = 2_000


def look_over(project: Project, name: str, as_of: datetime | None) -> None:
    """Find what can be told before a flow is started: a wrong model.yaml or features.py, a
    member of an ensemble that isn't there or doesn't fit, a source that isn't there, is empty or
    lacks a column, a damaged table. Raises InputError.

    Of a source that was ingested as it is now, nothing is read.
    """
    from perennial.stores import sources, tables
    from perennial.stores.ingested import ingested

    spec, program, classes = _compiled(project, name)
    table = project.uri("tables", name)
    source = sources.inspect(spec, project.root, tables.watermark(spec, table), as_of)
    if ingested(table, source) is not None:
        return
    for batch in sources.read(spec, project.root, source):
        frame, _ = _try_features(spec, program, _checked(spec, batch.table), insist=False)
        _try_label(spec, frame, classes)
        return


def check_model(project: Project, name: str) -> Iterator[str]:
    """A line for each thing that is in order. Raises InputError at the first that is not.

    The first batch of the source is checked row by row, features.py runs over its good rows, and
    what comes out must be what a booster reads.
    """
    from perennial.stores import sources

    spec, program, classes = _compiled(project, name)
    columns, gates = counted(len(spec.columns), "column"), counted(len(spec.gates), "gate")
    yield f"model.yaml: {spec.objective}, {columns}, {gates}"
    features = counted(len(program.features), "feature")
    if spec.ensemble is not None:
        yield f"members: {', '.join(spec.ensemble.of)}, which make {features}"
    else:
        yield f"features.py: {features}, {counted(len(program.fitted), 'fitted value')}"
    source = sources.inspect(spec, project.root, watermark=None, as_of=None)
    batches = iter(sources.read(spec, project.root, source))
    batch = next(batches, None)
    if batch is None:
        yield "source: no rows yet"
        return
    checked = _checked(spec, batch.table)
    broken = sum(1 for _ in batch.malformed)
    rows = counted(batch.num_rows + broken, "row")
    bad = counted(len(checked.bad_rows) + broken, "row")
    yield f"source: {rows} in the first batch, {bad} for quarantine"
    for fault in sorted(checked.faults, key=lambda fault: -len(fault.rows))[:5]:
        example = f"{batch.where(int(fault.rows[0]))} ({fault.told[0].as_py()})"
        yield f"source: {counted(len(fault.rows), 'row')} such as {example}"
    frame, state = _try_features(spec, program, checked, insist=True)
    if len(frame):
        _try_encoding(spec, program, frame, state, whole=next(batches, None) is None)
        _try_label(spec, frame, classes)
    tried = counted(min(len(frame), _TRIED_ROWS), "row")
    yield f"features: computed for {tried}, each from its own row alone"


def _compiled(project: Project, name: str) -> tuple[ModelSpec, Program, tuple[str, ...] | None]:
    """The model, what makes its features, and the classes that an ensemble's members predict."""
    from perennial.data.features import FeatureProgram

    ref, spec = project.load_model(name)
    source = feature_source(Path(ref.directory))
    if spec.ensemble is None:
        return spec, FeatureProgram.load(source, spec), None
    from perennial.bundle.predictor import member_program
    from perennial.stores.ensembles import find_members, open_members

    bundles = open_members(find_members(project, spec, source), project)
    classes = next(iter(bundles.values())).schema.classes
    return spec, member_program(bundles, spec), classes


def _checked(spec: ModelSpec, rows: object) -> Checked:
    from perennial.data.checks import RowChecks

    return RowChecks(spec, now=datetime.now(UTC)).check(rows)


def _try_features(
    spec: ModelSpec, program: Program, checked: Checked, *, insist: bool
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Run features.py over good rows; returns these and its state. Raises InputError as training
    would.

    Training fits on rows of its own, so what can't be fitted here is an error only to ``insist``.
    """
    from perennial.data.frames import canonical_frame, table_columns
    from perennial.data.leaks import check_row_local

    frame = canonical_frame(checked.good, table_columns(spec))
    try:
        state = program.fit(frame) if len(frame) else {}
    except InputError:
        if insist:
            raise
        return frame, {}
    check_row_local(program, frame.head(_TRIED_ROWS), state)
    return frame, state


def _try_encoding(
    spec: ModelSpec, program: Program, frame: pd.DataFrame, state: dict[str, Any], *, whole: bool
) -> None:
    """Encode the features of some rows, of which there are no others when they are ``whole``.
    Raises InputError as training would."""
    from perennial.data.encoding import SchemaBuilder, encode
    from perennial.learning.constraints import check_constraints

    features = program.compute(frame, state)
    builder = SchemaBuilder(program, spec)
    builder.add(features)
    try:
        schema = builder.schema(classes=None)
    except InputError:
        if whole:
            raise
        return  # a feature without any value here may have some in the rows that follow
    check_constraints(spec, schema)
    encode(features, schema, program.place)


def _try_label(spec: ModelSpec, frame: pd.DataFrame, classes: tuple[str, ...] | None) -> None:
    """Compare the labels of some rows with the classes that an ensemble's members predict. Raises
    InputError as training would, which leaves some rows out: of many classes a strange one may be
    of these."""
    from perennial.data.labels import check_classes, label_classes

    known = frame[spec.label.column].dropna()
    if classes is None or known.nunique() < 2:  # of a single class others may follow
        return
    if spec.objective == "binary" or not set(label_classes(known, spec) or ()) & set(classes):
        check_classes(known, spec, classes)
