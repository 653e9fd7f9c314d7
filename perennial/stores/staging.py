"""Staging: a source's rows read, typed and checked in a folder of their own, not yet published.

The folder, named by the digest of its content::

    good/00000.parquet …   the table's columns, and each row's number in the order of the source
    bad/00000.parquet …    reason, place, the row as JSON text, event time as far as it is known
    repeats.parquet        numbers of the good rows that come again later in the batch
    stats.json             BatchStats
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from perennial.contracts.refs import SourceRef, StagedRef
from perennial.data.audit import BatchStats, FaultCount, ValidationReport, audit
from perennial.data.checks import Checked, RowChecks, texts_of
from perennial.data.profile import Profile
from perennial.spec import ModelSpec
from perennial.spec.rules import OURS
from perennial.stores import sources
from perennial.stores.compute import HERE, Compute
from perennial.stores.folders import keep_folder, new_folder, remove_folder
from perennial.stores.repeats import Repeats, find_repeats

ROW = f"{OURS}row"
"""The column of a good row's number; a table without identity keeps it as its order."""

BAD_SCHEMA = pa.schema(
    [
        ("reason", pa.string()),
        ("place", pa.string()),
        ("row", pa.string()),
        ("event_time", pa.timestamp("us", "UTC")),
        ("position", pa.int64()),
        (ROW, pa.int64()),
    ]
)
"""``position``: the row's number in the order of the source, beside those of the good rows; missing
where it has no columns, or comes from no source."""
_EXAMPLES = 5
_AHEAD = 16
"""Batches that are on their way to a cluster or back, at most: each takes memory here."""


def stage(
    spec: ModelSpec,
    root: Path,
    source: SourceRef,
    folder: Path,
    compute: Compute = HERE,
    now: datetime | None = None,
) -> StagedRef:
    """Read, type and check a source's rows below ``folder``.

    They are read here, in order; ``compute`` types, checks and profiles them. Events more than a
    day after ``now`` (None: by the clock) are bad; else the same content gives the same digest,
    wherever and whenever. Memory is bounded by a batch and DuckDB's limit, whatever the number of
    rows. Raises InputError for a source that can't be read (nothing stays).
    """
    with new_folder(folder) as new:
        writer = _Writer(spec, source, new, now or datetime.now(UTC))
        writer.add_all(sources.read(spec, root, source), compute)
        stats = writer.finish()
        (new / "stats.json").write_text(stats.model_dump_json(), encoding="utf-8")
        place, digest = keep_folder(new)
    return StagedRef(uri=str(place), digest=digest, rows=stats.rows, bad_rows=stats.bad_rows)


def prune(folder: Path, keep: Path) -> None:
    """Remove the batches staged below ``folder`` but ``keep`` and those of the last hour, which
    another run may be about to publish."""
    for place in folder.iterdir():
        if place == keep or place.name.startswith("."):
            continue
        with suppress(OSError):  # another run prunes too; what can't be removed is left
            if place.is_dir() and time.time() - place.stat().st_mtime > 3600:
                remove_folder(place)


def whole(staged: StagedRef) -> bool:
    """Whether a batch still has all its rows: staging is scratch, which may go at any time."""
    try:
        counted = json.loads((Path(staged.uri) / "stats.json").read_text(encoding="utf-8"))
        good, bad = _rows(good_files(staged)), _rows(bad_files(staged))
        repeats = _rows(filter(None, [repeats_file(staged)]))
    except (OSError, ValueError):
        return False
    return (good, bad, repeats) == (staged.rows, staged.bad_rows, counted.get("repeats", 0))


def _rows(files: Iterable[Path]) -> int:
    return sum(pq.read_metadata(file).num_rows for file in files)


def read_stats(staged: StagedRef) -> BatchStats:
    """What was counted while the batch was staged."""
    text = (Path(staged.uri) / "stats.json").read_text(encoding="utf-8")
    return BatchStats.model_validate_json(text)


def validate(
    spec: ModelSpec, staged: StagedRef, reference: Mapping[str, Any] | None
) -> ValidationReport:
    """Audit a staged batch; see ``perennial.data.audit.audit``. ``reference`` is a profile."""
    return audit(spec, read_stats(staged), reference, str(Path(staged.uri) / "bad"))


def good_files(staged: StagedRef) -> list[Path]:
    """The files of good rows, in the order of the source."""
    return sorted((Path(staged.uri) / "good").glob("*.parquet"))


def bad_files(staged: StagedRef) -> list[Path]:
    """The files of bad rows, in the order of the source."""
    return sorted((Path(staged.uri) / "bad").glob("*.parquet"))


def repeats_file(staged: StagedRef) -> Path | None:
    """The file of repeated rows' numbers; None when there is no repeat."""
    path = Path(staged.uri) / "repeats.parquet"
    return path if path.is_file() else None


