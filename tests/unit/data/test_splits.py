from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from perennial.contracts.errors import InputError
from perennial.data.splits import assign, narrowed, split_columns, unlearned
from perennial.spec import ModelSpec, parse_spec

START = pd.Timestamp("2024-01-01", tz="UTC")


def spec(split: str, delay: str = "0s", source: str = "event_time: at, entity: [id]") -> ModelSpec:
    return parse_spec(f"""
name: m
objective: binary
source: {{kind: csv, uri: x.csv{source and ", " + source}}}
label: {{column: y{f", delay: {delay}" if "event_time" in source else ""}}}
split: {split}
columns:
  id: {{type: string}}
  shop: {{type: category}}
  x: {{type: float}}
""")


def days(count: int, unlabelled: tuple[int, ...] = ()) -> pd.DataFrame:
    """A row a day."""
    y = np.arange(count) % 2 * 1.0
    y[list(unlabelled)] = np.nan
    return pd.DataFrame(
        {
            "at": pd.date_range(START, periods=count, freq="D").as_unit("us"),
            "id": pd.array([f"r{i}" for i in range(count)], dtype="str"),
            "shop": pd.array([f"s{i % 17}" for i in range(count)], dtype="str"),
            "x": np.arange(count) * 1.0,
            "y": y,
        }
    )


def drawn(parts: np.ndarray) -> str:
    """One letter a row: t train, v validation, T test, . unused."""
    return "".join("tvT."[part] for part in parts)


def at(day: float) -> datetime:
    return (START + timedelta(days=day)).to_pydatetime()


# By time. A window of n days counted back from the last row holds n daily rows.


@pytest.mark.parametrize(
    ("split", "delay", "expected"),
    [
        ("{kind: time, validation: 3d, test: 2d}", "0s", "tttttttvvvTT"),
        ("{kind: time, validation: 3d, test: 2d, gap: 1d}", "0s", "ttttt.vvv.TT"),
        ("{kind: time, validation: 3d, test: 2d}", "1d", "ttttt.vvv.TT"),
        ("{kind: time, validation: 3d, test: 2d, gap: 2d}", "1d", "ttt..vvv..TT"),
        ("{kind: time, validation: 3d, test: 2d, gap: 1d}", "2d", "ttt..vvv..TT"),
        ("{kind: time, validation: 3d, test: 2d, window: 4d}", "0s", "...ttttvvvTT"),
        ("{kind: time, validation: 3d, test: 2d, gap: 1d, window: 4d}", "0s", ".tttt.vvv.TT"),
        ("{kind: time, validation: 3d, test: 2d, window: 90d}", "0s", "tttttttvvvTT"),
    ],
)
def test_time_parts_are_counted_back_with_gaps_of_at_least_the_labels_delay(
    split: str, delay: str, expected: str
) -> None:
    assert drawn(assign(days(12), spec(split, delay), None)) == expected


def test_a_window_starts_with_its_first_moment_and_ends_before_its_last() -> None:
    frame = days(5)
    edge = START + timedelta(days=3)
    times = [START, edge, edge + timedelta(microseconds=1), edge + timedelta(days=1)]
    frame = frame.iloc[:4].assign(at=pd.Series(times).dt.as_unit("us"))
    frame.loc[4] = frame.loc[3].to_dict() | {"at": START + timedelta(hours=1)}
    parts = assign(frame, spec("{kind: time, validation: 1d, test: 1d}"), None)
    assert drawn(parts) == "tvTTt"


def test_parts_are_counted_from_the_last_row_whose_label_is_known() -> None:
    model = spec("{kind: time, validation: 2d, test: 2d}", delay="2d")
    frame = days(14, unlabelled=(3, 11))
    assert drawn(assign(frame, model, at(12))) == "ttt..vv..TT..."
    assert drawn(assign(frame, model, at(12.5))) == "ttt..vv..TT..."
    assert drawn(assign(frame, model, at(11))) == "tt..vv..TT...."


def test_a_label_is_known_exactly_its_delay_after_the_event() -> None:
    model = spec("{kind: time, validation: 1d, test: 1d}", delay="2d")
    frame = days(12)
    known = assign(frame, model, at(9)) == 2
    assert np.flatnonzero(known).tolist() == [7]
    just_before = assign(frame, model, at(9) - timedelta(microseconds=1)) == 2
    assert np.flatnonzero(just_before).tolist() == [6]


def test_a_naive_moment_of_knowledge_is_utc() -> None:
    model = spec("{kind: time, validation: 1d, test: 1d}")
    naive = at(5).replace(tzinfo=None)
    assert drawn(assign(days(9), model, naive)) == drawn(assign(days(9), model, at(5)))
    zoned = at(5).astimezone(UTC)
    assert drawn(assign(days(9), model, zoned)) == "ttttvT..."


def test_rows_that_came_late_find_their_part_by_their_time() -> None:
    model = spec("{kind: time, validation: 3d, test: 2d}")
    frame = days(12)
    order = np.random.default_rng(0).permutation(12)
    assert (assign(frame.iloc[order], model, None) == assign(frame, model, None)[order]).all()


