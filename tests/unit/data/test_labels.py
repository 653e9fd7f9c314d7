from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from perennial.contracts.errors import InputError
from perennial.data.encoding import encode_label, label_classes
from perennial.data.labels import MAX_CLASSES, check_classes
from perennial.spec import ModelSpec, parse_spec


def spec(objective: str, label: str = "", declared: str = "") -> ModelSpec:
    return parse_spec(f"""
name: m
objective: {objective}
source: {{kind: csv, uri: x.csv}}
label: {{column: y{label}}}
split: {{kind: random, validation: 0.2, test: 0.2}}
columns:
  x: {{type: float}}
{f"  y: {{type: {declared}}}" if declared else ""}
""")


def refused(values: object, model: ModelSpec) -> str:
    with pytest.raises(InputError) as caught:
        label_classes(pd.Series(values), model)
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "declared", "label", "classes", "encoded"),
    [
        ([0, 1, 1], "integer", "", ("0", "1"), [0, 1, 1]),
        ([1.0, 0.0], "integer", "", ("0", "1"), [1, 0]),  # nullable integers are floats
        ([1.0, 0.0], "boolean", "", ("false", "true"), [1, 0]),  # and so are nullable booleans
        ([True, False], "boolean", "", ("false", "true"), [1, 0]),
        (["yes", "no"], "category", "", ("no", "yes"), [1, 0]),
        (["yes", "no"], "category", ", positive: 'no'", ("yes", "no"), [0, 1]),
        (["yes", "no"], "", ", positive: yes", ("no", "yes"), [1, 0]),
        ([0, 1], "integer", ", positive: 0", ("1", "0"), [1, 0]),
        ([0, 1], "integer", ", positive: true", ("0", "1"), [0, 1]),
        ([1.0, 0.0], "boolean", ", positive: false", ("true", "false"), [0, 1]),
        ([1.0, 0.0], "boolean", ", positive: 1", ("false", "true"), [1, 0]),
        (["1", "0"], "", ", positive: 0", ("1", "0"), [0, 1]),
        (["True", "False"], "", ", positive: true", ("False", "True"), [1, 0]),
        ([10, 9], "integer", "", ("9", "10"), [1, 0]),
    ],
)
def test_a_binary_label_has_a_negative_and_a_positive_class(
    values: list[object],
    declared: str,
    label: str,
    classes: tuple[str, str],
    encoded: list[int],
) -> None:
    model = spec("binary", label, declared)
    series = pd.Series(values)
    assert label_classes(series, model) == classes
    matrix = encode_label(series, model, classes)
    assert matrix.dtype == np.float32
    assert matrix.tolist() == encoded


def test_classes_of_a_multiclass_label_are_in_order_and_numbered() -> None:
    model = spec("multiclass", declared="integer")
    values = pd.Series([10, 2, 0, 2])
    assert label_classes(values, model) == ("0", "2", "10")
    assert encode_label(values, model, ("0", "2", "10")).tolist() == [2, 1, 0, 1]


def test_a_regressions_label_is_its_value() -> None:
    model = spec("regression")
    values = pd.Series([1, 2.5, -3])
    assert label_classes(values, model) is None
    assert encode_label(values, model, None).tolist() == [1.0, 2.5, -3.0]


def test_no_rows_encode_to_nothing() -> None:
    for objective, classes in (("binary", ("0", "1")), ("regression", None)):
        encoded = encode_label(pd.Series([], dtype=float), spec(objective), classes)
        assert encoded.shape == (0,)
        assert encoded.dtype == np.float32


@pytest.mark.parametrize("objective", ["binary", "multiclass"])
def test_a_label_of_one_class_is_refused(objective: str) -> None:
    assert refused([1, 1, 1], spec(objective)) == (
        "label 'y': one class only: '1' in all 3 labelled rows "
        "(a classifier needs rows of at least two classes)"
    )
    assert "no labelled row" in refused([], spec(objective))


def test_a_binary_label_of_several_classes_is_refused() -> None:
    assert refused(list("fedcbaa"), spec("binary")) == (
        "label 'y': 6 classes in a binary label: 'a', 'b', 'c', 'd', 'e', … "
        "(use objective: multiclass)"
    )


def test_more_classes_than_a_classifier_can_have_are_refused() -> None:
    assert refused(range(MAX_CLASSES + 1), spec("multiclass")) == (
        "label 'y': 1,001 classes in 1,001 labelled rows "
        "(at most 1,000; or use objective: regression)"
    )


def test_a_positive_class_that_does_not_occur_is_refused() -> None:
    assert refused(["yes", "no"], spec("binary", ", positive: maybe")) == (
        "label 'y': label.positive is 'maybe', the classes are 'no' and 'yes' (name one of them)"
    )


def test_missing_labels_never_get_through() -> None:
    values = pd.Series([1.0, np.nan, 0.0])
    expected = (
        "label 'y': 1 of 3 rows have no label (rows without a label can't be trained on or judged)"
    )
    assert refused(values, spec("binary")) == expected
    for objective, classes in (("binary", ("0", "1")), ("regression", None)):
        with pytest.raises(InputError) as caught:
            encode_label(values, spec(objective), classes)
        assert str(caught.value) == expected


def test_a_class_that_training_lacks_is_refused_with_its_rows() -> None:
    with pytest.raises(InputError) as caught:
        encode_label(pd.Series(list("abccd")), spec("multiclass"), ("a", "b"))
    assert str(caught.value) == (
        "label 'y': 3 rows have a class that the training rows lack: 'c', 'd' (known: 'a', 'b')"
    )


def test_a_regression_refuses_text_and_infinity() -> None:
    with pytest.raises(InputError, match="a regression's label is a number, this is text such as"):
        encode_label(pd.Series(["a"]), spec("regression"), None)
    with pytest.raises(InputError) as caught:
        encode_label(pd.Series([1.0, np.inf, 1e300]), spec("regression"), None)
    assert str(caught.value) == "label 'y': 2 values float32 can't hold, first in row 1"


def test_labels_that_the_members_of_an_ensemble_do_not_predict_are_refused() -> None:
    colours = spec("multiclass")
    check_classes(pd.Series(["red", "blue"]), colours, ("blue", "green", "red"))
    with pytest.raises(InputError) as strange:
        check_classes(pd.Series(["red", "blue", "pink"]), colours, ("blue", "red"))
    assert str(strange.value) == (
        "label 'y': classes that no member predicts: 'pink' "
        "(the members know 'blue', 'red'; train them again first)"
    )
    turned = spec("binary", ", positive: no")
    check_classes(pd.Series(["no", "yes"]), spec("binary"), ("no", "yes"))
    with pytest.raises(InputError) as other:
        check_classes(pd.Series(["no", "yes"]), turned, ("no", "yes"))
    assert str(other.value) == (
        "label 'y': its classes are 'yes' and, positive, 'no'; the members' are 'no', 'yes' "
        "(the label and label.positive must be those of the members)"
    )
