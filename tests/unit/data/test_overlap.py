"""An ensemble is fitted and judged on rows that no member was fitted on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.contracts.errors import InputError
from perennial.data.overlap import drop_seen, fitted_before
from perennial.data.splits import assign
from perennial.spec import ModelSpec, parse_spec

START = pd.Timestamp("2024-01-01", tz="UTC")


def spec(split: str, delay: str = "0s", event_time: bool = True) -> ModelSpec:
    time = ", event_time: at" if event_time else ""
    late = f", delay: {delay}" if event_time else ""
    return parse_spec(f"""
name: m
objective: binary
source: {{kind: csv, uri: x.csv{time}}}
label: {{column: y{late}}}
split: {split}
columns:
  x: {{type: float}}
""")


def rows(count: int, every: str = "1D") -> pd.DataFrame:
    times = pd.date_range(START, periods=count, freq=every).as_unit("us")
    return pd.DataFrame({"at": times, "x": np.arange(count) * 1.0, "y": np.arange(count) % 2 * 1.0})


@settings(deadline=None, max_examples=60)
@given(
    validation=st.integers(1, 20),
    test=st.integers(1, 20),
    gap=st.integers(0, 5),
    delay=st.integers(0, 5),
    count=st.integers(70, 120),
    until=st.integers(-3, 5),
)
def test_every_row_a_version_was_fitted_or_tuned_on_lies_before_what_is_told_of_it(
    validation: int, test: int, gap: int, delay: int, count: int, until: int
) -> None:
    split = f"{{kind: time, validation: {validation}d, test: {test}d, gap: {gap}d}}"
    made, frame = spec(split, f"{delay}d"), rows(count)
    last = frame["at"].iloc[-1].to_pydatetime()
    as_of = min(last + timedelta(days=until), last + timedelta(days=delay, microseconds=1))
    parts = assign(frame, made, as_of)
    told = fitted_before(made, as_of)
    assert told is not None
    fitted = frame["at"][(parts == 0) | (parts == 1)]
    assert (fitted < told).all()
    if as_of >= last + timedelta(days=delay):  # and not a row more than must be
        assert (frame["at"][parts == 2] >= told).all()


@pytest.mark.parametrize("split", ["{kind: random, validation: 0.2, test: 0.2}"])
def test_of_a_split_by_chance_any_row_may_have_been_used(split: str) -> None:
    as_of = datetime(2024, 3, 1, tzinfo=UTC)
    assert fitted_before(spec(split, "1d"), as_of) == datetime(
        2024, 2, 29, microsecond=1, tzinfo=UTC
    )


def test_without_event_times_nothing_can_be_told() -> None:
    made = spec("{kind: random, validation: 0.2, test: 0.2}", event_time=False)
    assert fitted_before(made, None) is None


def drawn(parts: np.ndarray) -> str:
    return "".join("tvT."[part] for part in parts)


def test_seen_rows_leave_every_part_but_those_a_mean_learns_nothing_from() -> None:
    parts = np.array([0] * 4 + [1] * 3 + [2] * 3, dtype=np.int8)
    times = rows(10)["at"]
    made = spec("{kind: time, validation: 3d, test: 3d}")
    since = (START + pd.Timedelta("5D")).to_pydatetime()
    assert drawn(drop_seen(parts, times, since, "mean", made)) == "tttt.vvTTT"
    early = (START + pd.Timedelta("2D")).to_pydatetime()
    assert drawn(drop_seen(parts, times, early, "stacking", made)) == "..ttvvvTTT"
    assert drawn(parts) == "ttttvvvTTT"


def test_a_part_that_members_know_altogether_is_refused_with_what_to_do() -> None:
    parts = np.array([0] * 4 + [1] * 3 + [2] * 3, dtype=np.int8)
    made = spec("{kind: time, validation: 3d, test: 3d}")
    since = (START + pd.Timedelta("7D")).to_pydatetime()
    with pytest.raises(InputError) as refused:
        drop_seen(parts, rows(10)["at"], since, "stacking", made)
    fix = (
        "(let the members' test parts be longer than this model's last 6d, pin earlier versions "
        "of the members (NAME@V), or wait for more data)"
    )
    assert str(refused.value).splitlines() == [
        "model.yaml, split: all 4 rows of the train part, 2024-01-01 00:00 to 2024-01-04 00:00, "
        f"lie before 2024-01-08 00:00: members may have been fitted on them {fix}",
        "model.yaml, split: all 3 rows of the validation part, 2024-01-05 00:00 to "
        "2024-01-07 00:00, lie before 2024-01-08 00:00: members may have been fitted on them "
        f"{fix}",
    ]
