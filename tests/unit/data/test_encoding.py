from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xgboost as xgb

from perennial.contracts.errors import InputError
from perennial.contracts.features import Feature, FeatureSchema, InputColumn
from perennial.data.encoding import MAX_LEVELS, SchemaBuilder, encode
from perennial.data.features import FeatureProgram
from perennial.learning.matrices import feature_types
from perennial.spec import parse_spec

SPEC = parse_spec("""
name: rides
objective: binary
source: {kind: csv, uri: rides.csv, event_time: at, entity: [ride]}
label: {column: late}
columns:
  ride: {type: string}
  km: {type: float}
  city: {type: category}
  riders: {type: integer, nullable: false, feature: false}
""")
CODE = """
import pandas as pd
def hour(at: pd.Series) -> pd.Series:
    return at.dt.hour
def group(riders: pd.Series) -> pd.Series:
    return riders.map({1: "alone", 2: "pair"}).astype("str")
"""
PROGRAM = FeatureProgram.load(CODE, SPEC)


def text(*values: str | None) -> pd.Series:
    return pd.Series(pd.array(values, dtype="str"))


def features(**columns: object) -> pd.DataFrame:
    known = {"km": [1.0], "city": text("Ulm"), "hour": [3.0], "group": text("pair")}
    return pd.DataFrame({**known, **columns})


def schema(*levels: str) -> FeatureSchema:
    return FeatureSchema(
        inputs=(),
        features=(Feature(name="km"), Feature(name="city", levels=levels)),
        classes=None,
    )


def two(km: object, city: pd.Series) -> pd.DataFrame:
    return pd.DataFrame({"km": km, "city": city})


# The schema.


def test_levels_are_gathered_over_batches_and_sorted() -> None:
    builder = SchemaBuilder(PROGRAM, SPEC)
    builder.add(features(city=text("Ulm"), group=text(None)))
    builder.add(features(city=text("Bern"), km=[np.nan]))
    builder.add(features(city=text(None), group=text("alone")))
    made = builder.schema(("false", "true"))
    assert made.features == (
        Feature(name="km"),
        Feature(name="city", levels=("Bern", "Ulm")),
        Feature(name="hour"),
        Feature(name="group", levels=("alone", "pair")),
    )
    assert made.classes == ("false", "true")
    assert made.inputs == (
        InputColumn(name="km", type="float", nullable=True),
        InputColumn(name="city", type="category", nullable=True),
        InputColumn(name="riders", type="integer", nullable=False),
        InputColumn(name="at", type="datetime", nullable=False),
    )
    assert builder.rows == 3
    assert feature_types(made) == ["q", "c", "q", "c"]


def test_a_feature_without_any_value_in_training_is_refused() -> None:
    builder = SchemaBuilder(PROGRAM, SPEC)
    builder.add(features(km=[np.nan], city=text(None), group=[np.nan]))
    with pytest.raises(InputError) as caught:
        builder.schema(None)
    fix = "(leave it out (feature: false, or name the others under features))"
    assert str(caught.value).split("\n") == [
        f"column 'km': no value in any of the 1 training rows {fix}",
        f"column 'city': no value in any of the 1 training rows {fix}",
        f"features.py, line 5, group(): no value in any of the 1 training rows {fix}",
    ]


def test_a_feature_that_is_text_here_and_a_number_there_is_refused() -> None:
    builder = SchemaBuilder(PROGRAM, SPEC)
    builder.add(features())
    with pytest.raises(InputError) as caught:
        builder.add(features(group=[2.0]))
    assert str(caught.value) == (
        "features.py, line 5, group(): 'group' is text for some rows and a number for others "
        "(return one of them)"
    )


def test_too_many_levels_are_refused_while_they_are_gathered() -> None:
    builder = SchemaBuilder(PROGRAM, SPEC)
    names = [f"c{i}" for i in range(MAX_LEVELS + 1)]
    builder.add(features().reindex(range(MAX_LEVELS), method="ffill").assign(city=names[:-1]))
    with pytest.raises(InputError) as caught:
        builder.add(features(city=text(names[-1])))
    assert str(caught.value).startswith("column 'city': 'city' has more than 10,000 levels (group")


# The matrix.


