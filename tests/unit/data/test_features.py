from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perennial.contracts.errors import FeatureError, InputError, IntegrityError
from perennial.data.features import FeatureProgram
from perennial.spec import ModelSpec, parse_spec

SPEC = """
name: rides
objective: binary
source: {kind: csv, uri: rides.csv, event_time: at, entity: [ride]}
label: {column: late}
columns:
  ride: {type: string}
  km: {type: float}
  riders: {type: integer, nullable: false}
  paid: {type: boolean, nullable: false}
  city: {type: category}
"""
HEAD = """from __future__ import annotations
import numpy as np
import pandas as pd
from perennial.data.features import fitted
"""


def spec(extra: str = "") -> ModelSpec:
    return parse_spec(SPEC + extra)


def rides(rows: int = 40, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    times = pd.date_range("2024-03-01", periods=rows, freq="37min", tz="UTC").as_unit("us")
    return pd.DataFrame(
        {
            "at": times,
            "ride": pd.array([f"r{i}" for i in range(rows)], dtype="str"),
            "km": np.where(random.random(rows) < 0.1, np.nan, random.normal(5, 2, rows)),
            "riders": random.integers(1, 5, rows),
            "paid": random.random(rows) < 0.5,
            "city": pd.array(random.choice(["Ulm", "Bern", "Graz"], rows), dtype="str"),
        }
    )


def program(body: str, extra: str = "") -> FeatureProgram:
    return FeatureProgram.load(HEAD + body, spec(extra))


def refusal(body: str, extra: str = "") -> str:
    with pytest.raises(InputError) as caught:
        program(body, extra)
    return str(caught.value)


def failure(body: str, frame: pd.DataFrame | None = None) -> str:
    loaded = program(body)
    with pytest.raises(InputError) as caught:
        loaded.compute(rides() if frame is None else frame, {})
    return str(caught.value)


GOOD = """
@fitted
def usual_km(km: pd.Series) -> float:
    '''Mean length.'''
    return km.mean()

@fitted
def city_share(city: pd.Series) -> dict[str, float]:
    return city.value_counts(normalize=True).sort_index().to_dict()

def hour(at: pd.Series) -> pd.Series:
    '''Hour of the day.'''
    return at.dt.hour

def km_over(km: pd.Series, usual_km: float) -> pd.Series:
    return _over(km, usual_km)

def _over(x, usual):
    return x - usual

def share(city: pd.Series, city_share: dict[str, float]) -> pd.Series:
    return city.map(city_share)

def when(hour: pd.Series, city: pd.Series) -> pd.Series:
    return city + np.where(hour < 12, " am", " pm")
"""


def test_columns_come_first_then_functions_in_order_of_definition() -> None:
    loaded = program(GOOD)
    assert loaded.features == (
        "km", "riders", "paid", "city", "hour", "km_over", "share", "when",
    )  # fmt: skip
    assert loaded.fitted == ("usual_km", "city_share")
    assert loaded.inputs == ("km", "riders", "paid", "city", "at")
    assert loaded.fit_inputs == ("km", "city")


def test_the_spec_may_choose_features_and_only_what_they_need_is_read() -> None:
    loaded = program(GOOD, "features: [when, riders]")
    assert loaded.features == ("when", "riders")
    assert loaded.inputs == ("riders", "city", "at")
    assert loaded.fitted == ()
    assert loaded.fit_inputs == ()


def test_without_code_the_columns_are_the_features() -> None:
    loaded = FeatureProgram.load("", spec())
    assert loaded.features == ("km", "riders", "paid", "city")
    assert loaded.fit(rides()) == {}
    computed = loaded.compute(rides(), {})
    assert [str(dtype) for dtype in computed.dtypes] == ["float64", "float64", "float64", "str"]


def test_values_are_those_of_the_functions_under_the_frames_own_index() -> None:
    frame = rides().set_index(pd.Index(np.arange(40)[::-1] * 3))
    loaded = program(GOOD)
    state = loaded.fit(frame[:30])
    computed = loaded.compute(frame, state)
    assert computed.index.equals(frame.index)
    assert state["usual_km"] == frame["km"][:30].mean()
    expected = frame["km"] - frame["km"][:30].mean()
    pd.testing.assert_series_equal(computed["km_over"], expected, check_names=False)
    pd.testing.assert_series_equal(
        computed["hour"], frame["at"].dt.hour.astype(float), check_names=False
    )
    pd.testing.assert_frame_equal(
        pd.DataFrame(loaded.columns(frame, state)), computed.reset_index(drop=True)
    )


def test_fitted_values_see_the_frame_given_to_fit_only_and_stay_fixed() -> None:
    loaded = program(GOOD)
    first, second = loaded.fit(rides(seed=1)), loaded.fit(rides(seed=2))
    assert first != second
    frame = rides(seed=3)
    assert not loaded.compute(frame, first).equals(loaded.compute(frame, second))
    assert loaded.compute(frame, first).equals(loaded.compute(frame, first))


def test_state_survives_json_bit_for_bit() -> None:
    loaded = program("""
@fitted
def odd(km: pd.Series) -> dict[str, object]:
    return {"third": 1 / 3, "tiny": np.float64(5e-324), "count": np.int64(2**53 + 1),
            "flag": np.bool_(True), "none": None, "pair": (0.1, [0.2, "ü"]), "one": 1.0}

def x(km: pd.Series, odd: dict[str, object]) -> pd.Series:
    return km * odd["third"]
""")
    state = loaded.fit(rides())
    assert state["odd"] == {
        "third": 1 / 3, "tiny": 5e-324, "count": 2**53 + 1, "flag": True, "none": None,
        "pair": [0.1, [0.2, "ü"]], "one": 1.0,
    }  # fmt: skip
    again = json.loads(json.dumps(state, allow_nan=False))
    assert again == state
    assert json.dumps(again) == json.dumps(state)
    assert math.copysign(1, again["odd"]["third"]) == 1
    assert loaded.compute(rides(), again).equals(loaded.compute(rides(), state))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("km.groupby(riders).mean()", "its fitted value is a Series, which JSON can't hold "
         "(end with .to_dict())"),
        ("km.groupby(riders).mean().to_dict()", "has the key 1; JSON has text keys only "
         "(make keys text: .rename(index=str).to_dict())"),
        ("{'a': [1.0, float('nan')]}", """its fitted value is nan at ["a"][1] (leave missing"""),
        ("{1, 2}", "its fitted value is a set, which JSON can't hold (end with sorted(…))"),
        ("km.to_numpy()", "is a ndarray, which JSON can't hold (end with .tolist())"),
        ("lambda: 1", "is a function, which JSON can't hold (return a number, text, list, or"),
        ("1 / 0", "features.py, line 7, s(): raised ZeroDivisionError: division by zero"),
    ],
)  # fmt: skip
def test_a_fitted_value_that_json_cannot_hold_is_refused(value: str, message: str) -> None:
    loaded = program(f"""
@fitted
def s(km: pd.Series, riders: pd.Series) -> object: return {value}
def x(km: pd.Series, s: object) -> pd.Series:
    return km
""")
    with pytest.raises(InputError) as caught:
        loaded.fit(rides())
    assert str(caught.value).startswith("features.py, line ")
    assert message in str(caught.value)


