"""What the prediction log says of a rollout's two arms in its present step, by SQL.

Who is compared with whom:

- Where both answer (canary, ab_test), and in shadow, the champion's rows are those of the same
  time as the challenger's: since the step began.
- At 100 % the champion answers nobody any more; its rows are those of the day before the step, so
  that every hour of the day is among them.

What is drawn at random is what can be counted as independent. Requests are, for errors and latency:
the rows of one share their fate. Where requests are shared out, an entity stays with its arm, so an
entity is one draw however many rows it has (Deng, Knoblich and Lu 2018, arXiv 1803.06336); without
an entity, and in shadow, where both arms score the same rows, a row is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from perennial.contracts.errors import IntegrityError, Problem
from perennial.contracts.rollouts import Rollout, Step
from perennial.spec import ModelSpec
from perennial.spec.rules import OURS
from perennial.stores import engine, lake
from perennial.stores.predictions.columns import variants
from perennial.stores.predictions.ids import REQUEST
from perennial.stores.predictions.tables import schema_of

CHALLENGER, CHAMPION = 1, 0
ARM = f"{OURS}arm"
"""The column of ``relation`` that says which."""
ROW = "_id"
"""The unit where a row is one."""
_FOLLOWED_SECONDS = 10
"""Since the challenger's first answer, until every server has followed to the step's route."""
_BEFORE = timedelta(days=1)

Query = Callable[[str], list[tuple[Any, ...]]]


@dataclass(frozen=True)
class Arms:
    """Which rows of a log are whose."""

    rollout: Rollout
    now: datetime

    @property
    def step(self) -> Step:
        return self.rollout.plan.steps[self.rollout.state.step]

    @property
    def shadow(self) -> bool:
        return self.step.strategy == "shadow"

    @property
    def window(self) -> tuple[datetime, datetime]:
        """All times that are looked at, the end excluded."""
        return min(self._champion[0], self.rollout.state.entered_at), self.now

    @property
    def _champion(self) -> tuple[datetime, datetime]:
        entered = self.rollout.state.entered_at
        return (entered - _BEFORE, entered) if self.step.weight == 100 else (entered, self.now)

    def sql(self) -> str:
        """CHALLENGER, CHAMPION or null of a row with ``_version``, ``_arm`` and ``_time``."""
        challenger = self._of(
            self.rollout.version,
            "shadow" if self.shadow else "challenger",
            (self.rollout.state.entered_at, self.now),
        )
        champion = self._of(self.rollout.champion, "champion", self._champion)
        return f"(CASE WHEN {challenger} THEN {CHALLENGER} WHEN {champion} THEN {CHAMPION} END)"

    def _of(self, version: int, arm: str, window: tuple[datetime, datetime]) -> str:
        start, end = (engine.at(moment) for moment in window)
        return (
            f"_version = {version:d} AND _arm = {engine.literal(arm)} "
            f"AND _time >= {start} AND _time < {end}"
        )

    def unit(self, spec: ModelSpec, log: pa.Schema) -> str:
        """What of a row was drawn at random, in SQL: its entity, or the row itself."""
        if self.shadow or not spec.source.entity:
            return ROW
        parts = [
            "coalesce(" + ", ".join(f"{engine.name(f.name)}::VARCHAR" for f in found) + ")"
            for name in spec.source.entity
            if (found := variants(name, log))
        ]
        if len(parts) < len(spec.source.entity):  # left out of the log
            return ROW
        missing = " OR ".join(f"{part} IS NULL" for part in parts)
        return f"(CASE WHEN {missing} THEN {ROW} ELSE concat_ws(chr(31), {', '.join(parts)}) END)"


@contextmanager
def reading(uri: str, home: Path) -> Iterator[Any]:
    """A connection to read a log with; it spills beside the log, or below ``home`` when there is
    none yet. Raises IntegrityError when what is read is damaged."""
    import duckdb

    place = engine.spill_place(uri)
    try:
        with engine.connect(place if place.is_dir() else home) as connection:
            yield connection
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        what = f"the log can't be read: {first}"
        raise IntegrityError(Problem(uri, what, "restore the table from a backup")) from None


def relation(connection: Any, table: Any, uri: str, arms: Arms) -> str:
    """The rows of the arms in a table, in SQL: its columns, and ``ARM``."""
    rows = lake.relation(connection, table, uri, "_time", arms.window)
    return f"(SELECT * FROM (SELECT *, {arms.sql()} AS {ARM} FROM {rows}) WHERE {ARM} IS NOT NULL)"


class Requests(NamedTuple):
    """Of one arm: requests, those that failed, those slower than each threshold, and rows."""

    requests: int = 0
    failed: int = 0
    slow: tuple[int, ...] = ()
    rows: int = 0


def count_requests(
    connection: Any, answered: str | None, failed: str | None, thresholds: tuple[float, ...]
) -> Mapping[int, Requests]:
    """Both arms' requests: of relations as ``relation`` makes them, None for a table that isn't
    there. A request with a failed row failed; it is as slow as its slowest row."""
    parts = [
        f"SELECT {ARM} AS arm, {REQUEST} AS request, _latency_ms, {wrong} AS failed FROM {rows}"
        for rows, wrong in ((answered, "false"), (failed, "true"))
        if rows is not None
    ]
    if not parts:
        return {}
    slow = "".join(f", count(*) FILTER (ms > {limit!r})" for limit in thresholds)
    found = connection.execute(
        f"SELECT arm, count(*), count(*) FILTER (failed), sum(rows){slow} FROM ("
        "SELECT arm, bool_or(failed) AS failed, max(_latency_ms) AS ms, count(*) AS rows "
        f"FROM ({' UNION ALL '.join(parts)}) GROUP BY arm, request) GROUP BY arm"
    ).fetchall()
    return {
        int(arm): Requests(int(n), int(wrong), tuple(map(int, slow)), int(rows))
        for arm, n, wrong, rows, *slow in found
    }


def count_units(connection: Any, answered: str, failed: str | None, unit: str) -> dict[int, int]:
    """How many units each arm has had since all servers share them out. A failed row counts where
    rows are units; of an entity it is not known."""
    first = f"SELECT min(_time) FROM {answered} WHERE {ARM} = {CHALLENGER}"
    after = f"_time > ({first}) + INTERVAL {_FOLLOWED_SECONDS} SECOND"
    rows = f"SELECT {ARM} AS arm, {unit} AS unit FROM {answered} WHERE {after}"
    if failed is not None and unit == ROW:
        rows += f" UNION ALL SELECT {ARM}, {ROW} FROM {failed} WHERE {after}"
    query = f"SELECT arm, count(DISTINCT unit) FROM ({rows}) GROUP BY arm"
    return {int(arm): int(units) for arm, units in connection.execute(query).fetchall()}


class Mean(NamedTuple):
    """A mean a row over ``rows`` rows of ``units`` independent units. ``variance`` is that of one
    unit's share in it, so that ``variance / units`` is the mean's (delta method)."""

    rows: int
    units: int
    mean: float
    variance: float


def means(query: Query, source: str, arm: str, unit: str, value: str) -> dict[int, Mean]:
    """The mean of a value over each arm's rows in which it is finite. An arm without any is not
    among them; with a single unit its variance is infinite."""
    rows = f"SELECT {arm} AS arm, {unit} AS unit, ({value})::DOUBLE AS value FROM {source}"
    units = (
        f"SELECT arm, unit, sum(value) AS total, count(*) AS rows FROM ({rows}) "
        "WHERE arm IS NOT NULL AND isfinite(value) GROUP BY arm, unit"
    )
    every = "OVER (PARTITION BY arm)"
    found = query(
        "SELECT arm, sum(rows), count(*), any_value(mean), sum((total - mean * rows) ** 2) FROM ("
        f"SELECT *, sum(total) {every} / sum(rows) {every} AS mean FROM ({units})) GROUP BY arm"
    )
    return {
        int(arm): Mean(int(n), int(k), float(mean), _variance(int(n), int(k), float(squares)))
        for arm, n, k, mean, squares in found
    }


def _variance(rows: int, units: int, squares: float) -> float:
    return squares / (units - 1) / (rows / units) ** 2 if units > 1 else math.inf


class Sampled(NamedTuple):
    """Values of one arm, one a unit: (n,) or a list a row. ``level``: of about 2**level units one
    was taken."""

    values: pa.ChunkedArray
    level: int


def sample(
    connection: Any, rows: str, unit: str, value: str, usable: str, most: int
) -> dict[int, Sampled]:
    """Each arm's values, one of each unit: the first it had. Of more than ``most`` units those
    whose hash begins with ``level`` zero bits, so that at each level rows are only ever added."""
    source = (
        f"SELECT {ARM} AS arm, {unit} AS unit, hash({unit}) AS hashed, _time, _id, "
        f"{value} AS value FROM {rows} WHERE {usable}"
    )
    counts = connection.execute(
        f"SELECT arm, approx_count_distinct(hashed) FROM ({source}) GROUP BY arm ORDER BY arm"
    ).fetchall()
    found = {}
    for arm, units in counts:
        level = max(0, math.ceil(math.log2(units / (0.8 * most))))
        chosen = f"arm = {arm}" + (f" AND hashed >> {64 - level} = 0" if level else "")
        values = connection.sql(
            f"SELECT first(value ORDER BY _time, _id) AS value FROM ({source}) WHERE {chosen} "
            "GROUP BY unit"
        ).to_arrow_table()
        found[int(arm)] = Sampled(values["value"], level)
    return found


def numeric(name: str, log: pa.Schema) -> str:
    """A number of the log, whichever of its types a version gave it, in SQL; "" when none is."""
    fits = [
        f"{engine.name(f.name)}::DOUBLE"
        for f in variants(name, log)
        if pa.types.is_floating(f.type) or pa.types.is_integer(f.type) or f.type == pa.bool_()
    ]
    return f"coalesce({', '.join(fits)})" if fits else ""


def columns_of(table: Any) -> pa.Schema:
    return schema_of(table) if table is not None else pa.schema([])
