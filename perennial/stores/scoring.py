"""Batch scoring: a source's rows scored, in bounded memory, into a folder of their own.

The folder is named by the digest of its content (``scored`` publishes it)::

    good/00000.parquet …   carried columns, version, predictions, in the order of the source
    bad/00000.parquet …    as in staging
    stats.json             ScoringStats
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from perennial.bundle.outputs import output_columns
from perennial.bundle.predictor import Predictor
from perennial.bundle.read import Bundle
from perennial.contracts.errors import InputError, PerennialError, Problem
from perennial.contracts.refs import SourceRef, StagedRef, Value, VersionRef
from perennial.contracts.scoring import ScoringJob
from perennial.data.audit import FaultCount
from perennial.data.checks import RowChecks
from perennial.data.frames import table_columns
from perennial.data.parsing import is_binary, unwrapped
from perennial.data.row_numbers import unnumbered
from perennial.spec import ModelSpec
from perennial.spec.inputs import Column, Source
from perennial.stores import sources
from perennial.stores.bundles import open_stored
from perennial.stores.folders import keep_folder, new_folder
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from perennial.stores.sources.batches import absent_columns
from perennial.stores.staging import BadRows
from perennial.stores.storage.places import bucket_of, check_place, is_remote

VERSION = "_version"
_OURS = (VERSION, "_prediction", "_class", "_probabilities")
_SLICE = 65_536  # rows whose features are in memory at a time
_MOST_UNFIT = 1_000  # of a slice: beyond it the features are at fault, not the rows
_OTHERS = "carry the other columns only"


Columns = Sequence[str] | Literal["all"] | None
"""Which columns of a source are carried along; None: the entity and the event time as far as the
source has them."""


class ScoringStats(Value):
    """What was counted while rows were scored. ``unseen`` counts values by feature that training
    never saw; they were scored as missing."""

    rows: int
    bad_rows: int
    faults: tuple[FaultCount, ...]
    unseen: dict[str, int]


def plan(
    project: Project,
    model: str,
    source: str,
    output: str,
    version: int | None,
    columns: Columns,
) -> ScoringJob:
    """What is to be scored, by which version (None: the champion), and where it goes; paths are
    relative to the project. Raises InputError for all that can be told wrong before any work."""
    place = sources.address(output, project.root)
    check_place(place)
    if is_remote(place) and not bucket_of(place)[1]:
        raise InputError(Problem(place, "is a whole bucket", "name a prefix in it"))
    own = project.owner_of(place)
    if own is not None:
        what = f"overlaps {own}, where the project keeps what is its own"
        raise InputError(Problem(place, what, "name another output"))
    if sources.overlaps(source, project.root, place):
        what = f"overlaps the source {source}: predictions would be read as rows to score"
        raise InputError(Problem(place, what, "name another output"))
    spec = project.load_model(model)[1]
    chosen = _version(Registry(project.registry_url), model, version)
    bundle = open_stored(chosen, project)
    found, carried = look(bundle, project.root, source, columns)
    return ScoringJob(
        version=chosen,
        source=found,
        columns=carried,
        output=place,
        max_share=spec.quarantine.max_share,
    )


def _version(registry: Registry, model: str, version: int | None) -> VersionRef:
    if version is not None:
        return registry.version(model, version).ref
    champion = registry.champion(model)
    if champion is None:
        what = f"{model!r} has no champion: no version was accepted yet"
        raise InputError(Problem("registry", what, f"perennial train {model}"))
    return champion


def look(
    bundle: Bundle, root: Path, uri: str, columns: Columns
) -> tuple[SourceRef, tuple[str, ...]]:
    """The source behind a URI (CSV or Parquet files, a Delta table) and the columns of it to carry.

    Raises InputError when there is nothing to read, and for every column that the version needs, or
    that was asked for, and that is not there.
    """
    spec = _with_source(bundle.spec, uri, root)
    source = sources.inspect(spec, root, None, None)
    files = sources.columns(spec, root, source)
    present = list(dict.fromkeys(name for names in files.values() for name in names))
    identity = (spec.source.event_time, *spec.source.entity)
    if columns is None:
        carried = tuple(name for name in present if name in identity)
    else:
        carried = tuple(dict.fromkeys(present if columns == "all" else columns))
    needed = tuple(column.name for column in bundle.schema.inputs)
    wanted = list(dict.fromkeys((*needed, *carried)))
    problems = absent_columns(spec, wanted, present, source.uri)
    for name in wanted:
        lacking = next((file for file, names in files.items() if name not in names), None)
        if name in present and lacking is not None:
            fix = "every file must have it" if name in needed else _OTHERS
            what = f"column {name!r} is not there, though in other files"
            problems.append(Problem(lacking, what, fix))
    problems += [
        Problem(f"column {name!r}", "is a name of Perennial's own", _OTHERS)
        for name in carried
        if name in _OURS
    ]
    problems += _alike(carried)
    if problems:
        raise InputError(problems)
    return source, carried


def _alike(carried: Sequence[str]) -> Iterator[Problem]:
    """A problem for each name that is, in other capitals, one before it or one of ours."""
    names = {name.lower(): name for name in _OURS}
    for name in carried:
        other = names.setdefault(name.lower(), name)
        if other != name:
            what = f"differs from {other!r} in capitals only, which tables don't tell apart"
            yield Problem(f"column {name!r}", what, _OTHERS)


def _with_source(spec: ModelSpec, uri: str, root: Path) -> ModelSpec:
    kind, own = sources.kind_of(uri, root), spec.source
    values: dict[str, Any] = {"kind": kind, "uri": uri, "entity": own.entity}
    if kind == "csv":
        values["delimiter"] = "\t" if sources.is_tabbed(uri) else own.delimiter
        values["decimal"] = own.decimal
    return spec.model_copy(update={"source": Source(event_time=own.event_time, **values)})


def score(
    bundle: Bundle,
    version: int,
    root: Path,
    source: SourceRef,
    columns: Sequence[str],
    folder: Path,
    threads: int,
    progress: Callable[[int], None],
) -> StagedRef:
    """Score a source's rows below ``folder``; the same rows and version give the same digest.

    A row is bad when a value that is scored or carried doesn't parse, one that the version needs is
    missing, or its features can't be computed. ``progress`` is told the rows read so far. Raises
    InputError for a source that can't be read or has no rows, and for feature code that fails for
    many rows; PerennialError when the source has changed meanwhile (nothing stays).
    """
    spec = _with_source(bundle.spec, source.uri, root)
    with new_folder(folder) as new:
        writer = _Writer(bundle, spec, version, columns, new, threads)
        for batch in sources.read(spec, root, source, writer.wanted):
            writer.add(batch)
            progress(writer.rows_read)
        if source.kind != "delta" and sources.inspect(spec, root, None, None) != source:
            raise PerennialError(f"{source.uri} has changed while it was scored; run again")
        stats = writer.stats()
        if not stats.rows + stats.bad_rows:
            raise InputError(Problem(source.uri, "no rows to score"))
        (new / "stats.json").write_text(stats.model_dump_json(), encoding="utf-8")
        place, digest = keep_folder(new)
    return StagedRef(uri=str(place), digest=digest, rows=stats.rows, bad_rows=stats.bad_rows)


class _Writer:
    """Takes batches, scores them, writes the files, keeps count."""

    def __init__(
        self,
        bundle: Bundle,
        spec: ModelSpec,
        version: int,
        carried: Sequence[str],
        folder: Path,
        threads: int,
    ) -> None:
        inputs = {
            column.name: Column(type=column.type, nullable=column.nullable)
            for column in bundle.schema.inputs
        }
        also = {
            name: Column(type=column.type)
            for name, column in table_columns(spec).items()
            if name in carried and name not in inputs
        }
        self.wanted = tuple(dict.fromkeys((*inputs, *carried)))
        self.rows_read = self._rows = self._files = 0
        self._checks = RowChecks(spec, columns={**inputs, **also})
        self._predictor = Predictor(bundle, threads)
        self._classes = bundle.schema.classes
        self._version = version
        self._carried = carried
        self._folder = folder
        self._bad = BadRows(folder / "bad")
        self._unseen: Counter[str] = Counter()
        self._schema: pa.Schema | None = None
        (folder / "good").mkdir()

    def add(self, batch: sources.Batch) -> None:
        checked = self._checks.check(batch.table)
        unfit: dict[int, str] = {}
        values = list(self._predict(checked.good, unfit))
        if unfit:
            checked = checked.without(unfit)
        self._bad.add(batch, checked)
        self.rows_read += batch.num_rows
        if not checked.good.num_rows:
            return
        rows = pa.array(checked.good_rows)
        carried = {
            name: checked.good[name]
            if name in self._checks.columns
            else _storable(name, batch.table[name].combine_chunks()).take(rows)
            for name in self._carried
        }
        outputs = output_columns(self._classes, np.concatenate(values))
        version = pa.repeat(pa.scalar(self._version, pa.int64()), len(rows))
        made = {name: column for name, column in outputs.items() if not column.null_count}
        self._write(pa.table({**carried, VERSION: version, **made}))

    def _predict(self, good: Any, unfit: dict[int, str]) -> Iterator[np.ndarray]:
        for start in range(0, good.num_rows, _SLICE):
            before = len(unfit)
            yield from self._parts(good.slice(start, _SLICE), start, unfit, before + _MOST_UNFIT)

    def _parts(
        self, rows: Any, first: int, unfit: dict[int, str], most: int
    ) -> Iterator[np.ndarray]:
        """Predictions of the rows that can be scored; the others are found by halving."""
        try:
            found = self._predictor.predict(rows)
        except InputError as error:
            half = rows.num_rows // 2
            if half:
                yield from self._parts(rows.slice(0, half), first, unfit, most)
                yield from self._parts(rows.slice(half), first + half, unfit, most)
                return
            alone = InputError([unnumbered(problem) for problem in error.problems])
            unfit[first] = " ".join(alone.message.split())
            if len(unfit) > most:
                what = f"more than {_MOST_UNFIT:,} of {_SLICE:,} rows, such as: {unfit[first]}"
                fix = "mend features.py, train again"
                raise InputError(Problem("features can't be computed", what, fix)) from None
            return
        self._unseen.update(found.unseen)
        yield found.values

    def _write(self, table: Any) -> None:
        before = self._schema or table.schema
        try:
            self._schema = pa.unify_schemas([before, table.schema])
        except pa.ArrowTypeError:
            raise InputError(list(_type_problems(before, table.schema))) from None
        path = self._folder / "good" / f"{self._files:05}.parquet"
        pq.write_table(table, path, compression="lz4")
        self._files += 1
        self._rows += table.num_rows

    def stats(self) -> ScoringStats:
        return ScoringStats(
            rows=self._rows,
            bad_rows=self._bad.rows,
            faults=self._bad.faults(),
            unseen=dict(sorted(self._unseen.items())),
        )


def _type_problems(before: Any, now: Any) -> Iterator[Problem]:
    for field in before:
        kinds = field.type, now.field(field.name).type
        if kinds[0] != kinds[1] and not any(map(pa.types.is_null, kinds)):
            what = f"is {kinds[0]} in one file and {kinds[1]} in another"
            yield Problem(f"column {field.name!r}", what, _OTHERS)


def _storable(name: str, values: Any) -> Any:
    """A column that model.yaml doesn't name, in a type that every Delta table knows; one without
    any value has none yet. Raises InputError for a duration, which would lose its unit."""
    values = unwrapped(values)
    kind = values.type
    if pa.types.is_uint64(kind):
        return values.cast(pa.decimal128(20))
    if pa.types.is_integer(kind):
        return values.cast(pa.int64())
    if pa.types.is_floating(kind):
        return values.cast(pa.float64())
    if pa.types.is_timestamp(kind):
        return values.cast(pa.timestamp("us", kind.tz), safe=False).cast(pa.timestamp("us", "UTC"))
    if pa.types.is_date(kind):
        return values.cast(pa.date32())
    if is_binary(kind):
        return values.cast(pa.binary())
    if pa.types.is_duration(kind):
        what = f"holds {kind}, and tables have no durations"
        fix = "make it a number of seconds, or carry the other columns only"
        raise InputError(Problem(f"column {name!r}", what, fix))
    if pa.types.is_boolean(kind) or pa.types.is_decimal128(kind) or pa.types.is_null(kind):
        return values
    return values.cast(pa.string())


def read_stats(staged: StagedRef) -> ScoringStats:
    """What was counted while the rows were scored."""
    text = (Path(staged.uri) / "stats.json").read_text(encoding="utf-8")
    return ScoringStats.model_validate_json(text)