def test_each_empty_part_is_told_with_what_it_would_have_held() -> None:
    model = spec("{kind: time, validation: 10d, test: 2w}", delay="1d")
    with pytest.raises(InputError) as caught:
        assign(days(20), model, None)
    assert str(caught.value) == (
        "model.yaml, split: no row for the train part (to 2023-12-25 00:00): labelled rows span "
        "2024-01-01 00:00 to 2024-01-20 00:00; counted back from the last are test 2w, validation "
        "10d and two gaps of 1d (shorten the parts or wait for more data)"
    )
    hole = days(30).drop(index=range(13, 20))
    with pytest.raises(InputError) as caught:
        assign(hole, spec("{kind: time, validation: 5d, test: 10d}"), None)
    assert "no row for the validation part (from 2024-01-15 00:00 to 2024-01-20" in str(
        caught.value
    )


def test_without_a_known_label_the_data_is_described() -> None:
    model = spec("{kind: time, validation: 1d, test: 1d}", delay="2d")
    with pytest.raises(InputError) as caught:
        assign(days(5, unlabelled=(0,)), model, at(1))
    assert str(caught.value) == (
        "label 'y': no row has a known label: 5 rows, 4 with a label, the first event at "
        "2024-01-01 00:00, known 2d later, as of 2024-01-02 00:00:00+00:00 "
        "(check label.column or wait for labels)"
    )
    with pytest.raises(InputError, match="no row has a known label: 0 rows, 0 with a label"):
        assign(days(0), spec("{kind: random, validation: 0.2, test: 0.2}"), None)


# By share.


def test_stratified_shares_are_exact_in_each_class() -> None:
    model = spec("{kind: stratified, validation: 0.2, test: 0.1}")
    frame = days(1000)
    frame["y"] = (np.arange(1000) % 20 == 0) * 1.0
    parts = assign(frame, model, None)
    for label, rows in ((0.0, 950), (1.0, 50)):
        counts = np.bincount(parts[frame["y"] == label])
        assert counts.tolist() == [int(rows * 0.7), int(rows * 0.2), int(rows * 0.1)]


def test_a_class_of_one_row_is_trained_on() -> None:
    model = spec("{kind: stratified, validation: 0.2, test: 0.2}")
    frame = days(41)
    frame["y"] = [1.0] + [0.0] * 40
    assert assign(frame, model, None)[0] == 0


@pytest.mark.parametrize("kind", ["random", "stratified", "group, group: shop"])
def test_another_seed_gives_another_split_and_the_same_seed_the_same(kind: str) -> None:
    def split(seed: int) -> np.ndarray:
        model = spec(f"{{kind: {kind}, validation: 0.3, test: 0.3, seed: {seed}}}")
        return assign(days(400), model, None)

    assert (split(1) == split(1)).all()
    assert (split(1) != split(2)).any()


def test_the_random_split_is_the_same_forever() -> None:
    """A change of the hash would move test rows of registered versions into training."""
    model = spec("{kind: random, validation: 0.3, test: 0.3}")
    assert drawn(assign(days(30), model, None)) == "vvTtvvTtTTtTtvvTTtTtvTTTvTttvt"
    groups = spec("{kind: group, group: shop, validation: 0.3, test: 0.3}")
    assert drawn(assign(days(17), groups, None)) == "TvTttTttTTttTTtTt"
    snapshot = spec("{kind: random, validation: 0.3, test: 0.3}", source="")
    assert drawn(assign(days(30), snapshot, None)) == "vTtvtttTTTTttTTtTttvvvttTvvTvT"
    positions = assign(days(30), snapshot, None, "position")
    assert drawn(positions) == "tTTvvvtTTvvtTttTTtTTTtvvtvtTtT"
    equal = days(30).assign(id="r", shop="s", x=1.0)
    assert drawn(assign(equal, snapshot, None)) == "ttvTTttvtTtttTTvvvTtvvTTTtvTtt"


SNAPSHOTS = ["random", "stratified"]


