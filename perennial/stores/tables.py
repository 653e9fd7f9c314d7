"""A model's Delta table: published to from staging, and read as a dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pyarrow as pa

from perennial.contracts.errors import InputError, IntegrityError, PerennialError, Problem
from perennial.contracts.moments import AHEAD, as_utc
from perennial.contracts.refs import DatasetRef, StagedRef
from perennial.data.checks import rules_digest
from perennial.data.frames import arrow_schema, canonical_frame, schema_digest, table_columns
from perennial.data.profile import Profile
from perennial.spec import ModelSpec
from perennial.stores import engine, lake, quarantine, sources
from perennial.stores.folders import new_folder
from perennial.stores.judging import Judge
from perennial.stores.staging import ROW, bad_files, good_files, read_stats, repeats_file
from perennial.stores.standing import standing_of
from perennial.stores.upsert import Incoming, Leaving, upsert

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a batch. ``version`` is the table's, the one before when nothing changed.
    ``refused`` rows left the table for quarantine, ``put_back`` came from there: rules changed."""

    version: int
    refused: int = 0
    put_back: int = 0


def publish(
    spec: ModelSpec,
    staged: StagedRef,
    table_uri: str,
    quarantine_uri: str,
    since: datetime | None = None,
    seen: int | None = None,
) -> Published:
    """Take a staged batch into the model's table, its bad rows into quarantine.

    Rows whose identity is new are added, those whose content differs replaced, equal ones left; of
    repeats in the batch the last counts. A source without event time replaces the whole table if
    anything differs. When the rules of the columns are others than those the table's rows passed,
    rows in quarantine that pass them come back, and rows of the table that don't go there; a row
    whose correction is bad stays as it was if that passes. Of a row in quarantine the source's last
    word counts: if the batch brings it well it leaves. Each table changes in one commit and each
    step may be repeated: after a kill, running it again comes to the same end.

    ``since`` is where reading the source began (None: at its beginning). If by now the table needs
    rows of before that, as it does once an earlier version was put back, nothing is written and
    PerennialError raised: the rows between would be missing ever after. So it is if a row would
    change and the table has taken in the source since it had taken in ``seen`` ingestions, which it
    had when the source was looked at (None: not known): the row of the later look would be lost.

    Raises InputError when there is nothing to make a table of, the table was made for columns of
    other types or another identity, or more than ``quarantine.max_share`` of its rows break a rule;
    UnavailableError when other writers keep being quicker.
    """
    stats, bad, good = read_stats(staged), bad_files(staged), _good_rows(spec, staged)
    table, columns = lake.open_table(table_uri), table_columns(spec)
    timed = spec.source.event_time is not None
    _check_joins(spec, since, table_uri)
    if table is not None and timed:
        lake.check_fits(table, table_uri, arrow_schema(columns), spec.identity)
    rules = rules_digest(columns)
    changed = timed and table is not None and standing_of(table).rules != rules
    if not good_files(staged) and not changed:
        quarantine.record(spec, bad, staged.digest, quarantine_uri, good)
        if table is None:
            what = "no row of the source passed its checks"
            raise InputError(Problem(stats.source, what))
        return Published(int(table.version()))
    near = engine.spill_place(table_uri)
    if not timed:

        def admit_all() -> None:
            quarantine.record(spec, bad, staged.digest, quarantine_uri, good)

        with engine.connect(near) as connection:
            return Published(_replace(connection, spec, good, table_uri, seen, admit_all))
    put_back = quarantine.put_back(spec, quarantine_uri, table_uri).put_back if changed else 0
    rows = Incoming(
        relation=good,
        schema=arrow_schema(columns),
        keys=spec.identity,
        content=[name for name in columns if name not in spec.identity],
        time=spec.source.event_time,
        window=(stats.start, stats.end),
        ordered=stats.ordered and not stats.repeats,
        rules=rules,
        whole=stats.whole,
        seen=seen,
    )
    with new_folder(near) as work, engine.connect(near) as connection:
        judge = Judge(connection, spec, staged, rows, table_uri, quarantine_uri, work)

        def admit(found: Any | None) -> Leaving | None:
            _check_joins(spec, since, table_uri)  # another writer may have been quicker
            return judge(found)

        done = upsert(connection, table_uri, rows, admit=admit)
    return Published(done.version, done.removed, put_back)