class BadRows:
    """Takes the bad rows of one batch after another into files of a new folder, and counts the
    rules they break. ``rows`` is their number so far, ``decimal`` the mark of the source's numbers
    if they are text there."""

    def __init__(self, folder: Path, decimal: Literal[".", ","] = ".") -> None:
        self.rows = 0
        self._folder = folder
        self._decimal: Literal[".", ","] = decimal
        self._files = 0
        self._faults: dict[tuple[str, str], tuple[int, list[str]]] = {}
        folder.mkdir()

    def add(self, batch: sources.Batch, checked: Checked, first: int | None = None) -> None:
        """``first`` is the number of the batch's first row in the source, if that matters."""
        for fault in checked.faults:
            examples = zip(fault.rows[:_EXAMPLES], fault.told[:_EXAMPLES].to_pylist(), strict=True)
            told = [f"{batch.where(int(row))} ({what})" for row, what in examples]
            self._count(fault.column, fault.rule, len(fault.rows), told)
        broken = [row for at, row in batch.malformed if checked.inside(at)]
        if broken:
            told = [f"{row.where} ({row.reason})" for row in broken[:_EXAMPLES]]
            self._count("", "malformed", len(broken), told)
        rows = len(checked.bad_rows) + len(broken)
        if not rows:
            return
        times = checked.times
        if times is None:
            times = pa.nulls(len(checked.bad_rows), BAD_SCHEMA.field("event_time").type)
        places = [batch.where(int(row)) for row in checked.bad_rows]
        texts = texts_of(batch.table, checked.bad_rows, self._decimal)
        positions = pa.nulls(len(checked.bad_rows), pa.int64())
        if first is not None:
            positions = pa.array(checked.bad_rows + first, pa.int64())
        columns = [
            pa.array([*checked.reasons.to_pylist(), *(row.reason for row in broken)]),
            pa.array([*places, *(row.where for row in broken)]),
            pa.array([*texts, *(json.dumps(row.text) for row in broken)]),
            pa.concat_arrays([times, pa.nulls(len(broken), times.type)]),
            pa.concat_arrays([positions, pa.nulls(len(broken), pa.int64())]),
            pa.array(range(self.rows, self.rows + rows)),
        ]
        path = self._folder / f"{self._files:05}.parquet"
        pq.write_table(pa.table(columns, schema=BAD_SCHEMA), path, compression="zstd")
        self._files += 1
        self.rows += rows

    def _count(self, column: str, rule: str, rows: int, examples: list[str]) -> None:
        before, told = self._faults.get((column, rule), (0, []))
        self._faults[column, rule] = (before + rows, (told + examples)[:_EXAMPLES])

    def faults(self) -> tuple[FaultCount, ...]:
        """The broken rules, with the number of rows that break each and examples."""
        return tuple(
            FaultCount(column=column, rule=rule, rows=rows, examples=tuple(told))
            for (column, rule), (rows, told) in sorted(self._faults.items())
        )


def _checked(checks: RowChecks, table: Any) -> tuple[Checked, Profile]:
    """What the checks make of a batch, and the profile of its good rows."""
    checked = checks.check(table)
    profile = Profile(checks.columns)
    if checked.good.num_rows:
        profile.add(checked.good)
    return checked, profile


class _Writer:
    """Takes batches, writes the files, keeps count."""

    def __init__(self, spec: ModelSpec, source: SourceRef, folder: Path, now: datetime) -> None:
        self._spec = spec
        self._source = source
        self._folder = folder
        self._checks = RowChecks(spec, source.since, source.until, now=now)
        self._profile = Profile(self._checks.columns)
        self._batches = self._rows_read = self._before = self._after = 0
        self._start: datetime | None = None
        self._end: datetime | None = None
        self._ordered = True
        self._undeclared: dict[str, None] = {}
        self._bad = BadRows(folder / "bad")
        (folder / "good").mkdir()

    def add_all(self, batches: Iterable[sources.Batch], compute: Compute) -> None:
        waiting, sent = itertools.tee(batches)
        checked = compute.map(partial(_checked, self._checks), (b.table for b in sent), _AHEAD)
        for batch, (each, profile) in zip(waiting, checked, strict=True):
            self._profile.merge(profile)
            self._add(batch, each)

    def _add(self, batch: sources.Batch, checked: Checked) -> None:
        self._write_good(checked)
        self._bad.add(batch, checked, self._rows_read)
        self._before += checked.before
        self._after += checked.after
        self._rows_read += batch.num_rows
        self._batches += 1
        self._undeclared.update(dict.fromkeys(batch.undeclared))

    def _write_good(self, checked: Checked) -> None:
        good = checked.good
        if not good.num_rows:
            return
        if self._spec.source.event_time is not None:
            self._follow(good[self._spec.source.event_time])
        numbers = pa.array(checked.good_rows + self._rows_read, pa.int64())
        path = self._folder / "good" / f"{self._batches:05}.parquet"
        pq.write_table(good.append_column(ROW, numbers), path, compression="lz4")

    def _follow(self, times: Any) -> None:
        micros = times.combine_chunks().cast(pa.int64()).to_numpy()
        ends = pc.min_max(times).as_py()
        ascending = bool((micros[1:] >= micros[:-1]).all())
        self._ordered &= ascending and (self._end is None or ends["min"] >= self._end)
        self._start = min(filter(None, (self._start, ends["min"])))
        self._end = max(filter(None, (self._end, ends["max"])))

    def finish(self) -> BatchStats:
        repeats = self._find_repeats()
        return BatchStats(
            source=self._source.uri,
            full=self._source.since is None,
            whole=self._source.since is None and self._source.until is None,
            rows=self._profile.rows,
            bad_rows=self._bad.rows,
            before=self._before,
            after=self._after,
            start=self._start,
            end=self._end,
            ordered=self._ordered,
            repeats=repeats.numbers.num_rows if repeats else 0,
            conflicts=repeats.conflicts if repeats else 0,
            conflict_examples=repeats.examples if repeats else (),
            undeclared=tuple(self._undeclared),
            faults=self._bad.faults(),
            profile=self._profile.as_dict(),
        )

    def _find_repeats(self) -> Repeats | None:
        keys = self._spec.identity
        files = sorted((self._folder / "good").glob("*.parquet"))
        if not keys or not files:
            return None
        rest = [name for name in self._checks.columns if name not in keys]
        found = find_repeats(self._folder, files, ROW, keys, rest)
        if found is not None:
            pq.write_table(found.numbers, self._folder / "repeats.parquet")
        return found
