"""Feature code that looks at other rows must be refused: each way to leak that people write."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from perennial.contracts.errors import InputError
from perennial.data.features import FeatureProgram
from perennial.data.leaks import check_row_local
from perennial.spec import parse_spec

SPEC = parse_spec("""
name: shop
objective: regression
source: {kind: csv, uri: shop.csv, event_time: at, entity: [basket]}
label: {column: spent}
columns:
  basket: {type: string}
  shop: {type: category}
  price: {type: float}
  count: {type: integer, nullable: false}
""")
HEAD = """from __future__ import annotations
import datetime
import numpy as np
import pandas as pd
from perennial.data.features import fitted
"""


def baskets(rows: int = 2000, seed: int = 3) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    price = random.gamma(2, 10, rows)
    price[random.random(rows) < 0.01] = np.nan
    return pd.DataFrame(
        {
            "at": pd.date_range("2024-01-01", periods=rows, freq="7min", tz="UTC").as_unit("us"),
            "basket": pd.array([f"b{i}" for i in random.permutation(rows)], dtype="str"),
            "shop": pd.array(random.choice(["a", "b", "c", "d"], rows), dtype="str"),
            "price": price,
            "count": random.integers(1, 9, rows),
        }
    )


def check(body: str, frame: pd.DataFrame | None = None, seed: int = 7) -> None:
    program = FeatureProgram.load(HEAD + body, SPEC)
    frame = baskets() if frame is None else frame
    check_row_local(program, frame, program.fit(frame), seed)


def feature(expression: str) -> str:
    columns = (
        "at: pd.Series, basket: pd.Series, shop: pd.Series, price: pd.Series, count: pd.Series"
    )
    return f"def leak({columns}) -> pd.Series: return {expression}"


LEAKS = {
    "the next row": "price.shift(-1)",
    "the row before": "price.shift(1)",
    "the next row of the same shop": "price.groupby(shop).shift(-1)",
    "time to the next row": "(at.shift(-1) - at).dt.total_seconds()",
    "the mean of the batch": "price - price.mean()",
    "the mean of the group": "price.groupby(shop).transform('mean')",
    "a standard score": "(count - count.mean()) / count.std()",
    "a rank": "price.rank(pct=True)",
    "a running count": "count.groupby(shop).cumcount()",
    "a running sum": "count.cumsum()",
    "the sum of all later rows": "count[::-1].cumsum()[::-1]",
    "a moving mean": "price.rolling(5, min_periods=1).mean()",
    "the number of rows": "price * 0 + len(price)",
    "the position": "pd.Series(np.arange(len(price), dtype=float), index=price.index)",
    "the index": "pd.Series(price.index, index=price.index)",
    "the greatest": "price == price.max()",
    "the newest": "(at.max() - at).dt.total_seconds()",
    "whether it comes again": "count.duplicated(keep='last')",
    "filled from below": "price.bfill()",
    "filled from above": "price.ffill()",
    "filled with the mean": "price.fillna(price.mean())",
    "filled with the median": "price.fillna(price.median())",
    "interpolated": "price.interpolate()",
    "clipped at a quantile": "price.clip(upper=price.quantile(0.99))",
    "codes of the batch's categories": "shop.astype('category').cat.codes",
    "a rare level grouped": "shop.where(shop.map(shop.value_counts()) > 100, 'other')",
    "above the median": "(count > count.median())",
    "a random number": "pd.Series(np.random.default_rng().random(len(price)), index=price.index)",
    "sorted values under the old index": "pd.Series(np.sort(price.to_numpy()), index=price.index)",
}


@pytest.mark.parametrize("expression", LEAKS.values(), ids=LEAKS.keys())
def test_a_feature_that_looks_at_other_rows_is_refused(expression: str) -> None:
    with pytest.raises(InputError) as caught:
        check(feature(expression), seed=len(expression))
    message = str(caught.value)
    assert message.startswith("features.py, line 6, leak(): the feature 'leak' looks at other rows")
    assert message.endswith("belongs in a function with @fitted)")


def test_a_dependence_that_no_row_tried_alone_shows_is_found_in_the_half() -> None:
    frame = baskets(20_000)
    shops = [f"s{i}" for i in range(20_000)]
    shops[9000:9020] = ["same"] * 20
    frame["shop"] = pd.array(shops, dtype="str")
    frame.loc[9000:9019, "price"] = 20.0  # neither least, greatest, nor missing
    with pytest.raises(InputError) as caught:
        check(feature("price.groupby(shop).transform('size')"), frame)
    assert "has 20.0 in the whole table and" in str(caught.value)
    assert "in a shuffled half of the table" in str(caught.value)


def test_the_message_names_the_row_and_both_values() -> None:
    frame = baskets(4)
    frame["count"] = [1, 2, 4, 8]
    with pytest.raises(InputError) as caught:
        check(feature("count.shift(-1)"), frame)
    assert str(caught.value) == (
        "features.py, line 6, leak(): the feature 'leak' looks at other rows: row 0 of 4 has 2.0 "
        "in the whole table and a missing value on its own (use this row's columns only; what is "
        "learnt from other rows belongs in a function with @fitted)"
    )


def test_features_made_from_a_leaking_one_are_not_blamed() -> None:
    with pytest.raises(InputError) as caught:
        check("""
