"""What must hold for every split of every dataset: no row tells of another part's rows."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from perennial.contracts.errors import InputError
from perennial.data.splits import assign
from perennial.spec import ModelSpec, parse_spec

START = pd.Timestamp("2024-01-01", tz="UTC")
quick = settings(deadline=None, max_examples=60)


def spec(split: str, delay_hours: int = 0) -> ModelSpec:
    return parse_spec(f"""
name: m
objective: multiclass
source: {{kind: csv, uri: x.csv, event_time: at, entity: [id]}}
label: {{column: y, delay: {delay_hours}h}}
split: {split}
columns:
  id: {{type: string}}
  shop: {{type: category}}
""")


@st.composite
def frames(draw: st.DrawFn, least: int = 1, most: int = 120, days: int = 0) -> pd.DataFrame:
    """Rows of unequal times (some equal), groups (some missing), classes (some unlabelled), of so
    many days at least."""
    rows = draw(st.integers(least, most))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    hours = np.sort(random.integers(0, draw(st.integers(24 * days + 1, 24 * 40)), rows))
    shops = [None if random.random() < 0.05 else f"s{random.integers(0, 12)}" for _ in range(rows)]
    labels = random.choice(["a", "b", "c"], rows, p=[0.6, 0.3, 0.1]).tolist()
    missing = random.random(rows) < draw(st.sampled_from([0.0, 0.2]))
    return pd.DataFrame(
        {
            "at": (START + pd.to_timedelta(hours, unit="h")).as_unit("us"),
            "id": pd.array([f"r{i}" for i in range(rows)], dtype="str"),
            "shop": pd.array(shops, dtype="str"),
            "y": pd.array([None if m else y for m, y in zip(missing, labels, strict=True)], "str"),
        }
    )


def known(frame: pd.DataFrame, model: ModelSpec, as_of: pd.Timestamp | None) -> pd.Series:
    labelled = frame["y"].notna()
    return labelled if as_of is None else labelled & (frame["at"] + model.label.delay <= as_of)


def split_or_skip(
    frame: pd.DataFrame, model: ModelSpec, as_of: pd.Timestamp | None = None
) -> np.ndarray:
    try:
        parts = assign(frame, model, None if as_of is None else as_of.to_pydatetime())
    except InputError as error:
        assume("no row" not in str(error))
        raise
    assert parts.dtype == np.int8
    assert set(parts.tolist()) <= {-1, 0, 1, 2}
    assert all((parts == part).any() for part in (0, 1, 2))
    assert not (parts >= 0)[~known(frame, model, as_of)].any()
    return parts


hours = st.integers(24, 24 * 8)


@quick
@given(
    frame=frames(least=50, days=25),  # so that most of them have rows for each part
    validation=hours,
    test=hours,
    gap=st.integers(0, 72),
    delay=st.integers(0, 72),
    window=st.one_of(st.none(), hours),
    knowledge=st.integers(24 * 20, 24 * 60),
)
def test_labels_of_earlier_parts_are_known_when_a_part_begins(
    frame: pd.DataFrame,
    validation: int,
    test: int,
    gap: int,
    delay: int,
    window: int | None,
    knowledge: int,
) -> None:
    limit = f", window: {window}h" if window else ""
    model = spec(
        f"{{kind: time, validation: {validation}h, test: {test}h, gap: {gap}h{limit}}}", delay
    )
    as_of = START + timedelta(hours=knowledge)
    parts = split_or_skip(frame, model, as_of)
    times = [frame["at"][parts == part] for part in (0, 1, 2)]
    usable = known(frame, model, as_of)
    last = frame["at"][usable].max()
    tick = timedelta(microseconds=1)
    pause = timedelta(hours=max(gap, delay))
    test_start = last + tick - timedelta(hours=test)
    validation_start = test_start - pause - timedelta(hours=validation)

    assert times[2].max() == last
    assert times[2].min() >= test_start
    assert times[1].max() + pause < test_start
    assert times[1].min() >= validation_start
    assert times[0].max() + pause < validation_start
    if window:
        assert times[0].min() >= validation_start - pause - timedelta(hours=window)
    # and nothing that could be used is left out without one of these reasons
    between = (frame["at"] >= test_start - pause) & (frame["at"] < test_start)
    between |= (frame["at"] >= validation_start - pause) & (frame["at"] < validation_start)
    if not window:
        assert (parts[usable & ~between] >= 0).all()
    assert (parts[between] == -1).all()


KINDS = ["random", "stratified", "group, group: shop"]
shares = st.floats(0.05, 0.45)
seeds = st.integers(0, 2**31 - 1)


def by_share(kind: str, validation: float, test: float, seed: int, delay: int = 0) -> ModelSpec:
    return spec(f"{{kind: {kind}, validation: {validation}, test: {test}, seed: {seed}}}", delay)


@quick
@given(frames(least=10), shares, shares, seeds)
def test_no_group_is_in_two_parts(
    frame: pd.DataFrame, validation: float, test: float, seed: int
) -> None:
    parts = split_or_skip(frame, by_share("group, group: shop", validation, test, seed))
    used = frame.assign(part=parts)[parts >= 0]
    assert (used.groupby("shop", dropna=False)["part"].nunique() == 1).all()


@quick
@given(frames(least=10), st.sampled_from(KINDS), shares, shares, seeds, st.randoms())
def test_the_order_of_the_rows_makes_no_difference(
    frame: pd.DataFrame,
    kind: str,
    validation: float,
    test: float,
    seed: int,
    random: object,
) -> None:
    model = by_share(kind, validation, test, seed)
    parts = split_or_skip(frame, model)
    order = list(range(len(frame)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert (assign(frame.iloc[order], model, None) == parts[order]).all()
    assert (assign(frame, model, None) == parts).all()


@quick
@given(
    frames(least=30),
    st.sampled_from(["random", "group, group: shop"]),
    shares,
    shares,
    seeds,
    st.floats(0.3, 1),
)
def test_rows_keep_their_part_when_the_data_grows(
    frame: pd.DataFrame, kind: str, validation: float, test: float, seed: int, share: float
) -> None:
    model = by_share(kind, validation, test, seed, delay=24)
    after = split_or_skip(frame, model)
    early = frame.iloc[: max(1, int(len(frame) * share))]
    as_of = early["at"].max() + timedelta(hours=12)
    before = split_or_skip(early, model, as_of)
    kept = before >= 0
    assert (before[kept] == after[: len(early)][kept]).all()


@quick
@given(frames(least=20, most=400), shares, shares, seeds)
def test_stratified_shares_are_exact_to_the_row_in_every_class(
    frame: pd.DataFrame, validation: float, test: float, seed: int
) -> None:
    parts = split_or_skip(frame, by_share("stratified", validation, test, seed))
    assert (parts[frame["y"].notna()] >= 0).all()
    for label, rows in frame["y"].value_counts().items():
        counts = np.bincount(parts[frame["y"] == label], minlength=3)
        assert abs(counts[2] - test * rows) <= 0.5 + 1e-9
        assert abs(counts[1] + counts[2] - (test + validation) * rows) <= 0.5 + 1e-9


@settings(deadline=None, max_examples=10)
@given(st.sampled_from(["random", "group, group: id"]), shares, shares, seeds)
def test_shares_hold_in_expectation(kind: str, validation: float, test: float, seed: int) -> None:
    rows = 20_000
    frame = pd.DataFrame(
        {
            "at": pd.date_range(START, periods=rows, freq="min").as_unit("us"),
            "id": pd.array([f"r{i}" for i in range(rows)], dtype="str"),
            "y": pd.array(["a", "b"] * (rows // 2), dtype="str"),
        }
    )
    parts = assign(frame, by_share(kind, validation, test, seed), None)
    for part, share in ((1, validation), (2, test)):
        error = ((parts == part).mean() - share) / np.sqrt(share * (1 - share) / rows)
        assert abs(error) < 5.5  # standard errors: once in 26 million draws by chance
