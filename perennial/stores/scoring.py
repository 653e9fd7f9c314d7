"""Batch scoring: a source's rows scored in bounded memory, then put in the place of a table's rows.

The rows are scored into a folder of their own, named by the digest of its content::

    good/00000.parquet …   carried columns, version, predictions, in the order of the source
    bad/00000.parquet …    as in staging
    stats.json             ScoringStats

Only a complete folder is published, each table in one commit. The commit's transaction number says
what the table holds, so that the same job again finds it done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from perennial.bundle.outputs import output_columns
from perennial.bundle.predictor import Predictor
from perennial.bundle.read import Bundle
from perennial.contracts.errors import InputError, PerennialError, Problem
from perennial.contracts.refs import SourceRef, StagedRef, Value
from perennial.contracts.scoring import ScoresRef, ScoringJob
from perennial.data.audit import FaultCount, bad_share
from perennial.data.checks import RowChecks
from perennial.data.frames import table_columns
from perennial.spec import ModelSpec
from perennial.spec.inputs import Column, Source
from perennial.stores import lake, sources
from perennial.stores.artefacts import keep_folder, new_folder
from perennial.stores.sources.batches import absent_columns
from perennial.stores.staging import BAD_SCHEMA, ROW, BadRows, bad_files, good_files

VERSION = "_version"
_OURS = (VERSION, "_prediction", "_class", "_probabilities")
_BAD_SCHEMA = pa.schema([*(field for field in BAD_SCHEMA if field.name != ROW)])
_SLICE = 65_536  # rows whose features are in memory at a time
_MOST_UNFIT = 1_000  # of a slice: beyond it the features are at fault, not the rows


class ScoringStats(Value):
    """What was counted while rows were scored. ``unseen`` counts values by feature that training
    never saw; they were scored as missing."""

    rows: int
    bad_rows: int
    faults: tuple[FaultCount, ...]
    unseen: dict[str, int]


def look(
    bundle: Bundle, root: Path, uri: str, columns: Sequence[str] | Literal["all"] | None
) -> tuple[SourceRef, tuple[str, ...]]:
    """The source behind a URI (CSV or Parquet files, a Delta table) and the columns of it to carry.

    ``columns`` None: the entity and the event time as far as the source has them. Raises InputError
    when there is nothing to read, and for every column that the version needs, or that was asked
    for, and that is not there.
    """
    spec = _with_source(bundle.spec, uri, root)
    source = sources.inspect(spec, root, None, None)
    present = sources.columns(spec, root, source)
    identity = (spec.source.event_time, *spec.source.entity)
    if columns is None:
        carried = tuple(name for name in present if name in identity)
    else:
        carried = tuple(dict.fromkeys(present if columns == "all" else columns))
    needed = tuple(column.name for column in bundle.schema.inputs)
    problems = absent_columns(spec, list(dict.fromkeys((*needed, *carried))), present, source.uri)
    problems += [
        Problem(f"column {name!r}", "is a name of Perennial's own", "carry the other columns only")
        for name in carried
        if name in _OURS
    ]
    if problems:
        raise InputError(problems)
    return source, carried


def _with_source(spec: ModelSpec, uri: str, root: Path) -> ModelSpec:
    kind, own = sources.kind_of(uri, root), spec.source
    values: dict[str, Any] = {"kind": kind, "uri": uri, "entity": own.entity}
    if kind == "csv":
        values["delimiter"] = "\t" if ".tsv" in uri.lower() else own.delimiter
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
            else _storable(batch.table[name].combine_chunks().take(rows))
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
            reason = " ".join(error.message.split())
            unfit[first] = reason.replace(" in row 1 (1 of 1 rows)", "")
            if len(unfit) > most:
                what = f"more than {_MOST_UNFIT:,} of {_SLICE:,} rows, such as: {unfit[first]}"
                fix = "mend features.py, train again"
                raise InputError(Problem("features can't be computed", what, fix)) from None
            return
        self._unseen.update(found.unseen)
        yield found.values

    def _write(self, table: Any) -> None:
        self._schema = self._schema or table.schema
        if table.schema != self._schema:
            raise InputError(list(_type_problems(self._schema, table.schema)))
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
        if now.field(field.name).type != field.type:
            what = f"is {field.type} in one file and {now.field(field.name).type} in another"
            yield Problem(f"column {field.name!r}", what, "carry the other columns only")


def _storable(values: Any) -> Any:
    """A column that model.yaml doesn't name, in a type that every Delta table knows."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _storable(values.cast(kind.value_type))
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
    if pa.types.is_boolean(kind) or pa.types.is_decimal128(kind) or pa.types.is_binary(kind):
        return values
    return values.cast(pa.string())