def test_a_state_of_other_code_is_refused() -> None:
    with pytest.raises(IntegrityError, match="no fitted value for city_share"):
        program(GOOD).compute(rides(), {"usual_km": 1.0})


def test_a_missing_column_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError) as caught:
        FeatureProgram.load("", spec()).compute(rides().rename(columns={"km": "kms"}), {})
    assert str(caught.value) == "features: no column 'km'; did you mean 'kms'?"


# Code that can't work is refused when it is loaded.


def test_the_label_can_be_no_parameter_of_a_feature_or_a_fitted_value() -> None:
    message = refusal("""
def leak(late: pd.Series) -> pd.Series:
    return late

@fitted
def rate(late: pd.Series, city: pd.Series) -> dict[str, float]:
    return late.groupby(city).mean().to_dict()
""")
    assert message.split("\n") == [
        "features.py, line 6, leak(): the parameter 'late' is the label, which no feature may "
        "read (remove it: nobody knows it at prediction time)",
        "features.py, line 10, rate(): the parameter 'late' is the label, which no feature may "
        "read (remove it: nobody knows it at prediction time)",
    ]


def test_the_label_cannot_come_in_by_a_decorator_either() -> None:
    message = refusal("""
from hamilton.function_modifiers import parameterize, source

@parameterize(leak={"column": source("late")})
def echo(column: pd.Series) -> pd.Series:
    return column
""")
    assert "the parameter 'late' is the label, which no feature may read" in message


