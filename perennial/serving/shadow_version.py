"""One shadow version, scoring what was logged of the requests that others answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from perennial.bundle.outputs import output_columns
from perennial.bundle.predictor import Predictor, own_fault
from perennial.contracts.errors import InputError
from perennial.contracts.refs import VersionRef
from perennial.data.row_numbers import unnumbered
from perennial.stores.bundles import open_stored
from perennial.stores.predictions.ids import request_of
from perennial.stores.project import Project

_SAME = ("_id", "_request_id", "_time")
_OWN = frozenset(
    {
        *_SAME, "_version", "_arm", "_latency_ms", "_compute_ms",
        "_prediction", "_class", "_probabilities",
    }
)  # fmt: skip


class _Part(NamedTuple):
    """Rows of one record that were scored together, and how long that took."""

    rows: pa.RecordBatch
    values: np.ndarray
    seconds: float


@dataclass(slots=True)
class Scored:
    """What a version made of a segment's records. ``reasons`` count the rows that it could not
    score; those by its own fault are ``failed`` too."""

    version: int
    classes: tuple[str, ...] | None = None
    parts: list[_Part] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    failed: list[pa.Table] = field(default_factory=list)
    """As the log of failures has them."""

    def fail(
        self, rows: pa.RecordBatch, error: str, reason: str, seconds: float | None = None
    ) -> None:
        """Note rows that the version failed on: the type of the error, what to tell a person, and
        how long it took if it was tried at all."""
        self.reasons[reason] += rows.num_rows
        took = pa.scalar(None if seconds is None else seconds * 1e3, pa.float64())
        columns = {
            **{name: rows.column(name) for name in _SAME},
            "_version": pa.repeat(pa.scalar(self.version, pa.int64()), rows.num_rows),
            "_arm": pa.repeat(pa.scalar("shadow"), rows.num_rows),
            "_error": pa.repeat(pa.scalar(error), rows.num_rows),
            "_latency_ms": pa.repeat(took, rows.num_rows),
        }
        self.failed.append(pa.table(columns))

    @property
    def rows(self) -> int:
        return sum(len(part.values) for part in self.parts)

    @property
    def seconds(self) -> float:
        return sum(part.seconds for part in self.parts)

    def tables(self) -> list[pa.Table]:
        """The rows as the log has them, with this version's predictions in place of the live ones';
        ``_latency_ms`` and ``_compute_ms`` are how long a row's batch took to compute. One table
        for each schema."""
        alike: dict[pa.Schema, list[_Part]] = {}
        for part in self.parts:
            alike.setdefault(part.rows.schema, []).append(part)
        return [self._table(parts) for parts in alike.values()]

    def _table(self, parts: list[_Part]) -> pa.Table:
        rows = pa.Table.from_batches([part.rows for part in parts])
        count = rows.num_rows
        latencies = np.repeat([p.seconds * 1e3 for p in parts], [len(p.values) for p in parts])
        columns = {
            **{name: rows[name] for name in _SAME},
            "_version": pa.repeat(pa.scalar(self.version, pa.int64()), count),
            "_arm": pa.repeat(pa.scalar("shadow"), count),
            "_latency_ms": pa.array(latencies, pa.float64()),
            "_compute_ms": pa.array(latencies, pa.float64()),
            **output_columns(self.classes, np.concatenate([part.values for part in parts])),
        }
        inputs = {name: rows[name] for name in rows.column_names if name not in _OWN}
        return pa.table({**columns, **inputs})


class ShadowVersion:
    """A loaded version. Raises IntegrityError or InputError when its bundle can't be used, and as
    ``open_stored``."""

    def __init__(self, ref: VersionRef, project: Project) -> None:
        bundle = open_stored(ref, project)
        self.classes = bundle.schema.classes
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
        scored.parts.extend(self._parts(batch, scored))

    def _unreadable(self, logged: Sequence[str], hashed: Collection[str]) -> str:
        """Why the version can't read a record as a whole; "" when it can."""
        absent = [name for name in self._inputs if name not in logged]
        unlike = [name for name in self._inputs if name in logged and name in hashed]
        reasons = [f"column {name!r} is not in the log" for name in absent]
        reasons += [f"column {name!r} is hashed in the log" for name in unlike]
        return "; ".join(reasons)

    def _parts(self, rows: pa.RecordBatch, scored: Scored) -> Iterator[_Part]:
        """The rows with their predictions; a batch with rows that can't be scored is halved until
        they are found, and one that the version itself fails on, until it is a single request."""
        started = perf_counter()
        try:
            found = self._predictor.predict(rows)
        except BaseException as error:  # feature code may even ask the process to end
            seconds = perf_counter() - started
            own = own_fault(error)
            half = _between_requests(rows) if own else rows.num_rows // 2
            if half:
                yield from self._parts(rows.slice(0, half), scored)
                yield from self._parts(rows.slice(half), scored)
            elif isinstance(error, InputError) and not own:
                scored.reasons[f"a value that can't be used: {', '.join(_places(error))}"] += 1
            else:
                name = type(error).__name__
                where = f" in {', '.join(_places(error))}" if isinstance(error, InputError) else ""
                scored.fail(rows, name, f"{name} while scoring{where}", seconds)
            return
        yield _Part(rows, found.values, perf_counter() - started)


def _between_requests(rows: pa.RecordBatch) -> int:
    """The place nearest to the middle at which another request begins; 0 when it is only one."""
    both = (rows.column(name).to_pylist() for name in ("_id", "_request_id"))
    requests = [request_of(*row) for row in zip(*both, strict=True)]
    begins = [i for i in range(1, len(requests)) if requests[i] != requests[i - 1]]
    return min(begins, key=lambda place: abs(place - len(requests) / 2), default=0)


def _places(error: InputError) -> list[str]:
    return list(dict.fromkeys(unnumbered(problem).where for problem in error.problems))