@pytest.mark.parametrize("rows", [1, 40])  # both ways to look up a level
def test_a_category_is_its_position_and_unseen_ones_are_missing_and_counted(rows: int) -> None:
    cities = text(*["Ulm", "Aarau", None, "Bern", "ulm", ""] * rows)
    matrix, unseen = encode(two(1.5, cities), schema("Bern", "Graz", "Ulm"))
    expected = np.array([2, np.nan, np.nan, 0, np.nan, np.nan] * rows, dtype=np.float32)
    np.testing.assert_array_equal(matrix[:, 1], expected)
    assert (matrix[:, 0] == 1.5).all()
    assert matrix.dtype == np.float32
    assert matrix.flags.c_contiguous
    assert unseen == {"city": 3 * rows}


def test_nothing_unseen_gives_an_empty_count() -> None:
    assert encode(two([np.nan], text(None)), schema("Ulm"))[1] == {}


def test_a_mapping_of_series_encodes_like_a_frame() -> None:
    frame = two([1.0, np.nan, 3.0], text("Ulm", "x", None))
    columns = {name: frame[name] for name in frame}
    one, other = encode(frame, schema("Ulm")), encode(columns, schema("Ulm"))
    np.testing.assert_array_equal(one[0], other[0])
    assert one[1] == other[1]


def test_levels_are_found_beyond_ascii_and_in_any_length() -> None:
    levels = tuple(sorted(["Zürich", "zürich", "Z", "Ürzig", "日本", "a b", "", "𝔘lm", "ulm"]))
    for cities in (text(*levels), text(*levels * 4)):
        matrix, unseen = encode(two(0.0, cities), schema(*levels))
        assert unseen == {}
        assert matrix[: len(levels), 1].tolist() == list(range(len(levels)))


def test_no_rows_give_an_empty_matrix() -> None:
    matrix, unseen = encode(two([], text()).astype({"km": float}), schema("Ulm"))
    assert matrix.shape == (0, 2)
    assert unseen == {}


def test_a_whole_column_missing_may_come_as_numbers_or_text() -> None:
    frame = pd.DataFrame({"km": text(None, None), "city": [np.nan, np.nan]})
    assert np.isnan(encode(frame, schema("Ulm"))[0]).all()


def test_text_for_a_number_and_a_number_for_text_are_refused_together() -> None:
    with pytest.raises(InputError) as caught:
        encode(pd.DataFrame({"km": text("1"), "city": [2.0]}), schema("Ulm"))
    assert str(caught.value).split("\n") == [
        "features: 'km' is text, in training it was a number",
        "features: 'city' is a number, in training it was text",
    ]


def test_an_absent_feature_is_refused() -> None:
    with pytest.raises(InputError, match=r"^features: no feature 'km'$"):
        encode(pd.DataFrame({"city": text("Ulm")}), schema("Ulm"))


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e39])
def test_what_float32_cannot_hold_is_refused_with_its_row(value: float) -> None:
    frame = two([1.0, value, value], text("Ulm", "Ulm", "Ulm")).set_index(pd.Index([7, 8, 9]))
    with pytest.raises(InputError) as caught:
        encode(frame, schema("Ulm"))
    assert str(caught.value) == (
        f"features: 'km' is {value:g} in row 2 (2 of 3 rows), which float32 can't hold "
        "(give NaN for a value that can't be computed)"
    )


def test_an_infinite_feature_is_told_by_the_place_where_it_is_made() -> None:
    with pytest.raises(InputError, match=r"^features.py, line 7, km\(\): 'km' is inf in row 1 "):
        encode(
            two(np.inf, text("Ulm")), schema("Ulm"), lambda name: f"features.py, line 7, {name}()"
        )


def test_xgboost_reads_the_matrix_with_its_types_and_takes_unseen_as_missing() -> None:
    random = np.random.default_rng(0)
    names = random.choice(["a", "b", "c"], 300)
    target = (names == "b").astype(float)
    levels = ("a", "b", "c")
    x, _ = encode(two(random.random(300), text(*names)), schema(*levels))
    types = feature_types(schema(*levels))
    train = xgb.QuantileDMatrix(x, target, feature_types=types, enable_categorical=True)
    booster = xgb.train({"objective": "binary:logistic", "max_cat_to_onehot": 1}, train, 10)
    strange, unseen = encode(two(0.5, text("b", "new", None)), schema(*levels))
    seen, new, missing = booster.inplace_predict(strange)
    assert unseen == {"city": 1}
    assert seen > 0.9
    assert new == missing
