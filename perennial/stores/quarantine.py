"""A model's quarantine: a Delta table of the rows that broke a rule, and why.

A row is known by its text, so the same bad row read again, from wherever, is there once; a row that
breaks other rules than before gets its new reason. What came of the source and of the table has the
same values in other words (``1.50``, ``1.5``): it is there once as well. Of rows of one identity it
holds the source's last word.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from perennial.contracts.refs import Value
from perennial.data.checks import RowChecks, rules_digest
from perennial.data.frames import arrow_schema, table_columns
from perennial.data.parsing import parse
from perennial.spec import ModelSpec
from perennial.spec.rules import OURS
from perennial.stores import engine, lake
from perennial.stores.folders import new_folder
from perennial.stores.staging import BAD_SCHEMA, ROW
from perennial.stores.upsert import Incoming, upsert

_SCHEMA = pa.schema([*(field for field in BAD_SCHEMA if field.name != ROW), ("batch", pa.string())])
_ORDER = "position IS NOT NULL, position"
"""The order of the rows of one identity, the last word last: what left the table, then what came
later."""
_TEXT = f"{OURS}text"
_POSITION = f"{OURS}position"
_HELD = "held"
_BATCH_ROWS = 50_000


class QuarantinedRow(Value):
    """``row`` is the row as it came: texts by column, or one text that has no columns.

    ``batch`` is the digest of the staged batch that brought it.
    """

    reason: str
    place: str
    row: dict[str, str | None] | str
    event_time: datetime | None
    batch: str


class PutBack(Value):
    """What became of the rows that were checked again.

    ``present``: rows that pass and change nothing, the table having the same, or quarantine a later
    one of the same identity, or the source having mended them meanwhile. ``bad``: rows that still
    break a rule; they stay in quarantine.
    """

    checked: int
    put_back: int
    present: int
    bad: int


def record(
    spec: ModelSpec, files: Sequence[Path], batch: str, uri: str, good: str | None = None
) -> None:
    """Take bad rows (Parquet files of ``BAD_SCHEMA``) into quarantine, brought by ``batch``. The
    same rows again add nothing.

    Of a source's batch, whose ``good`` rows (a relation in SQL) are given, the last word on an
    identity counts, as it does among good rows: if it is bad it takes the place of what quarantine
    had from the source, if it is good nothing of that identity stays. So a row in quarantine whose
    identity the table has is newer than the table's. To be called before the good rows enter the
    table: after a kill in between, the source is read as far back again.
    """
    table = lake.open_table(uri)
    if not files and (table is None or good is None):
        return
    near = engine.spill_place(uri)
    with new_folder(near) as work, engine.connect(near) as connection:
        rows = lake.no_rows(BAD_SCHEMA)
        if files:
            rows = engine.parquet(files)
            rows = f"(SELECT DISTINCT ON (row) * FROM {rows} ORDER BY row, {ROW} DESC)"
        if good is not None and spec.identity:
            rows = _last_words(spec, connection, rows, good, uri, work)
        if not files:
            return
        known = _known_in_other_words(spec, connection, rows, uri, work)
        if known is not None:
            rows = f"(SELECT * FROM {rows} ANTI JOIN {known} USING (row))"
        relation = f"(SELECT *, {engine.literal(batch)} AS batch FROM {rows})"
        upsert(connection, uri, Incoming(relation, _SCHEMA, keys=("row",), content=("reason",)))


def _last_words(
    spec: ModelSpec, connection: Any, rows: str, good: str, uri: str, work: Path
) -> str:
    """Those of a batch's bad rows that are its last word on their identity, or have none that can
    be read. Takes out of quarantine what the batch has another word on; what left the table stays
    beside a correction that is bad."""
    identity, time = spec.identity, spec.source.event_time
    table = lake.open_table(uri)
    held: list[Path] = []
    there = position = ""
    if table is not None:
        there = lake.relation(connection, table, uri)
        position = "q.position" if "position" in lake.schema_of(table).names else "0"
        query = f"SELECT q.row FROM {there} q"
        if time is not None:
            at = f"SELECT {engine.name(time)} AS at FROM {good}"
            times = f"({at} UNION ALL SELECT event_time FROM {rows})"
            query += f" SEMI JOIN {times} t ON q.event_time = t.at"
        held = _typed(spec, connection, query, work / "held", identity)
    coming = _typed(spec, connection, f"SELECT row FROM {rows}", work / "coming", identity)
    if not held and not coming:
        return rows
    keys, text, number = engine.names(identity), engine.name(_TEXT), engine.name(_POSITION)
    asked = engine.parquet([*held, *coming])
    said = (
        f"SELECT {engine.names(identity, 'g')}, g.{ROW} AS {number}, NULL::VARCHAR AS {text} "
        f"FROM {good} g SEMI JOIN {asked} a ON {engine.same(identity, 'g', 'a')}"
    )
    if coming:
        said += (
            f" UNION ALL SELECT {engine.names(identity, 'c')}, b.position, c.{text} "
            f"FROM {engine.parquet(coming)} c JOIN {rows} b ON c.{text} = b.row"
        )
    last = f"(SELECT DISTINCT ON ({keys}) * FROM ({said}) ORDER BY {keys}, {number} DESC)"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE latest AS SELECT * FROM {last}")

    def other(files: list[Path], among: str) -> Any:
        return connection.sql(
            f"SELECT o.{text} AS row FROM {engine.parquet(files)} o "
            f"JOIN latest l ON {engine.same(identity, 'o', 'l')} {among}"
        ).to_arrow_table()

    if held:
        whose = f"JOIN {there} q ON q.row = o.{text} WHERE l.{text} IS DISTINCT FROM o.{text}"
        gone = other(held, f"{whose} AND (l.{text} IS NULL OR {position} IS NOT NULL)")
        if gone.num_rows:
            pq.write_table(gone, work / "gone")
            _take_out(connection, uri, engine.parquet([work / "gone"]))
    if coming:
        pq.write_table(other(coming, f"WHERE l.{text} IS DISTINCT FROM o.{text}"), work / "earlier")
        return f"(SELECT * FROM {rows} ANTI JOIN {engine.parquet([work / 'earlier'])} USING (row))"
    return rows


def _known_in_other_words(
    spec: ModelSpec, connection: Any, rows: str, uri: str, work: Path
) -> str | None:
    """The texts of those rows that quarantine has with the same values under another text, as a
    relation; None when there is none. Only rows of one event time are compared."""
    table = lake.open_table(uri)
    if table is None or spec.source.event_time is None:
        return None
    there = lake.relation(connection, table, uri)
    new = f"(SELECT row, event_time FROM {rows} ANTI JOIN {there} USING (row))"
    old = f"SELECT row FROM {there} SEMI JOIN {new} USING (event_time)"
    columns = list(table_columns(spec))
    alike = _typed(spec, connection, old, work / "old", columns)
    if not alike:
        return None
    coming = f"SELECT row FROM {new} SEMI JOIN {there} USING (event_time)"
    found = _typed(spec, connection, coming, work / "new", columns)
    if not found:
        return None
    same = engine.same(columns, "n", "o")
    return (
        f"(SELECT n.{engine.name(_TEXT)} AS row FROM {engine.parquet(found)} n "
        f"SEMI JOIN {engine.parquet(alike)} o ON {same})"
    )


def _typed(
    spec: ModelSpec, connection: Any, query: str, folder: Path, names: Sequence[str]
) -> list[Path]:
    """Write the values that quarantined texts have in some columns, each beside its text, and
    return the files. Texts that don't parse as the columns' types are left out: they are like no
    others."""
    folder.mkdir()
    known = table_columns(spec)
    columns = {name: known[name] for name in names}
    for number, batch in enumerate(connection.sql(query).to_arrow_reader(_BATCH_ROWS)):
        texts, rows = _with_columns(batch.column("row").to_pylist())
        parsed = {
            name: parse(
                pa.array([row.get(name) for row in rows], pa.string()),
                column.type,
                spec.source.decimal,
            )
            for name, column in columns.items()
        }
        clean = np.ones(len(texts), bool)
        for one in parsed.values():
            if one.faulty is not None:
                clean &= ~one.faulty
        values = {name: one.values for name, one in parsed.items()}
        typed = pa.table({**values, _TEXT: pa.array(texts, pa.string())}).filter(pa.array(clean))
        if typed.num_rows:
            pq.write_table(typed, folder / f"{number:05}.parquet")
    return sorted(folder.iterdir())


def count(uri: str) -> int:
    """How many rows are in quarantine."""
    table = lake.open_table(uri)
    if table is None:
        return 0
    with engine.connect(engine.spill_place(uri)) as connection:
        relation = lake.relation(connection, table, uri)
        return int(engine.one(connection, f"SELECT count(*) FROM {relation}")[0])


def rows(uri: str, limit: int = 20) -> list[QuarantinedRow]:
    """Rows in quarantine, those of the last events first."""
    table = lake.open_table(uri)
    if table is None:
        return []
    with engine.connect(engine.spill_place(uri)) as connection:
        relation = lake.relation(connection, table, uri)
        found = connection.sql(
            f"SELECT reason, place, row, event_time, batch FROM {relation} "
            f"ORDER BY event_time DESC NULLS LAST, place, row LIMIT {limit:d}"
        ).to_arrow_table()
    return [
        QuarantinedRow.model_validate({**row, "row": json.loads(row["row"])})
        for row in found.to_pylist()
    ]


def put_back(spec: ModelSpec, uri: str, table_uri: str) -> PutBack:
    """Check all rows in quarantine by the rules of today and let those that pass into the table.

    A row whose identity the table has replaces the table's, which is older: what the source has
    mended is not in quarantine. Rows of a source without event time are only taken out of
    quarantine, as the next ingestion reads that source whole. May be repeated after a kill: rows
    enter the table before they leave quarantine. Beside an ingestion too: ``record`` takes what the
    source has mended out of quarantine before the table gets it, so what is still there once the
    table was opened is older than all that enters the table later.
    """
    table = lake.open_table(uri)
    if table is None:
        return PutBack(checked=0, put_back=0, present=0, bad=0)
    near = engine.spill_place(uri)
    with new_folder(near) as work, engine.connect(near) as connection:
        relation = lake.relation(connection, table, uri)
        order = _ORDER if "position" in lake.schema_of(table).names else "place"
        counts, lacking = _check_again(spec, connection, f"{relation} ORDER BY {order}, row", work)
        good, passed = sorted(work.glob("good-*")), sorted(work.glob("passed-*"))
        if not passed:
            return PutBack(checked=counts["checked"], put_back=0, present=0, bad=counts["bad"])
        taken = counts["good"]
        if spec.source.event_time is not None:
            held = f"{engine.parquet(good)} SEMI JOIN {_HELD} USING ({ROW})"
            done = upsert(
                connection,
                table_uri,
                _incoming(spec, held, lacking),
                put_back=lambda: _hold(connection, uri, engine.parquet(passed)),
            )
            taken = done.added + done.changed
        _take_out(connection, uri, engine.parquet(passed))
    return PutBack(
        checked=counts["checked"],
        put_back=taken,
        present=counts["good"] - taken,
        bad=counts["bad"],
    )


def _check_again(
    spec: ModelSpec, connection: Any, relation: str, work: Path
) -> tuple[Counter[str], frozenset[str]]:
    """Write the rows that pass (``good-…``) and their texts in quarantine (``passed-…``). Returns
    counts, and the columns that some row was not read with."""
    lacking: set[str] = set()
    checks = RowChecks(spec, now=datetime.now(UTC))
    counts: Counter[str] = Counter()
    query = f"SELECT row FROM {relation}"
    for number, batch in enumerate(connection.sql(query).to_arrow_reader(_BATCH_ROWS)):
        texts, fields = _with_columns(batch.column("row").to_pylist())
        counts["checked"] += batch.num_rows
        counts["bad"] += batch.num_rows - len(texts)
        lacking.update(name for name in checks.columns if any(name not in row for row in fields))
        columns = {name: [row.get(name) for row in fields] for name in checks.columns}
        table = pa.table({n: pa.array(values, pa.string()) for n, values in columns.items()})
        checked = checks.check(table)
        counts["good"] += checked.good.num_rows
        counts["bad"] += len(checked.bad_rows)
        if checked.good.num_rows:
            order = pa.array(checked.good_rows + number * _BATCH_ROWS, pa.int64())
            pq.write_table(checked.good.append_column(ROW, order), work / f"good-{number:05}")
            passed = pa.table({"row": [texts[i] for i in checked.good_rows], ROW: order})
            pq.write_table(passed, work / f"passed-{number:05}")
    return counts, frozenset(lacking)


def _with_columns(texts: list[str]) -> tuple[list[str], list[dict[str, str | None]]]:
    """Those rows that have columns, as texts and as they are."""
    pairs = ((text, json.loads(text)) for text in texts)
    kept = [(text, row) for text, row in pairs if isinstance(row, dict)]
    return [text for text, _ in kept], [row for _, row in kept]


def _hold(connection: Any, uri: str, passed: str) -> None:
    """Make the table ``_HELD``: the number of each row that is in quarantine now."""
    table = lake.open_table(uri)
    there = lake.no_rows(_SCHEMA) if table is None else lake.relation(connection, table, uri)
    query = f"SELECT {ROW} FROM {passed} SEMI JOIN {there} USING (row)"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {_HELD} AS {query}")


def _incoming(spec: ModelSpec, good: str, lacking: frozenset[str]) -> Incoming:
    columns = table_columns(spec)
    keys = engine.names(spec.identity)
    return Incoming(
        relation=f"(SELECT DISTINCT ON ({keys}) * FROM {good} ORDER BY {keys}, {ROW} DESC)",
        schema=arrow_schema(columns),
        keys=spec.identity,
        content=[name for name in columns if name not in spec.identity],
        time=spec.source.event_time,
        rules=rules_digest(columns),
        lacking=lacking,
    )


def _take_out(connection: Any, uri: str, passed: str) -> None:
    def attempt() -> None:
        table = lake.open_table(uri)
        if table is None:
            return
        relation = lake.relation(connection, table, uri)
        rest = connection.sql(f"SELECT * FROM {relation} ANTI JOIN {passed} USING (row)")
        lake.write(uri, table, rest.to_arrow_reader(_BATCH_ROWS), replace=True)

    lake.until_committed(uri, attempt)
