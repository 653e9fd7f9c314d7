"""Serve a bundle in a fresh process, as production will, and compare with training.

``python -m perennial.bundle.probe BUNDLE ROWS.parquet FOLDER`` predicts the rows in batches, and
some of them one by one from JSON, times those, and writes ``predictions.npy`` and ``probe.json``.

What only training needs can't be imported there, installed or not: feature code that uses it fails
here and not in production. It also makes the start quick, since libraries load what they find.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perennial.bundle.absent import ABSENT, hide
from perennial.contracts.errors import PerennialError
from perennial.contracts.verdicts import ServingCheck

if TYPE_CHECKING:
    import numpy as np

    from perennial.bundle.predictor import Predictor

_BATCH_ROWS = 65_536
_REQUESTS = 300
_WARM_UP = 20


@dataclass(frozen=True, slots=True)
class _Probed:
    """What the probe's process found. ``single_difference`` is the largest between a row predicted
    alone and in its batch, None when they are equal bit for bit."""

    error: str = ""
    single_difference: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None


def check_serving(
    bundle: Path, rows: Path, expected: np.ndarray, timeout_seconds: float = 300
) -> ServingCheck:
    """Predict a Parquet file of raw rows with the bundle in a fresh process, and compare bit for
    bit with ``expected``: the training path's float32 predictions of the same rows, in order.

    Identical means: in batches, and one row at a time as requests come. Never raises for a bundle
    that can't be opened, loaded or used; then ``loaded`` is False and ``error`` says why.
    """
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="perennial-probe-") as folder:
        command = [sys.executable, "-m", __name__, str(bundle), str(rows), folder]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=timeout_seconds
            )
        except subprocess.TimeoutExpired:
            error = f"no answer within {timeout_seconds:g} s"
            return ServingCheck(loaded=False, error=error)
        report = Path(folder, "probe.json")
        if not report.is_file():
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:300]
            error = f"the process ended with code {done.returncode}: {last}"
            return ServingCheck(loaded=False, error=error)
        probed = _Probed(**json.loads(report.read_text(encoding="utf-8")))
        if probed.error:
            return ServingCheck(loaded=False, error=probed.error)
        served = np.load(Path(folder, "predictions.npy"), allow_pickle=False)
    return _compared(served, np.ascontiguousarray(expected), probed)


def _compared(served: np.ndarray, expected: np.ndarray, probed: _Probed) -> ServingCheck:
    identical: bool | None = None
    difference = probed.single_difference
    error = ""
    if (served.shape, served.dtype) != (expected.shape, expected.dtype):
        identical = False
        error = f"served {served.dtype} {served.shape}, training {expected.dtype} {expected.shape}"
    elif len(served):
        identical = served.tobytes() == expected.tobytes() and difference is None
        difference = max(difference or 0.0, float(abs(served - expected).max()))
        if probed.single_difference is not None:
            error = "a row alone predicts another value than in its table"
    return ServingCheck(
        loaded=True,
        identical=identical,
        rows=len(served),
        max_abs_difference=difference,
        p50_ms=probed.p50_ms,
        p99_ms=probed.p99_ms,
        error=error,
    )


def main(bundle: Path, rows: Path, folder: Path) -> None:
    """The probe's process. Writes the report in any case."""
    hide(ABSENT)
    try:
        probed = _probe(bundle, rows, folder)
    except PerennialError as error:
        probed = _Probed(error=error.message)
    except Exception as error:
        probed = _Probed(error=f"{type(error).__name__}: {error}"[:1000])
    (folder / "probe.json").write_text(json.dumps(asdict(probed)), encoding="utf-8")


def _probe(bundle: Path, rows: Path, folder: Path) -> _Probed:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from perennial.bundle.predictor import Predictor
    from perennial.bundle.read import open_bundle

    opened = open_bundle(bundle, bundle.name)
    predictor = Predictor(opened)
    names = [column.name for column in opened.schema.inputs]
    with pq.ParquetFile(rows) as file:
        total = file.metadata.num_rows
        if total == 0:
            return _Probed(error="no rows to predict")
        picked = np.unique(np.linspace(0, total - 1, _REQUESTS).astype(np.int64))
        served: list[np.ndarray] = []
        requests: list[dict[str, Any]] = []
        start = 0
        for batch in file.iter_batches(_BATCH_ROWS, columns=names):
            table = pa.Table.from_batches([batch])
            served.append(predictor.predict(table).values)
            here = picked[(picked >= start) & (picked < start + len(table))] - start
            requests += _as_requests(table.take(pa.array(here)))
            start += len(table)
    predictions = np.concatenate(served)
    np.save(folder / "predictions.npy", predictions, allow_pickle=False)

    for i in range(_WARM_UP):
        _answer(predictor, requests[i % len(requests)])
    singles, times = [], []
    for i in range(_REQUESTS):
        begun = time.perf_counter()
        singles.append(_answer(predictor, requests[i % len(requests)]))
        times.append(time.perf_counter() - begun)
    alone, together = np.concatenate(singles[: len(picked)]), predictions[picked]
    same = alone.tobytes() == together.tobytes()
    p50, p99 = (1000 * np.percentile(times, [50, 99])).tolist()
    return _Probed(
        single_difference=None if same else float(abs(alone - together).max()),
        p50_ms=p50,
        p99_ms=p99,
    )


def _as_requests(rows: Any) -> list[dict[str, Any]]:
    """Rows of an Arrow table as they come out of a JSON request: times as text, missing as None."""
    plain = [
        {name: None if value != value else value for name, value in row.items()}  # noqa: PLR0124
        for row in rows.to_pylist()
    ]
    requests: list[dict[str, Any]] = json.loads(json.dumps(plain, default=str))
    return requests


def _answer(predictor: Predictor, request: dict[str, Any]) -> np.ndarray:
    return predictor.predict({name: [value] for name, value in request.items()}).values


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
