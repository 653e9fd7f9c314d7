"""Tables of predictions: what they hold, and how it is replaced.

A job's rows are published only when all of them are scored, each table in one commit whose
transaction number says what the table then holds: the same job again finds itself done, unless
somebody else has changed a table since.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from perennial.contracts.errors import InputError, Problem
from perennial.contracts.refs import StagedRef
from perennial.contracts.scoring import ScoresRef, ScoringJob
from perennial.data.audit import bad_share
from perennial.stores import lake
from perennial.stores.scoring import ScoringStats, read_stats
from perennial.stores.staging import BAD_SCHEMA, ROW, bad_files, good_files
from perennial.stores.storage.objects import Objects
from perennial.stores.storage.places import is_remote

_BAD_SCHEMA = pa.schema([field for field in BAD_SCHEMA if field.name not in ("position", ROW)])
_LEFT = re.compile(r"_delta_log(/.*)?|part-[^/]*\.parquet")
"""Names of what a writer leaves that is killed before it commits."""


def find(job: ScoringJob) -> ScoresRef | None:
    """The predictions of a job that is done already; None when there is something to do, as where
    its rows or its bad rows are no longer what its tables hold.

    Raises InputError when there is something else at the output's place: it is never replaced.
    """
    table = _ours(job.output, _about(job))
    bad = _ours(job.quarantine, _about(job, "unscored rows"))
    made = _made(job, table, job.output)
    if table is None or made is None:
        return None
    bad_rows = int(made["perennial.bad_rows"])
    if (bad_rows or bad is not None) and _made(job, bad, job.quarantine) is None:
        return None
    return ScoresRef(
        uri=job.output,
        version=int(table.version()),
        rows=int(made["perennial.rows"]),
        bad_rows=bad_rows,
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
    version = _replace(job, job.output, _about(job), lineage, good, _schema(good))
    return ScoresRef(
        uri=job.output, version=version, rows=stats.rows, bad_rows=stats.bad_rows, changed=True
    )


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
        if table is not None and _made(job, table, uri) is not None:
            return int(table.version())
        rows = pa.RecordBatchReader.from_batches(schema, _batches(files, schema))
        lake.write(
            uri, table, rows, replace=True, schema_mode="overwrite", about=about, lineage=lineage,
            number=job.number,
        )  # fmt: skip
        return lake.version_of(uri)

    return lake.until_committed(uri, attempt)


def _made(job: ScoringJob, table: Any | None, uri: str) -> Mapping[str, Any] | None:
    """What is told of the commit that made a table what the job makes of it; None when the table
    isn't that, or not in full."""
    if table is None or lake.number_of(table) != job.number or not lake.files_intact(table, uri):
        return None
    return lake.last_write(table)


def _schema(files: list[Path]) -> Any:
    """The columns of all files. One that is empty in some has the type that others give it; in all
    of them, text."""
    schema = pa.unify_schemas([pq.read_schema(path) for path in files])
    return pa.schema(
        field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in schema
    )


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
    if not is_remote(uri):
        _check_folder(Path(uri))
    table = lake.open_table(uri) if is_remote(uri) or Path(uri).is_dir() else None
    (what, model), *_ = about.items()
    if table is not None and lake.about(table) != about:
        problem = f"there is a table that doesn't hold {what} of {model!r}"
        raise InputError(Problem(uri, problem, "name another place"))
    if table is None and not _as_if_new(uri):
        raise InputError(Problem(uri, "there is something else", "name another place"))
    return table


def _check_folder(place: Path) -> None:
    """Raises InputError for a folder that isn't there and can't be made."""
    try:
        place.stat()
        return
    except (FileNotFoundError, NotADirectoryError):
        near = next(path for path in (place, *place.parents) if os.path.lexists(path))
        if near.is_dir() and os.access(near, os.W_OK | os.X_OK):
            return
        what = f"the folder can't be made in {near}"
    except OSError as error:
        what = f"the folder can't be made: {error.strerror}"
    raise InputError(Problem(str(place), what, "name another place"))


def _as_if_new(uri: str) -> bool:
    """Whether nothing is there but what a writer leaves that is killed before it commits."""
    if is_remote(uri):
        names = (name for name, _ in Objects(uri).listed())
    elif Path(uri).is_dir():
        names = (path.name for path in Path(uri).iterdir())
    else:
        return not Path(uri).exists()
    return all(map(_LEFT.fullmatch, names))
