"""A table's rows by the rules of today: those that no longer pass go to quarantine.

What a source brings is checked when it is read. What the table holds was checked by the rules of
that day, and is not read again: so it is judged anew when the rules have changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from perennial.contracts.errors import InputError, Problem
from perennial.contracts.refs import StagedRef
from perennial.data.audit import bad_share
from perennial.data.checks import RowChecks, ruled
from perennial.data.frames import table_columns
from perennial.spec import ModelSpec
from perennial.stores import engine, lake, quarantine
from perennial.stores.sources import Batch
from perennial.stores.staging import BadRows, bad_files
from perennial.stores.standing import standing_of
from perennial.stores.upsert import Incoming, Leaving

_BATCH_ROWS = 100_000
_FIX = "mend the rules of these columns in model.yaml, or raise quarantine.max_share if it is right"


@dataclass(frozen=True, slots=True)
class Judge:
    """What stands between a staged batch and its table; see ``upsert.Admit``.

    Bad rows, the batch's and the table's, are in quarantine before anything leaves the table. Rows
    of the table that the batch replaces are not judged. ``folder`` takes what is found.
    """

    connection: Any
    spec: ModelSpec
    staged: StagedRef
    coming: Incoming
    table_uri: str
    quarantine_uri: str
    folder: Path

    def __call__(self, table: Any | None) -> Leaving | None:
        """Raises InputError, before any row leaves, when more than ``quarantine.max_share`` of the
        table's rows would."""
        place = Path(mkdtemp(dir=self.folder))
        changed = table is not None and standing_of(table).rules != self.coming.rules
        refused = self._refused(table, place) if changed else 0
        bad, left = bad_files(self.staged), sorted((place / "bad").glob("*"))
        for files, good in ((bad, self.coming.relation), (left, None)):
            quarantine.record(self.spec, files, self.staged.digest, self.quarantine_uri, good)
        if not refused:
            return None
        return Leaving(engine.parquet(sorted(place.glob("*.parquet"))), refused)

    def _refused(self, table: Any, place: Path) -> int:
        """Write the rows that no longer pass, and their identities; returns how many."""
        spec, keys = self.spec, list(self.spec.identity)
        columns, time = table_columns(spec), str(spec.source.event_time)
        checks = RowChecks(spec, columns={time: columns[time]} | ruled(columns))
        stored = lake.relation(self.connection, table, self.table_uri)
        judged = (
            f"SELECT s.* FROM {stored} s ANTI JOIN {self.coming.relation} c "
            f"ON {engine.same(keys, 's', 'c')}"
        )
        bad = BadRows(place / "bad", spec.source.decimal)
        named = [time, *spec.source.entity]
        for number, batch in enumerate(self.connection.sql(judged).to_arrow_reader(_BATCH_ROWS)):
            rows = _Stored(pa.Table.from_batches([batch]), (), (), named)
            checked = checks.check(_with_columns(rows.table, checks.columns))
            bad.add(rows, checked)
            if len(checked.bad_rows):
                identities = rows.table.select(keys).take(checked.bad_rows)
                pq.write_table(identities, place / f"{number:05}.parquet")
        if bad.rows:
            (total,) = engine.one(self.connection, f"SELECT count(*) FROM {stored}")
            limit = spec.quarantine.max_share
            finding = bad_share(total, bad.rows, bad.faults(), limit, self.quarantine_uri)
            if finding.outcome == "failed":
                raise InputError(Problem(self.table_uri, finding.what, _FIX))
        return bad.rows


@dataclass(frozen=True, slots=True)
class _Stored(Batch):
    """Rows of a table, which know their places by the columns ``named``."""

    named: list[str]

    def where(self, position: int) -> str:
        values = (self.table[name][position].as_py() for name in self.named)
        return f"table row {', '.join(map(str, values))}"


def _with_columns(table: Any, columns: Any) -> Any:
    """The table with what it doesn't have as missing values."""
    for name in columns:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(table.num_rows))
    return table