def test_functions_that_expand_or_collect_lists_are_refused() -> None:
    message = refusal("""
from hamilton.htypes import Collect, Parallelizable

def part(km: pd.Series) -> Parallelizable[float]:
    yield from km

def total(part: Collect[float]) -> pd.Series:
    return pd.Series(list(part))
""")
    assert message.split("\n") == [
        "features.py, line 8, part(): expands or collects a list, which no feature can "
        "(use pandas)",
        "features.py, line 11, total(): expands or collects a list, which no feature can "
        "(use pandas)",
    ]


def test_values_that_several_functions_read_are_there_until_the_last_of_them() -> None:
    loaded = program(
        """
def a(km: pd.Series) -> pd.Series:
    return km + 1

def b(a: pd.Series, km: pd.Series) -> pd.Series:
    return a * km

def c(b: pd.Series, a: pd.Series, km: pd.Series) -> pd.Series:
    return a - b + km
""",
        "features: [c]",
    )
    frame = rides()
    a = frame["km"] + 1
    expected = a - a * frame["km"] + frame["km"]
    computed = loaded.compute(frame, {})
    assert list(computed) == ["c"]
    pd.testing.assert_series_equal(computed["c"], expected, check_names=False)


def test_all_mistakes_are_told_at_once_each_with_its_line() -> None:
    message = refusal("""
def a(kn: pd.Series) -> pd.Series:
    return kn

def b(km: float) -> pd.Series:
    return km

def c(citi: pd.Series = None) -> pd.Series:
    return citi
""")
    fix = "(a parameter names a column of model.yaml or a public function)"
    assert message.split("\n") == [
        f"features.py, line 6, a(): no column or function 'kn'; did you mean 'km'? {fix}",
        "features.py, line 9, b(): the column 'km' is a Series or an array, the parameter's type "
        "is float (write km: pd.Series)",
        f"features.py, line 12, c(): no column or function 'citi'; did you mean 'city'? {fix}",
    ]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def a(km: pd.Series) -> pd.Series\n    return km",
         "features.py, line 5: not valid Python: expected ':'"),
        ("import there_is_no_such_module",
         "features.py, line 5: raised ModuleNotFoundError: No module named "
         "'there_is_no_such_module'"),
        ("raise SystemExit('no')", "features.py, line 5: raised SystemExit: no"),
        ("def a(km: pd.Series) -> pd.Series: return km\n"
         "def a(km: pd.Series) -> pd.Series: return -km",
         "features.py, line 6: a() is defined twice; the first is at line 5 (rename one of them)"),
        ("def city(km: pd.Series) -> pd.Series: return km",
         "features.py, line 5, city(): 'city' is a column's name (rename the function)"),
        ("def late(km: pd.Series) -> pd.Series: return km",
         "features.py, line 5, late(): 'late' is a column's name (rename the function)"),
        ("def a(km) -> pd.Series: return km",
         "features.py, line 5, a(): the parameter 'km' has no type (write km: pd.Series)"),
        ("def a(km: pd.Series): return km",
         "features.py, line 5, a(): no return type "
         "(write -> pd.Series; for @fitted float, str, list or dict)"),
        ("def a(km: pd.Sereis) -> pd.Series: return km",
         "features.py, line 5, a(): its types can't be read: AttributeError: module 'pandas' has "
         "no attribute 'Sereis'"),
        ("a = lambda km: km", "features.py, line 5: a lambda has no name (write it with def)"),
        ("def a() -> pd.Series: return pd.Series()",
         "features.py, line 5, a(): reads no column "
         "(write a constant at the top of the file instead)"),
        ("def a(b: pd.Series) -> pd.Series: return b\n"
         "def b(a: pd.Series) -> pd.Series: return a",
         "features.py, line 5, a(): functions read one another in a circle: a → b → a"),
        ("@fitted\ndef m(km: pd.Series) -> float: return 1.0\n"
         "def a(km: pd.Series, m: dict) -> pd.Series: return km",
         "features.py: a is expecting m:<class 'dict'>, but found m:<class 'float'>."),
    ],
)  # fmt: skip
def test_code_that_cannot_work_is_refused_with_its_line(body: str, message: str) -> None:
    assert refusal(body) == message


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ("[hours]", "model.yaml, features: no column or function 'hours'; did you mean 'hour'?"),
        ("[usual_km]", "model.yaml, features: 'usual_km' is fitted state; name a function that "
         "uses it"),
        ("[_over]", "model.yaml, features: no column or function '_over'; did you mean "
         "'km_over'?"),
    ],
)  # fmt: skip
def test_a_feature_that_does_not_exist_is_refused(features: str, message: str) -> None:
    assert refusal(GOOD, f"features: {features}") == message


