"""However rows arrive, late, repeated, changed or out of order, the table is what they say last."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.spec import ModelSpec, parse_spec
from perennial.stores import quarantine, sources, staging, tables

MODEL = """
name: m
objective: binary
source: {kind: csv, uri: rows.csv, event_time: at, entity: [id], lateness: 5200w}
label: {column: y}
columns:
  id: {type: category}
  x: {type: float, min: 0, max: 100}
  y: {type: boolean}
quarantine: {max_share: 1}
"""
SPEC = parse_spec(MODEL)
Row = tuple[int, str | None, float | None, bool | None]
ROWS = st.tuples(
    st.integers(1, 5),
    st.sampled_from(["a", "b", None]),
    st.sampled_from([0.0, 1.5, None]),
    st.sampled_from([True, False, None]),
)
ARRIVALS = st.lists(st.lists(ROWS, min_size=1, max_size=8), min_size=1, max_size=4)


def ingest(root: Path, rows: list[Row], spec: ModelSpec = SPEC) -> int:
    texts = ["" if value is None else str(value) for row in rows for value in row[1:]]
    lines = [
        f"2024-01-0{row[0]}T00:00:00Z,{','.join(texts[3 * i : 3 * i + 3])}\n"
        for i, row in enumerate(rows)
    ]
    (root / "rows.csv").write_text("at,id,x,y\n" + "".join(lines))
    table = str(root / "table")
    source = sources.inspect(spec, root, tables.watermark(spec, table), None)
    staged = staging.stage(spec, root, source, root / "staging")
    return tables.publish(spec, staged, table, str(root / "quarantine")).version


def content(root: Path) -> list[Row]:
    ref = tables.dataset(SPEC, str(root / "table"), None)
    frame = pd.concat(tables.scan(ref, SPEC, batch_rows=3)).astype(object)
    frame = frame.where(frame.notna(), None)
    return [
        (at.day, key, x, None if y is None else bool(y))
        for at, key, x, y in frame.itertuples(index=False)
    ]


@settings(deadline=None, max_examples=15)
@given(ARRIVALS)
def test_the_table_holds_the_last_word_on_each_row_in_canonical_order(
    arrivals: list[list[Row]],
) -> None:
    expected: dict[tuple[int, str | None], Row] = {}
    with tempfile.TemporaryDirectory() as place:
        for arrival in arrivals:
            expected.update({(row[0], row[1]): row for row in arrival})
            version = ingest(Path(place), arrival)
            assert ingest(Path(place), arrival) == version
        order = sorted(expected.values(), key=lambda row: (row[0], row[1] is None, row[1] or ""))
        assert content(Path(place)) == order


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(ARRIVALS, st.sampled_from([1, 2])), min_size=1, max_size=4))
def test_whatever_the_rules_become_each_row_passes_them_or_is_in_quarantine(
    days: list[tuple[list[list[Row]], int]],
) -> None:
    arrived: set[tuple[int, str | None]] = set()
    with tempfile.TemporaryDirectory() as place:
        ingest(Path(place), [(1, "first", 0.0, True)])
        for arrivals, most in days:
            spec = parse_spec(MODEL.replace("max: 100", f"max: {most}"))
            for arrival in arrivals:
                arrived.update((row[0], row[1]) for row in arrival)
                version = ingest(Path(place), arrival, spec)
                assert ingest(Path(place), arrival, spec) == version
                rows = content(Path(place))
                assert all(x is None or x <= most for _, _, x, _ in rows)
                bad = [row.row for row in quarantine.rows(f"{place}/quarantine", limit=1000)]
                refused = {
                    (int(row["at"][8:10]), row["id"]) for row in bad if isinstance(row, dict)
                }
                present = {(day, key) for day, key, _, _ in rows}
                assert present | refused == arrived | {(1, "first")}