def find(job: ScoringJob) -> ScoresRef | None:
    """The predictions of a job that is done already; None when there is something to do.

    Raises InputError when there is something else at the output's place: it is never replaced.
    """
    table = _ours(job.output, _about(job))
    bad = _ours(job.quarantine, _about(job, "unscored rows"))
    if table is None or lake.number_of(table) != job.number:
        return None
    if not lake.files_intact(table, job.output):
        return None
    return ScoresRef(
        uri=job.output,
        version=int(table.version()),
        rows=_count(table),
        bad_rows=_count(bad) if bad is not None and lake.number_of(bad) == job.number else 0,
        changed=False,
    )


def publish(job: ScoringJob, staged: StagedRef) -> ScoresRef:
    """Put a job's predictions in the place of what its table holds, and its bad rows in quarantine.

    May be repeated: what is there already is left as it is. Raises InputError, before anything is
    changed, when too many rows are bad.
    """
    stats = read_stats(staged)
    total = stats.rows + stats.bad_rows
    place = str(Path(staged.uri) / "bad")
    finding = bad_share(total, stats.bad_rows, stats.faults, job.max_share, place)
    if finding.outcome == "failed":
        raise InputError(Problem(job.source.uri, finding.what, finding.fix))
    if not stats.rows:
        raise InputError(Problem(job.source.uri, f"none of {total:,} rows can be scored"))
    lineage = _lineage(job, stats)
    bad = bad_files(staged)
    if bad or lake.open_table(job.quarantine) is not None:
        _replace(job, job.quarantine, _about(job, "unscored rows"), lineage, bad, _BAD_SCHEMA)
    good = good_files(staged)
    schema = pq.read_schema(good[0])
    version = _replace(job, job.output, _about(job), lineage, good, schema)
    return ScoresRef(
        uri=job.output, version=version, rows=stats.rows, bad_rows=stats.bad_rows, changed=True
    )


def read_stats(staged: StagedRef) -> ScoringStats:
    """What was counted while the rows were scored."""
    text = (Path(staged.uri) / "stats.json").read_text(encoding="utf-8")
    return ScoringStats.model_validate_json(text)


def _replace(
    job: ScoringJob,
    uri: str,
    about: Mapping[str, str],
    lineage: Mapping[str, str],
    files: list[Path],
    schema: Any,
) -> int:
    """Make the files' rows all that a table holds, in one commit. Returns the table's version."""

    def attempt() -> int:
        table = _ours(uri, about)
        if (
            table is not None
            and lake.number_of(table) == job.number
            and lake.files_intact(table, uri)
        ):
            return int(table.version())
        rows = pa.RecordBatchReader.from_batches(schema, _batches(files, schema))
        lake.write(
            uri, table, rows, replace=True, schema_mode="overwrite", about=about, lineage=lineage,
            number=job.number,
        )  # fmt: skip
        return lake.version_of(uri)

    return lake.until_committed(uri, attempt)


def _batches(files: list[Path], schema: Any) -> Iterator[Any]:
    for path in files:  # read ahead by one batch only
        fragment = ds.dataset(path, schema=schema, format="parquet")
        yield from fragment.scanner(batch_readahead=1, fragment_readahead=1).to_batches()


def _about(job: ScoringJob, what: str = "predictions") -> dict[str, str]:
    return {what: job.version.model}


def _lineage(job: ScoringJob, stats: ScoringStats) -> dict[str, str]:
    values = {
        "model": job.version.model,
        "version": job.version.version,
        "digest": job.version.digest,
        "source": job.source.uri,
        "source_kind": job.source.kind,
        "source_fingerprint": job.source.fingerprint,
        "rows": stats.rows,
        "bad_rows": stats.bad_rows,
    }
    return {f"perennial.{name}": str(value) for name, value in values.items()}


def _ours(uri: str, about: Mapping[str, str]) -> Any | None:
    """The table at ``uri``; None when there is none. Raises InputError for what isn't ours."""
    place = None if "://" in uri else Path(uri)
    table = None if place is not None and not place.is_dir() else lake.open_table(uri)
    (what, model), *_ = about.items()
    if table is not None and lake.about(table) != about:
        problem = f"there is a table that doesn't hold {what} of {model!r}"
        raise InputError(Problem(uri, problem, "name another place"))
    if table is None and place is not None and place.exists() and not _as_if_new(place):
        raise InputError(Problem(uri, "there is something else", "name another place"))
    return table


def _as_if_new(place: Path) -> bool:
    """Whether a folder has nothing but what a writer leaves that is killed before it commits."""
    if not place.is_dir():
        return False
    others = (path for path in place.iterdir() if path.name != "_delta_log")
    return all(path.match("part-*.parquet") for path in others)


def _count(table: Any) -> int:
    return int(sum(pa.table(table.get_add_actions())["num_records"].to_pylist()))
