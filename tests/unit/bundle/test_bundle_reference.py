"""The reference for drift out of a bundle, old or new."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from perennial.bundle.read import Bundle, open_bundle
from perennial.bundle.reference import bundle_reference
from perennial.bundle.write import write_bundle
from perennial.data.drift.counting import count_window
from perennial.data.frames import to_arrow
from perennial.decisions.drift import judge_drift
from perennial.spec.production import Drift


def opened(made: Any, folder: Path) -> Bundle:
    ref = write_bundle(folder, made.content)
    return open_bundle(Path(ref.uri), ref.digest)


def test_every_input_is_compared_as_the_log_writes_it(each_made: Any, tmp_path: Path) -> None:
    bundle = opened(each_made, tmp_path)
    reference = bundle_reference(bundle)
    inputs = {column.name: column for column in bundle.schema.inputs}
    assert set(reference.bins) == set(inputs)
    logged = to_arrow(each_made.rows[list(inputs)], inputs)
    window = count_window(reference.bins, [logged])
    assert all(counts.rows == len(each_made.rows) for counts in window.columns.values())
    verdict = judge_drift(reference, window, importance={}, settings=Drift(), seed=1)
    assert verdict.faults == ()


def test_what_the_log_leaves_out_is_left_out(made: Any, tmp_path: Path) -> None:
    assert "depot" not in bundle_reference(opened(made, tmp_path), leave_out=["depot"]).bins


def test_the_training_time_is_cut_into_stretches_as_long_as_the_window(
    made: Any, tmp_path: Path
) -> None:
    rows = io.BytesIO()
    made.rows.to_parquet(rows)
    content = replace(made.content, reference=rows.getvalue())
    ref = write_bundle(tmp_path, content)
    bundle = open_bundle(Path(ref.uri), ref.digest)
    reference = bundle_reference(bundle, window=timedelta(days=60))  # of 116
    assert [block.rows > 100 for block in reference.blocks] == [True, True]
    assert bundle_reference(bundle).blocks == ()


def test_predictions_are_compared_with_those_for_unseen_rows(
    each_made: Any, tmp_path: Path
) -> None:
    bundle = opened(each_made, tmp_path)
    reference = bundle_reference(bundle, held_out=np.asarray(each_made.expected))
    (name,) = set(reference.bins) - {column.name for column in bundle.schema.inputs}
    assert name == ("_class" if bundle.objective == "multiclass" else "_prediction")
    assert reference.window.columns[name].rows == len(each_made.rows) * 3 // 4
    if name == "_class":
        assert set(reference.bins[name].levels) <= set(bundle.schema.classes or ())
    none = np.empty((0,), np.float32)
    assert name not in bundle_reference(bundle, held_out=none).bins
