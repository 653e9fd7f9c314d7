"""Whatever a table holds: its inferred model.yaml loads, and none of its rows breaks it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perennial.contracts.errors import InputError
from perennial.data.checks import RowChecks
from perennial.data.features import FeatureProgram
from perennial.data.infer import infer
from perennial.spec import parse_spec
from perennial.stores.sources import inspect, read

ROWS = 64

values: dict[str, st.SearchStrategy[Any]] = {
    "whole": st.integers(-(10**6), 10**6),
    "huge": st.integers(-(2**64), 2**64),
    "few": st.integers(0, 3),
    "float": st.floats(allow_nan=True, allow_infinity=True),
    "money": st.decimals(-1000, 1000, places=2).map(str),
    "flag": st.sampled_from(["true", "False", "TRUE"]),
    "word": st.sampled_from(["a", "b b", "on", "no", "NA", "1e3", "007", "1,5", "~", "é", ""]),
    "text": st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8),
    "time": st.datetimes().map(str),
    "none": st.none(),
}
names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8) | (
    st.sampled_from(["x", "class", "hour_of_day", "pd", "on", "1", "a: b", "#", "at", "{", "- a"])
)


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """Columns of some kind each, now and then with missing values, one of them the label."""
    columns = {}
    for name in draw(st.lists(names, min_size=2, max_size=5, unique=True)):
        kind = values[draw(st.sampled_from(sorted(values)))]
        kind = kind | st.none() if draw(st.booleans()) else kind
        seen = draw(st.lists(kind, min_size=1, max_size=12))
        columns[name] = [seen[i * 7 % len(seen)] for i in range(ROWS)]
    return pd.DataFrame(columns, dtype=object)


@settings(deadline=None, max_examples=80, suppress_health_check=list(HealthCheck))
@given(tables(), st.booleans(), st.sampled_from([10**6, 100]), st.data())
def test_every_row_of_a_file_keeps_to_the_model_inferred_from_it(
    table: pd.DataFrame, timed: bool, cells: int, data: st.DataObject
) -> None:
    label = data.draw(st.just("the label") | st.sampled_from(list(table.columns)))
    table = table.assign(**{"the label": [i * 5 % 3 for i in range(ROWS)]})
    time = "event time" if timed else None
    if time:
        moments = pd.date_range("2024-01-01", periods=ROWS, freq="h").astype(str)
        table = table.assign(**{time: moments})
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        table.to_csv(root / "rows.csv", index=False)
        try:
            new = infer(root / "rows.csv", "m", label, time, project=root, cells=cells)
        except InputError as error:
            refused = error.problems
        else:
            refused = ()
            spec = parse_spec(new.model_text)
            FeatureProgram.load(new.features_text, spec)
            checks = RowChecks(spec)
            for batch in read(spec, root, inspect(spec, root, None, None)):
                told = checks.check(batch.table).reasons.to_pylist()
                assert told == [] or cells < ROWS * len(table.columns)
        assert all(problem.what for problem in refused)