def _check_joins(spec: ModelSpec, since: datetime | None, uri: str) -> None:
    """Refuse a batch that was read from later on than the table now needs."""
    if since is None:
        return
    start = sources.start(spec, watermark(spec, uri))
    if start is None or start < since:
        need = "all rows" if start is None else f"rows from {start:%Y-%m-%d %H:%M:%S} UTC on"
        raise PerennialError(
            f"{uri}: the table was put back or made anew while this run read its source from "
            f"{since:%Y-%m-%d %H:%M:%S} UTC on, and now needs {need}; nothing was written (run "
            "again: it then reads from there)"
        )


def _good_rows(spec: ModelSpec, staged: StagedRef) -> str:
    """A batch's good rows as a relation in SQL, of repeats the last."""
    files, repeats = good_files(staged), repeats_file(staged)
    if not files:
        numbered = arrow_schema(table_columns(spec)).append(pa.field(ROW, pa.int64()))
        return lake.no_rows(numbered)
    relation = engine.parquet(files)
    if repeats is not None:
        relation = f"(SELECT * FROM {relation} ANTI JOIN {engine.parquet([repeats])} USING ({ROW}))"
    return relation


def _replace(
    connection: Any,
    spec: ModelSpec,
    relation: str,
    uri: str,
    seen: int | None,
    admit: Callable[[], None],
) -> int:
    """Make a snapshot the table's content, unless it is already. ``admit`` is called before, and
    again when another writer was quicker. Raises PerennialError as ``lake.check_latest``."""
    schema = _stored(spec)

    def attempt() -> int:
        table = lake.open_table(uri)
        if (
            table is not None
            and set(lake.schema_of(table)) == set(schema)
            and _summary(connection, spec, lake.relation(connection, table, uri))
            == _summary(connection, spec, relation)
        ):
            admit()
            return int(table.version())
        lake.check_latest(table, uri, seen)
        admit()
        rows = connection.sql(f"SELECT {engine.names(schema.names)} FROM {relation}")
        reader = rows.to_arrow_reader(100_000)
        about: dict[str, Any] = {"identity": []}
        lake.write(
            uri, table, reader, replace=True, schema_mode="overwrite", about=about, ingestion=True
        )
        return lake.version_of(uri)

    return lake.until_committed(uri, attempt)


def _stored(spec: ModelSpec) -> Any:
    """A table's Arrow schema; the order of a snapshot without identity is a column of it."""
    schema = arrow_schema(table_columns(spec))
    return schema if spec.identity else schema.append(pa.field(ROW, pa.int64()))


def _content_sum(spec: ModelSpec) -> str:
    """A number that is the same for the same rows in whatever order they lie, in SQL."""
    return f"sum(hash({engine.names(_stored(spec).names)})::HUGEINT)"


def _summary(connection: Any, spec: ModelSpec, rows: str) -> tuple[Any, ...]:
    """How many rows a relation has, and their content's sum."""
    return engine.one(connection, f"SELECT count(*), {_content_sum(spec)} FROM {rows}")


def _content_digest(count: int, content_sum: int) -> str:
    return hashlib.sha256(f"{count} {content_sum}".encode()).hexdigest()[:16]


def exists(table_uri: str) -> bool:
    """Whether there is a table. Raises IntegrityError when its log is damaged."""
    return lake.open_table(table_uri) is not None


def ingestions(table_uri: str) -> int:
    """How many ingestions a table has taken in; 0 when there is none. Raises as ``exists``."""
    return lake.ingestions_of(lake.open_table(table_uri))


def watermark(spec: ModelSpec, table_uri: str, now: datetime | None = None) -> datetime | None:
    """The last event time that was ingested; None where reading must start from the beginning.

    That is also so when model.yaml names a column that the table doesn't have, or that some reading
    left out: the rows already there get its values when the source is read anew. Events more than
    a day after ``now`` (None: by the clock) don't count: a single one that came in as a mistake
    would end all reading.
    """
    table, time = lake.open_table(table_uri), spec.source.event_time
    if table is None or time is None:
        return None
    read = standing_of(table).columns
    if read is None or not set(table_columns(spec)) <= read:
        return None
    with engine.connect(engine.spill_place(table_uri)) as connection:
        rows = lake.relation(connection, table, table_uri)
        last = engine.micros(f"max({engine.name(time)})")
        latest = engine.at((now or datetime.now(UTC)) + AHEAD)
        bound = f"{engine.name(time)} <= {latest}"
        (micros,) = engine.one(connection, f"SELECT {last} FROM {rows} WHERE {bound}")
    return None if micros is None else engine.moment(micros)


