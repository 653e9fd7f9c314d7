"""The bundle in a fresh process, compared with training."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from perennial.bundle import probe
from perennial.bundle.absent import ABSENT
from perennial.bundle.probe import check_serving
from perennial.bundle.write import write_bundle
from perennial.contracts.verdicts import ServingCheck
from tests.unit.bundle.conftest import make

ROWS = 60


def check(
    made: Any, folder: Path, expected: np.ndarray | None = None, **options: Any
) -> ServingCheck:
    timeout = options.pop("timeout_seconds", 120)
    ref = write_bundle(folder / "bundles", dataclasses.replace(made.content, **options))
    rows = folder / "rows.parquet"
    made.rows.head(ROWS).assign(outcome="late").to_parquet(rows)
    if expected is None:
        expected = made.expected[:ROWS]
    return check_serving(Path(ref.uri), rows, expected, timeout_seconds=timeout)


def refusal(error: str) -> ServingCheck:
    return ServingCheck(loaded=False, error=error)


def test_a_good_bundle_loads_predicts_alike_and_is_timed(tmp_path: Path) -> None:
    found = check(make("multiclass"), tmp_path)
    assert (found.loaded, found.identical, found.rows) == (True, True, ROWS)
    assert (found.max_abs_difference, found.error) == (0.0, "")
    assert found.p50_ms is not None
    assert found.p99_ms is not None
    assert 0 < found.p50_ms <= found.p99_ms


def test_a_difference_in_the_last_bit_of_one_row_is_found(made: Any) -> None:
    expected = made.expected.copy()
    expected[17] = np.nextafter(expected[17], np.float32(1))
    found = probe._compared(made.expected, expected, probe._Probed(p50_ms=1.0, p99_ms=2.0))
    assert (found.loaded, found.identical, found.rows) == (True, False, len(expected))
    assert found.max_abs_difference == abs(float(expected[17]) - float(made.expected[17])) > 0


def test_predictions_of_other_rows_are_not_compared_by_chance(made: Any) -> None:
    found = probe._compared(made.expected, made.expected[:-1], probe._Probed())
    assert (found.loaded, found.identical, found.max_abs_difference) == (True, False, None)
    assert found.error == "served float32 (400,), training float32 (399,)"


def test_a_feature_that_looks_at_other_rows_is_not_identical(
    make_with: Callable[[str], Any], tmp_path: Path
) -> None:
    source = (
        "import pandas as pd\n"
        "def lateness(sent: pd.Series) -> pd.Series:\n"
        "    return (sent - sent.min()).dt.total_seconds() / 1e6\n"
    )
    made = make_with(source)
    found = check(made, tmp_path, expected=_expected_of_batch(made))
    assert (found.loaded, found.identical) == (True, False)
    assert found.error == "a row alone predicts another value than in its table"
    assert found.max_abs_difference is not None
    assert found.max_abs_difference > 0.01


def _expected_of_batch(made: Any) -> np.ndarray:
    """What training would have predicted on just these rows as one table."""
    import xgboost as xgb

    from perennial.data.encoding import encode
    from perennial.data.features import FeatureProgram

    program = FeatureProgram.load(made.content.features_source, made.content.spec)
    features = program.columns(made.rows.head(ROWS), made.content.state)
    booster = xgb.Booster()
    booster.load_model(bytearray(made.content.booster))
    values: np.ndarray = booster.inplace_predict(encode(features, made.content.schema)[0])
    return values


def test_a_damaged_bundle_is_an_answer_not_an_exception(made: Any, tmp_path: Path) -> None:
    ref = write_bundle(tmp_path, made.content)
    Path(ref.uri, "booster.ubj").write_bytes(b"")
    size = len(made.content.booster)
    found = check_serving(Path(ref.uri), tmp_path / "none.parquet", made.expected)
    assert found == refusal(
        f"bundle {ref.uri}, booster.ubj: 0 bytes, the manifest says {size:,} "
        "(restore the folder from a copy, or remove it and train again)"
    )


def test_feature_code_that_needs_what_serving_lacks_is_refused_though_it_is_installed(
    made: Any, tmp_path: Path
) -> None:
    __import__("sklearn.preprocessing")
    source = "import sklearn.preprocessing\n" + made.content.features_source
    assert check(made, tmp_path, features_source=source) == refusal(
        "features.py, line 1: raised ModuleNotFoundError: sklearn is not there when serving"
    )


def test_a_bundle_that_loads_but_can_not_predict_the_rows_does_not_count_as_loaded(
    made: Any, tmp_path: Path
) -> None:
    source = made.content.features_source.replace("weight_kg / (items + 1)", "weight_kg.nothing")
    found = check(made, tmp_path, features_source=source)
    assert not found.loaded
    assert re.match(r"features\.py, line 9, weight_per_item\(\): raised Attr", found.error)


def test_rows_that_can_not_be_read_are_told(made: Any, tmp_path: Path) -> None:
    ref = write_bundle(tmp_path, made.content)
    found = check_serving(Path(ref.uri), tmp_path / "none.parquet", made.expected)
    assert found.error.startswith("FileNotFoundError: ")


def test_a_process_that_dies_is_told_with_its_code(made: Any, tmp_path: Path) -> None:
    source = "import os\nos._exit(9)\n" + made.content.features_source
    assert check(made, tmp_path, features_source=source) == refusal(
        "the process ended with code 9: it said nothing"
    )


def test_a_process_that_hangs_is_ended(made: Any, tmp_path: Path) -> None:
    source = "import time\ntime.sleep(600)\n" + made.content.features_source
    found = check(made, tmp_path, features_source=source, timeout_seconds=0.2)
    assert found == refusal("no answer within 0.2 s")


def test_what_only_training_installs_is_absent_from_the_probe() -> None:
    project = tomllib.loads(Path(__file__).parents[3].joinpath("pyproject.toml").read_text())
    modules = {"scikit-learn": "sklearn"}
    wanted = project["project"]["optional-dependencies"]["pipeline"]
    names = {re.split(r"[^a-z0-9-]", requirement)[0] for requirement in wanted}
    assert {modules.get(name, name).replace("-", "_") for name in names} <= set(ABSENT)
