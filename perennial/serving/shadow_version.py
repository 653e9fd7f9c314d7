"""One shadow version, scoring what was logged of the requests that others answered."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import pyarrow as pa

from perennial.bundle.outputs import output_columns
from perennial.bundle.predictor import Predictions, Predictor
from perennial.bundle.read import open_bundle
from perennial.contracts.errors import InputError
from perennial.contracts.refs import VersionRef

_ROW = re.compile(r",? row [\d,]+$")
_SAME = ("_id", "_request_id", "_time")
_OWN = frozenset(
    {*_SAME, "_version", "_arm", "_latency_ms", "_prediction", "_class", "_probabilities"}
)


@dataclass(slots=True)
class Scored:
    """What a version made of a segment's records. ``parts`` are rows of the log; ``reasons`` count
    the rows that could not be scored; ``seconds`` are those of scoring the others."""

    parts: list[pa.Table] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def rows(self) -> int:
        return sum(part.num_rows for part in self.parts)

    def tables(self) -> list[pa.Table]:
        """The rows, those with the same columns together."""
        alike: dict[tuple[tuple[str, str], ...], list[pa.Table]] = {}
        for part in self.parts:
            columns = tuple((field.name, str(field.type)) for field in part.schema)
            alike.setdefault(columns, []).append(part)
        return [pa.concat_tables(parts) for parts in alike.values()]


class ShadowVersion:
    """A loaded version. Raises IntegrityError or InputError when its bundle can't be used."""

    def __init__(self, ref: VersionRef) -> None:
        bundle = open_bundle(Path(ref.uri), ref.digest)
        self._number = ref.version
        self._classes = bundle.schema.classes
        self._inputs = tuple(column.name for column in bundle.schema.inputs)
        self._predictor = Predictor(bundle)

    def score(self, batch: pa.RecordBatch, hashed: Collection[str], scored: Scored) -> None:
        """Score the rows of one record of the log, as one batch, into ``scored``.

        A row that can't be scored doesn't take others with it. Reasons name columns and features,
        never a value.
        """
        reason = self._unreadable(batch.schema.names, hashed)
        if reason:
            scored.reasons[reason] += batch.num_rows
            return
        rows = pa.Table.from_batches([batch])
        for start, part, seconds in self._parts(rows.select(list(self._inputs)), 0, scored):
            scored.seconds += seconds
            scored.parts.append(self._logged(rows.slice(start, len(part.values)), part, seconds))

    def _unreadable(self, logged: Sequence[str], hashed: Collection[str]) -> str:
        """Why the version can't read a record as a whole; "" when it can."""
        absent = [name for name in self._inputs if name not in logged]
        unlike = [name for name in self._inputs if name in logged and name in hashed]
        reasons = [f"column {name!r} is not in the log" for name in absent]
        reasons += [f"column {name!r} is hashed in the log" for name in unlike]
        return "; ".join(reasons)

    def _parts(
        self, rows: pa.Table, first: int, scored: Scored
    ) -> Iterator[tuple[int, Predictions, float]]:
        """Predictions with the place of their first row and how long they took; a table with rows
        that can't be scored is halved until they are found."""
        started = perf_counter()
        try:
            found = self._predictor.predict(rows)
        except InputError as error:
            half = rows.num_rows // 2
            if half:
                yield from self._parts(rows.slice(0, half), first, scored)
                yield from self._parts(rows.slice(half), first + half, scored)
            else:
                places = dict.fromkeys(_ROW.sub("", problem.where) for problem in error.problems)
                scored.reasons[f"a value that can't be used: {', '.join(places)}"] += 1
            return
        yield first, found, perf_counter() - started

    def _logged(self, rows: pa.Table, found: Predictions, seconds: float) -> pa.Table:
        """The rows as the log has them, with this version's prediction in place of the live one's.
        ``_latency_ms`` is how long their batch took to compute."""
        count = rows.num_rows
        columns = {
            **{name: rows[name] for name in _SAME},
            "_version": pa.repeat(pa.scalar(self._number, pa.int64()), count),
            "_arm": pa.repeat(pa.scalar("shadow"), count),
            "_latency_ms": pa.repeat(pa.scalar(seconds * 1e3), count),
            **output_columns(self._classes, found.values),
        }
        inputs = {name: rows[name] for name in rows.column_names if name not in _OWN}
        return pa.table({**columns, **inputs})