def dataset(
    spec: ModelSpec, table_uri: str, as_of: datetime | None, now: datetime | None = None
) -> DatasetRef:
    """A model's rows as they are now, up to and including the events of ``as_of`` (naive: UTC).

    Nothing is known after ``now`` (None: by the clock), which stands for an ``as_of`` of None. The
    window is ``[first event, last event + 1 µs)`` of the rows with event time <= ``as_of``, and the
    reference's ``as_of`` the lesser of ``as_of`` and that last event + label.delay + 1 µs, when
    every label of the window is known. Where none was given, it is the moment at which the last
    label became known (+ 1 µs): the clock alone doesn't change it. Without event time all rows, and
    no window.

    Raises InputError when there are no such rows, IntegrityError when the table is damaged.
    """
    table, time = lake.open_table(table_uri), spec.source.event_time
    if table is None:
        raise InputError(Problem(table_uri, "no table: nothing was ingested yet"))
    _check_columns(spec, table, table_uri)
    now = now or datetime.now(UTC)
    moment = now if as_of is None else min(as_utc(as_of), now)
    start = end = known_at = None
    content = _content_sum(spec)
    with engine.connect(engine.spill_place(table_uri)) as connection:
        rows = lake.relation(connection, table, table_uri)
        if time is None:
            count, content_sum = _summary(connection, spec, rows)
        else:
            column = engine.name(time)
            due = f"{column} <= {engine.at(now - spec.label.delay)}"
            ends = (f"min({column})", f"max({column})", f"max({column}) FILTER ({due})")
            micros = ", ".join(engine.micros(end) for end in ends)
            bound = f"{column} <= {engine.at(moment)}"
            query = f"SELECT count(*), {content}, {micros} FROM {rows} WHERE {bound}"
            count, content_sum, first, last, known = engine.one(connection, query)
            if count:
                start, end = engine.moment(first), engine.moment(last) + _MICROSECOND
                known_at = min(moment, end + spec.label.delay)
                if as_of is None and known is not None:
                    known_at = engine.moment(known) + spec.label.delay + _MICROSECOND
    if not count:
        until = "" if time is None else f" up to {moment.isoformat()}"
        fix = "" if as_of is None else "name a later moment"
        raise InputError(Problem(table_uri, f"no rows{until}", fix))
    return DatasetRef(
        uri=table_uri,
        version=int(table.version()),
        start=start,
        end=end,
        as_of=known_at,
        rows=count,
        schema_digest=schema_digest(table_columns(spec)),
        content_digest=_content_digest(count, content_sum),
        rows_by="content",
    )


def is_current(spec: ModelSpec, ref: DatasetRef, now: datetime | None = None) -> bool:
    """Whether ``dataset`` without ``as_of`` still gives what it gave of this version of the table:
    since then no label became known, and the time of no event has come. Raises as ``scan``."""
    time, delay = spec.source.event_time, spec.label.delay
    if time is None or ref.as_of is None:
        return True
    table = lake.open_table(ref.uri, ref.version)
    now = now or datetime.now(UTC)
    column = engine.name(time)
    due = f"{column} <= {engine.at(now - delay)}"
    ends = (f"max({column})", f"max({column}) FILTER ({due})")
    with _readable(ref), engine.connect(engine.spill_place(ref.uri)) as connection:
        newest = (ref.as_of - delay - _MICROSECOND, now)  # the last label's event, and what follows
        rows = lake.relation(connection, table, ref.uri, time, newest)
        micros = ", ".join(engine.micros(end) for end in ends)
        query = f"SELECT {micros} FROM {rows} WHERE {column} <= {engine.at(now)}"
        last, known = engine.one(connection, query)
    if last is None or known is None:
        return False
    found = engine.moment(last) + _MICROSECOND, engine.moment(known) + delay + _MICROSECOND
    return found == (ref.end, ref.as_of)


def intact(ref: DatasetRef) -> bool:
    """Whether a dataset's version can still be read: its log, and all its files in full."""
    try:
        table = lake.open_table(ref.uri, ref.version)
    except IntegrityError:
        return False
    return table is not None and lake.files_intact(table, ref.uri)


def holds(ref: DatasetRef, spec: ModelSpec) -> bool:
    """Whether a dataset's version has the rows that it was described by. A table that was made anew
    counts its versions from 0 again. Raises as ``scan``."""
    with opened(ref, spec) as (connection, rows):
        return _content_digest(*_summary(connection, spec, rows)) == ref.content_digest