@pytest.mark.parametrize("kind", SNAPSHOTS)
def test_without_an_identity_it_makes_no_difference_where_a_row_lies(kind: str) -> None:
    model = spec(f"{{kind: {kind}, validation: 0.2, test: 0.2}}", source="")
    frame = days(400, unlabelled=(3, 4, 9))
    frame[["id", "shop", "x"]] = frame[["id", "shop", "x"]].iloc[np.arange(400) // 3].to_numpy()
    frame["x"] = frame["x"].astype(float)
    order = np.random.default_rng(0).permutation(400)

    def told(rows: pd.DataFrame) -> list[tuple[object, ...]]:
        parts = assign(rows, model, None)
        return sorted(zip(rows["id"], rows["y"].fillna(-1), parts.tolist(), strict=True))

    assert told(frame) == told(frame.iloc[order])
    assert (assign(frame.assign(y=frame["y"].astype("Int64")), model, None) >= 0).sum() == 397


def test_rows_that_come_at_the_top_of_a_snapshot_leave_the_others_where_they_were() -> None:
    model = spec("{kind: random, validation: 0.2, test: 0.2}", source="")
    after = assign(days(500), model, None)
    turned = assign(days(500)[::-1], model, None)[::-1]
    assert (assign(days(400), model, None) == after[:400]).all()
    assert (turned == after).all()


@pytest.mark.parametrize("kind", SNAPSHOTS)
def test_a_few_distinct_rows_that_come_often_are_in_each_part(kind: str) -> None:
    model = spec(f"{{kind: {kind}, validation: 0.2, test: 0.2}}", source="")
    frame = days(3000).assign(id="r", x=1.0, shop=lambda rows: rows["shop"].str[:2])
    parts = assign(frame, model, None)
    shares = pd.crosstab(frame["shop"], parts, normalize="index")
    assert (abs(shares - [0.6, 0.2, 0.2]) < 0.08).all(axis=None)


def test_rows_made_narrow_are_divided_as_they_were() -> None:
    for source, kind in (
        ("", "stratified"), ("", "random"), ("entity: [id]", "random"),
        ("event_time: at, entity: [id]", "group, group: shop"),
    ):  # fmt: skip
        model = spec(f"{{kind: {kind}, validation: 0.2, test: 0.2}}", source=source)
        frame = days(300, unlabelled=(1, 8))
        read = frame[list(split_columns(model))]
        narrow = pd.concat([narrowed(read[:100], model), narrowed(read[100:], model)])
        assert len(narrow.columns) <= 3
        assert (assign(narrow, model, None) == assign(frame, model, None)).all()


def test_rows_without_a_group_stay_together() -> None:
    model = spec("{kind: group, group: shop, validation: 0.3, test: 0.3}")
    frame = days(200)
    frame.loc[::3, "shop"] = None
    parts = assign(frame, model, None)
    assert len(set(parts[::3])) == 1


def test_a_group_of_zero_is_one_group_whatever_its_sign() -> None:
    model = spec("{kind: group, group: x, validation: 0.3, test: 0.3}")
    frame = days(200)
    frame["x"] %= 50
    parts = assign(frame, model, None)
    frame.loc[50::100, "x"] = -0.0
    assert (assign(frame, model, None) == parts).all()


def test_known_labels_matter_for_every_kind_of_split() -> None:
    for kind in ("random", "stratified", "group, group: shop"):
        model = spec(f"{{kind: {kind}, validation: 0.3, test: 0.3}}", delay="1d")
        parts = assign(days(300, unlabelled=(0, 5)), model, at(200))
        unused = np.flatnonzero(parts == -1).tolist()
        assert unused == [0, 5, *range(200, 300)]


@pytest.mark.parametrize("delay", ["0s", "1h", "3d"])
def test_what_a_version_has_not_learned_from_is_what_it_may_be_asked(delay: str) -> None:
    random = spec("{kind: random, validation: 0.2, test: 0.2}", delay)
    rows, moment = days(60), at(30)
    used = assign(rows, random, moment) >= 0
    asked = (rows["at"] >= unlearned(random, moment)).to_numpy()
    assert not (used & asked).any()
    assert rows["at"][asked].min() == moment + timedelta(days=1 if delay == "0s" else 0)


def test_too_few_rows_for_the_shares_are_told() -> None:
    with pytest.raises(InputError) as caught:
        assign(days(2), spec("{kind: random, validation: 0.01, test: 0.01}"), None)
    assert str(caught.value) == (
        "model.yaml, split: no row for the validation and the test part with validation 0.01 and "
        "test 0.01; labelled rows: 2 (raise the shares or bring more data)"
    )
    frame = days(100).assign(shop="one")
    shop = "kind: group, group: shop, seed: 7"
    for shares, part, fix in (
        ("0.2", "validation and the test", "raise"),
        ("0.49", "train and the test", "lower"),
    ):
        with pytest.raises(InputError, match=f"no row for the {part} part") as caught:
            assign(frame, spec(f"{{{shop}, validation: {shares}, test: {shares}}}"), None)
        assert str(caught.value).endswith(
            f"groups: 1 ({fix} the shares, bring more groups, or try another seed)"
        )


def test_only_the_columns_that_decide_are_read() -> None:
    shares = "validation: 0.2, test: 0.2"
    assert split_columns(spec("{kind: time}")) == ("y", "at")
    assert split_columns(spec(f"{{kind: group, group: shop, {shares}}}")) == ("y", "at", "shop")
    assert split_columns(spec(f"{{kind: random, {shares}}}")) == ("y", "at", "id")
    snapshot = spec(f"{{kind: stratified, {shares}}}", source="")
    assert split_columns(snapshot) == ("y", "id", "shop", "x")
    assert split_columns(snapshot, "position") == ("y",)
    for model in (spec("{kind: time}"), snapshot):
        assign(days(100)[list(split_columns(model))], model, None)
    assign(days(100)[["y"]], snapshot, None, "position")