def mean(price: pd.Series) -> pd.Series:
    return price * 0 + price.mean()

def ratio(price: pd.Series, mean: pd.Series) -> pd.Series:
    return price / mean

def ahead(count: pd.Series) -> pd.Series:
    return count.shift(-1)
""")
    assert [p.where for p in caught.value.problems] == [
        "features.py, line 7, mean()", "features.py, line 13, ahead()",
    ]  # fmt: skip


HARMLESS = {
    "arithmetic": "price / count + count ** 0.5",
    "functions of one value": "np.exp(-price / 9) + np.sin(price) + np.tanh(price) + np.log(price)",
    "powers": "np.abs(price) ** 1.7 + np.cbrt(price) + np.arctan2(price, count)",
    "the clock": "at.dt.hour * 60 + at.dt.minute",
    "a local clock": "at.dt.tz_convert('America/New_York').dt.dayofweek",
    "text": "shop + '-' + count.astype('str')",
    "a table of values": "shop.map({'a': 1.5, 'b': 2.5})",
    "a table of text": "shop.map({'a': 'first', 'b': 'second'})",
    "a choice": "pd.Series(np.where(price > 20, 'dear', None), index=price.index, dtype='str')",
    "fixed bins": "pd.cut(price, [0, 10, 20, 1e9])",
    "missing or not": "price.isna()",
    "always missing": "price.where(price > 1e9)",
    "a fixed fill": "price.fillna(20.0)",
}


@pytest.mark.parametrize("expression", HARMLESS.values(), ids=HARMLESS.keys())
def test_a_feature_of_its_own_row_passes(expression: str) -> None:
    check(feature(expression))


def test_statistics_of_the_training_rows_pass_through_fitted_functions() -> None:
    check("""
@fitted
def usual(price: pd.Series, shop: pd.Series) -> dict[str, float]:
    return price.groupby(shop).mean().to_dict()

@fitted
def middle(price: pd.Series) -> float:
    return price.median()

def over_usual(price: pd.Series, shop: pd.Series, usual: dict[str, float]) -> pd.Series:
    return price - shop.map(usual)

def filled(price: pd.Series, middle: float) -> pd.Series:
    return price.fillna(middle)
""")


def test_a_function_that_only_fails_on_a_single_row_is_told_so() -> None:
    with pytest.raises(InputError) as caught:
        check(
            feature("price.rolling(min(len(price), 2)).mean() / (1 if len(price) > 1 else 1 // 0)")
        )
    assert str(caught.value) == (
        "features.py, line 6, leak(): raised ZeroDivisionError: integer division or modulo by "
        "zero, for row 0 alone"
    )


def test_a_function_that_always_fails_is_told_plainly() -> None:
    with pytest.raises(InputError) as caught:
        check(feature("price.nothing"))
    assert str(caught.value) == (
        "features.py, line 6, leak(): raised AttributeError: 'Series' object has no attribute "
        "'nothing'"
    )


@pytest.mark.parametrize("changed", ["price", "usual"])
def test_code_that_changes_its_input_in_place_is_refused(changed: str) -> None:
    with pytest.raises(InputError) as caught:
        check(f"""
@fitted
def usual(price: pd.Series) -> dict[str, float]:
    return {{"all": price.mean()}}

def over(price: pd.Series, usual: dict[str, float]) -> pd.Series:
    {changed}[{"price < 20" if changed == "price" else "'rows'"}] = 0.0
    return price - 10

def other(price: pd.Series) -> pd.Series:
    return price + 1
""")
    assert str(caught.value) == (
        f"features.py, line 11, over(): changes its input {changed!r} in place "
        "(change a copy of it)"
    )


def test_code_that_changes_an_array_of_another_function_in_place_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        check("""
def doubled(price: np.ndarray) -> np.ndarray:
    return price * 2

def over(doubled: np.ndarray) -> np.ndarray:
    doubled[doubled < 20] = 0.0
    return doubled - 10
""")
    assert str(caught.value) == (
        "features.py, line 10, over(): changes its input 'doubled' in place (change a copy of it)"
    )


def test_the_frames_index_and_other_columns_make_no_difference() -> None:
    frame = baskets(200).assign(extra=1).set_index(pd.Index(["same"] * 200))
    check(feature("price * count"), frame)
    with pytest.raises(InputError, match="looks at other rows"):
        check(feature("price.shift(-1)"), frame)


def test_one_row_and_no_row_have_nothing_to_compare() -> None:
    check(feature("price - price.mean()"), baskets(1))
    program = FeatureProgram.load(HEAD + feature("price"), SPEC)
    check_row_local(program, baskets(0), {})