def test_a_model_without_any_feature_is_refused() -> None:
    text = SPEC[: SPEC.index("  km:")] + "  note: {type: string}\n"
    with pytest.raises(InputError, match=r"no feature: no column is one, and features\.py has no"):
        FeatureProgram.load("", parse_spec(text))


# Code that fails when it runs is told by function, line and first detail.


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("1 / 0", "raised ZeroDivisionError: division by zero"),
        ("km.dropna()", "returns 35 values for 40 rows "
         "(return one value for each row, in the same order)"),
        ("km.sort_values()", "returns its values under another index than its input's "
         "(return one value for each row, in the same order)"),
        ("km.to_numpy()[:3]", "returns 3 values for 40 rows "
         "(return one value for each row, in the same order)"),
        ("km.to_numpy().reshape(-1, 2)", "returns 20 × 2 values for 40 rows "
         "(return one value for each row, in the same order)"),
        ("3.0", "returns a float (a feature is a pandas Series or a NumPy array)"),
        ("at", "returns values of type datetime64[us, UTC] "
         "(return a number, such as .dt.hour or .dt.total_seconds())"),
        ("at - at.min()", "returns values of type timedelta64[us] "
         "(return a number, such as .dt.hour or .dt.total_seconds())"),
        ("km + 1j", "returns values of type complex128 (return numbers or text)"),
        ("km.map(lambda x: [x]).astype(object)", "returns mixed objects (return numbers or text)"),
    ],
)  # fmt: skip
def test_a_result_that_is_no_feature_is_refused(expression: str, message: str) -> None:
    body = f"def a(km: pd.Series, at: pd.Series) -> object: return {expression}"
    assert failure(body) == f"features.py, line 5, a(): {message}"


def test_the_line_that_raised_is_told_even_inside_a_helper() -> None:
    message = failure("""
def _helper(x):
    return x["no such key"]

def a(km: pd.Series) -> pd.Series:
    return _helper(km)
""")
    assert message == "features.py, line 7, a(): raised KeyError: 'no such key'"


PANIC = 'type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})("no unit")'


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        ("SystemExit(3)", "SystemExit: 3"),
        (PANIC, "PanicException: no unit"),  # of a library in Rust
    ],
)
def test_code_that_ends_the_process_or_panics_is_told_as_any_other(raised: str, told: str) -> None:
    message = failure(f"def a(km: pd.Series) -> pd.Series: raise {raised}")
    assert message == f"features.py, line 5, a(): raised {told}"
    fitting = program(f"""
@fitted
def s(km: pd.Series) -> float: raise {raised}
def a(km: pd.Series, s: float) -> pd.Series: return km - s
""")
    with pytest.raises(FeatureError, match=f"line 7, s.*raised {told}"):
        fitting.fit(rides())
    assert refusal(f"raise {raised}") == f"features.py, line 5: raised {told}"


@pytest.mark.parametrize("raised", ["KeyboardInterrupt", "type('Timeout', (BaseException,), {})"])
def test_an_interrupt_is_no_mistake_of_the_code(raised: str) -> None:
    loaded = program(f"def a(km: pd.Series) -> pd.Series: raise {raised}")
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        loaded.compute(rides(), {})
    assert not isinstance(caught.value, InputError)
    for _ in range(2):  # a file that was not read to its end is not taken for read
        with pytest.raises(BaseException) as caught:  # noqa: PT011
            program(f"def a(km: pd.Series) -> pd.Series: return km\nraise {raised}")
        assert not isinstance(caught.value, InputError)


def test_the_first_cause_is_told_once_and_others_beside_it(
    capfd: pytest.CaptureFixture[str],
) -> None:
    message = failure("""
def a(km: pd.Series) -> pd.Series:
    raise ValueError("first\\nsecond line")

def b(a: pd.Series) -> pd.Series:
    return a + 1

def c(b: pd.Series, riders: pd.Series) -> pd.Series:
    return b + riders

def d(city: pd.Series) -> pd.Series:
    return city.cat.codes
""")
    first, second = message.split("\n")
    assert first == "features.py, line 7, a(): raised ValueError: first"
    assert second.startswith("features.py, line 16, d(): raised AttributeError: ")
    assert capfd.readouterr() == ("", "")