def may_hold(ref: DatasetRef, spec: ModelSpec) -> bool:
    """Whether a dataset's version has the model's columns, and as many rows as it was described by.
    Where it hasn't, ``holds`` needn't be asked, which DuckDB's releases may answer differently.
    Raises IntegrityError as ``scan``."""
    table = lake.open_table(ref.uri, ref.version)
    if table is None or _misfits(spec, table, ref.uri):
        return False
    with opened(ref, spec) as (connection, rows):
        return bool(engine.one(connection, f"SELECT count(*) FROM {rows}")[0] == ref.rows)


def scan(
    ref: DatasetRef,
    spec: ModelSpec,
    columns: Sequence[str] | None = None,
    batch_rows: int = 262_144,
    part: str = "true",
) -> Iterator[pd.DataFrame]:
    """A dataset's rows in canonical order as canonical frames of at most ``batch_rows`` rows.

    Canonical order is by event time, then the other columns of the identity, missing values last; a
    snapshot without identity keeps the order of its source. ``columns`` (default: all) come in the
    order given. Sorted outside memory where need be. ``part`` is a condition in SQL.

    Raises IntegrityError when the version or a file is gone or damaged, InputError when a column
    isn't in the table or misses values that model.yaml no longer allows to be missing.
    """
    known = table_columns(spec)
    chosen = {name: known[name] for name in (columns if columns is not None else known)}
    order = f"WHERE {part} ORDER BY {engine.names(spec.identity or [ROW])}"
    for batch in _batches(ref, spec, list(chosen), batch_rows, order):
        yield canonical_frame(batch, chosen)


def profile(ref: DatasetRef, spec: ModelSpec) -> dict[str, Any]:
    """The profile of a dataset's rows (``Profile.as_dict``), for the audit of later batches."""
    columns = table_columns(spec)
    result = Profile(columns)
    for batch in _batches(ref, spec, list(columns), 262_144, ""):
        result.add(batch)
    return result.as_dict()


def _batches(
    ref: DatasetRef, spec: ModelSpec, columns: list[str], batch_rows: int, order: str
) -> Iterator[Any]:
    with opened(ref, spec) as (connection, rows):
        query = f"SELECT {engine.names(columns) or ROW} FROM {rows} {order}"
        for batch in connection.sql(query).to_arrow_reader(batch_rows):
            yield pa.Table.from_batches([batch])


@contextmanager
def opened(ref: DatasetRef, spec: ModelSpec) -> Iterator[tuple[Any, str]]:
    """A DuckDB connection, and a dataset's rows as a relation in it. Raises as ``scan``."""
    table = lake.open_table(ref.uri, ref.version)
    if table is None or not lake.files_intact(table, ref.uri):
        what = f"version {ref.version} of the table is gone"
        raise IntegrityError(Problem(ref.uri, what, "run again: the table is then read as it is"))
    _check_columns(spec, table, ref.uri)
    time = spec.source.event_time
    window = "true"
    if time is not None and ref.start is not None and ref.end is not None:
        column = engine.name(time)
        window = f"{column} >= {engine.at(ref.start)} AND {column} < {engine.at(ref.end)}"
    with _readable(ref), engine.connect(engine.spill_place(ref.uri)) as connection:
        rows = lake.relation(connection, table, ref.uri, time, (ref.start, ref.end))
        yield connection, f"(SELECT * FROM {rows} WHERE {window})"


@contextmanager
def _readable(ref: DatasetRef) -> Iterator[None]:
    import duckdb

    try:
        yield
    except (duckdb.Error, pa.ArrowException) as error:
        what = f"version {ref.version} can't be read: {str(error).splitlines()[0][:200]}"
        fix = "restore the table from a backup, or remove its folder and train anew"
        raise IntegrityError(Problem(ref.uri, what, fix)) from None


def _check_columns(spec: ModelSpec, table: Any, uri: str) -> None:
    problems = _misfits(spec, table, uri)
    if problems:
        raise InputError(problems)


def _misfits(spec: ModelSpec, table: Any, uri: str) -> list[Problem]:
    """Columns of the model that the table doesn't have, or has with another type."""
    known = lake.schema_of(table)
    return [
        Problem(f"{uri}, column {field.name!r}", what, "ingest anew: train with --force")
        for field in arrow_schema(table_columns(spec))
        for what in (
            ["model.yaml names it, the table doesn't have it"]
            if field.name not in known.names
            else [f"stored as {known.field(field.name).type}, model.yaml makes it {field.type}"]
            if known.field(field.name).type != field.type
            else []
        )
    ]