# Columns as NumPy arrays.


def test_a_column_comes_as_its_parameter_is_declared() -> None:
    loaded = program(
        """
import numpy.typing as npt

def kind(km: np.ndarray, riders: npt.NDArray[np.int64], paid: np.ndarray) -> np.ndarray:
    return np.full(len(km), f"{km.dtype} {riders.dtype} {paid.dtype}", dtype=object)

def names(city: np.ndarray, ride: np.ndarray) -> np.ndarray:
    return np.array([f"{type(c).__name__} {r}" for c, r in zip(city, ride)], dtype=object)

def month(at: np.ndarray) -> np.ndarray:
    return at.astype("datetime64[M]").astype(np.int64) % 12 + 1

@fitted
def most(riders: np.ndarray) -> int:
    return int(riders.max())

def share(riders: np.ndarray, most: int) -> np.ndarray:
    return riders / most

def again(share: np.ndarray, kind: np.ndarray) -> np.ndarray:
    return share * 2
""",
        "features: [kind, names, month, share, again]",
    )
    frame = rides()
    frame.loc[0, "city"] = None
    state = loaded.fit(frame)
    assert state == {"most": frame["riders"].max()}
    computed = loaded.compute(frame, state)
    assert set(computed["kind"]) == {"float64 int64 bool"}
    assert computed["names"].tolist()[:2] == ["float r0", "str r1"]
    assert set(computed["month"]) == {3.0}
    assert computed["share"].tolist() == (frame["riders"] / state["most"]).tolist()
    assert computed["again"].tolist() == (computed["share"] * 2).tolist()


def test_a_column_in_two_forms_is_refused() -> None:
    message = refusal("""
def a(km: np.ndarray) -> np.ndarray:
    return km

def b(km: pd.Series) -> pd.Series:
    return km
""")
    assert message.startswith("features.py: ")
    assert "requesting km, but have incompatible types" in message


def test_a_function_can_not_change_the_rows_it_is_given() -> None:
    message = failure("""
def a(km: np.ndarray) -> np.ndarray:
    km[0] = 0
    return km
""")
    said = "raised ValueError: assignment destination is read-only"
    assert message == f"features.py, line 7, a(): {said}"


def test_what_a_function_takes_as_an_array_has_a_value_a_row() -> None:
    message = failure("""
def a(km: np.ndarray) -> pd.Series:
    return pd.Series(km[1:])
""")
    fix = "(return one value for each row, in the same order)"
    assert message == f"features.py, line 6, a(): returns 39 values for 40 rows {fix}"


# What functions may return.


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("riders > 2", [1.0, 0.0]),
        ("riders.astype('int8')", [3.0, 1.0]),
        ("riders.astype('float32') / 3", [float(np.float32(1.0)), float(np.float32(1) / 3)]),
        ("riders.astype('Int64').where(riders > 2)", [3.0, math.nan]),
        ("riders.astype(object).where(riders > 2, None)", [3.0, math.nan]),
        ("riders.astype(object).where(riders > 5, None)", [math.nan, math.nan]),
        ("city", ["Ulm", math.nan]),
        ("city.astype('category')", ["Ulm", math.nan]),
        ("city.astype('string')", ["Ulm", math.nan]),
        ("city.astype(object)", ["Ulm", math.nan]),
        ("pd.cut(riders, [0, 2, 9])", ["(2, 9]", "(0, 2]"]),
        ("riders.to_numpy() > 2", [1.0, 0.0]),
        ("riders.to_numpy('int8')", [3.0, 1.0]),
        ("city.to_numpy(object)", ["Ulm", math.nan]),
        ("np.where(riders > 2, 'many', 'few')", ["many", "few"]),
    ],
)
def test_numbers_become_floats_and_text_becomes_a_category(
    expression: str, expected: list[Any]
) -> None:
    frame = pd.DataFrame({"riders": [3, 1], "city": pd.array(["Ulm", None], dtype="str")})
    body = f"def a(riders: pd.Series, city: pd.Series) -> object: return {expression}"
    computed = program(body, "features: [a]").compute(frame, {})["a"]
    assert str(computed.dtype) == ("str" if isinstance(expected[0], str) else "float64")
    pd.testing.assert_series_equal(
        computed, pd.Series(expected, dtype=computed.dtype), check_names=False
    )


def test_functions_that_return_a_frame_feed_others_and_are_no_features() -> None:
    loaded = program("""
from hamilton.function_modifiers import extract_columns

@extract_columns("x", "y")
def plane(km: pd.Series, riders: pd.Series) -> pd.DataFrame:
    return pd.DataFrame({"x": km + riders, "y": km - riders})

def ratio(plane: pd.DataFrame) -> pd.Series:
    return plane["x"] / plane["y"]
""")
    assert set(loaded.features) == {"km", "riders", "paid", "city", "x", "y", "ratio"}
    computed = loaded.compute(rides(), {})
    pd.testing.assert_series_equal(
        computed["ratio"], computed["x"] / computed["y"], check_names=False
    )


def test_a_module_without_the_future_import_works_too() -> None:
    source = "import pandas as pd\ndef double(km: pd.Series) -> pd.Series:\n    return km * 2\n"
    loaded = FeatureProgram.load(source, spec("features: [double]"))
    frame = rides()
    assert loaded.compute(frame, {})["double"].equals((frame["km"] * 2).rename("double"))


# Versions, pictures, and what loading does not do.


def test_two_versions_of_the_code_live_side_by_side() -> None:
    before = set(sys.modules)
    path = list(sys.path)
    body = "SCALE = {}\ndef scaled(km: pd.Series) -> pd.Series:\n    return km * SCALE\n"
    one = program(body.format(1), "features: [scaled]")
    two = program(body.format(2), "features: [scaled]")
    again = program(body.format(1), "features: [scaled]")
    frame = rides()
    for loaded, factor in ((one, 1), (two, 2), (again, 1)):
        values = loaded.compute(frame, {})["scaled"]
        assert values.equals((frame["km"] * factor).rename("scaled"))
    added = {name for name in set(sys.modules) - before if "feature" in name}
    assert len(added) == 2
    assert all(name.startswith("perennial_features_") for name in added)
    assert sys.path == path


def test_code_that_fails_to_run_leaves_no_module_behind() -> None:
    before = {name for name in sys.modules if name.startswith("perennial_features_")}
    refusal("raise RuntimeError('no')")
    assert {name for name in sys.modules if name.startswith("perennial_features_")} == before


def test_the_graph_holds_columns_fitted_values_and_features() -> None:
    graph = program(GOOD).graph()
    assert graph == program(GOOD).graph()
    nodes = {node.name: node for node in graph.nodes}
    assert (nodes["km"].kind, nodes["km"].feature, nodes["km"].reads) == ("column", True, ())
    assert (nodes["usual_km"].kind, nodes["usual_km"].feature) == ("fitted", False)
    assert nodes["usual_km"].reads == ("km",)
    assert "usual_km" in nodes["km_over"].reads
    assert (nodes["hour"].kind, nodes["hour"].summary) == ("feature", "Hour of the day.")
    assert "late" not in nodes
    assert not any(name.startswith("_") for name in nodes)


def test_only_what_the_chosen_features_need_is_in_the_graph() -> None:
    nodes = {node.name: node for node in program(GOOD, "features: [when]").graph().nodes}
    assert (nodes["hour"].kind, nodes["hour"].feature) == ("step", False)
    assert "usual_km" not in nodes


def test_loading_imports_no_plotting_or_training_library_and_opens_no_connection() -> None:
    code = f"""
import socket, sys
def refuse(*a, **k): raise AssertionError("a connection was opened")
socket.socket.connect = socket.getaddrinfo = refuse
from perennial.spec import parse_spec
from perennial.data.features import FeatureProgram
assert "hamilton" not in sys.modules
import pandas as pd
source = {HEAD + GOOD!r}
program = FeatureProgram.load(source, parse_spec({SPEC!r}))
frame = pd.DataFrame({{"km": [1.0], "city": pd.array(["Ulm"], dtype="str")}})
state = program.fit(frame)
heavy = {{"sklearn", "matplotlib", "xgboost", "plotly", "polars", "optuna", "wandb"}}
print(sorted(heavy & set(sys.modules)), state["usual_km"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == "[] 1.0\n"
