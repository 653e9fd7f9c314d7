"""One key at a time: what each may hold, and what is said when it holds something else."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

DURATION = "is not a duration; write a number and a unit: 90s, 10m, 6h, 2d, 1w"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("format", 0, "must be at least 1, not 0"),
        ("format", "one", "expected a whole number, not 'one'"),
        ("name", 7, "expected text, not 7 (quote it)"),
        ("description", None, "expected text, not nothing"),
        (
            "objective",
            "binry",
            "'binry' is not one of binary, multiclass, regression; did you mean 'binary'?",
        ),
        ("source", "rows.csv", "expected keys and values, not 'rows.csv'"),
        ("source.kind", "xml", "'xml' is not one of csv, parquet, delta, sql"),
        ("source.uri", "", "must not be empty"),
        ("source.delimiter", ";;", "must be one character, not ';;'"),
        ("source.delimiter", "", "must not be empty"),
        ("source.event_time", ["at"], "expected text, not ['at']"),
        ("source.entity", "id", "expected a list such as [a, b], not 'id'"),
        ("source.lateness", "-3d", f"'-3d' {DURATION}"),
        ("label", ["late"], "expected keys and values, not ['late']"),
        ("label.column", True, "expected text, not True (quote it)"),
        ("label.delay", 2, f"2 {DURATION}"),
        ("label.delay", "2 days", f"'2 days' {DURATION}"),
        ("label.delay", "2D", f"'2D' {DURATION}"),
        ("label.delay", "9999999w", "'9999999w' is too long a duration; a century is the most"),
        ("label.positive", 0.5, "expected text, a whole number, true or false, not 0.5"),
        ("columns", {}, "must not be empty"),
        ("columns", ["amount"], "expected keys and values, not ['amount']"),
        ("columns.amount", "float", "expected keys and values, not 'float'"),
        (
            "columns.amount.type",
            "number",
            "'number' is not one of float, integer, boolean, category, string, datetime",
        ),
        ("columns.amount.min", "5", "expected a number, not '5'"),
        ("columns.amount.max", True, "expected a number, not True"),
        ("columns.amount.max", float("inf"), "expected a finite number, not inf"),
        ("columns.amount.nullable", "no", "expected true or false, not 'no'"),
        ("columns.amount.feature", 1, "expected true or false, not 1"),
        ("columns.country.allowed", [], "must not be empty"),
        ("columns.country.allowed", "DE", "expected a list such as [a, b], not 'DE'"),
        ("features", [], "must not be empty"),
        ("quarantine.max_share", 2, "must be at most 1, not 2"),
        ("quarantine.max_share", "2%", "expected a number, not '2%'"),
        ("split.kind", "temporal", "'temporal' is not one of time, group, stratified, random"),
        ("split.validation", "2", f"'2' {DURATION}"),
        ("split.test", 0, "a share of rows lies between 0 and 1, not 0"),
        ("split.test", 1.0, "a share of rows lies between 0 and 1, not 1"),
        ("split.test", "0d", "this part is empty; the gates and early stopping need rows"),
        ("split.gap", 1, f"1 {DURATION}"),
        ("split.window", "0d", "this duration must be above 0"),
        ("split.seed", -1, "must be at least 0, not -1"),
        ("split.seed", 2**31, "must be below 2147483648, not 2147483648"),
        ("training.device", "gpu", "'gpu' is not a device; write cpu, cuda, or cuda:0"),
        ("training.rounds", 4.5, "expected a whole number, not 4.5"),
        ("training.rounds", 0, "must be at least 1, not 0"),
        ("training.rounds", 100_001, "must be at most 100000, not 100001"),
        ("training.rounds", "400", "expected a whole number, not '400'"),
        ("training.early_stopping_rounds", True, "expected a whole number, not True"),
        ("training.refit", "yes", "expected true or false, not 'yes'"),
        ("training.params", ["a"], "expected keys and values, not ['a']"),
        ("training.params.gamma", False, "expected a number, text or features, not False"),
        ("tuning.trials", 0, "must be at least 1, not 0"),
        ("tuning.timeout", "0s", "this duration must be above 0"),
        ("tuning.metric", 1, "expected text, not 1 (quote it)"),
        ("tuning.batch", 257, "must be at most 256, not 257"),
        ("tuning.warm_start", -1, "must be at least 0, not -1"),
        ("tuning.prune", None, "expected true or false, not nothing"),
        (
            "tuning.space.gamma",
            3,
            "3 is not a range; write [low, high] or {low: …, high: …, log: …}",
        ),
        (
            "tuning.space.gamma",
            [1, 2, 3],
            "[1, 2, 3] is not a range; write [low, high] or {low: …, high: …, log: …}",
        ),
        (
            "gates",
            {"metric": "roc_auc"},
            "expected a list such as [a, b], not {'metric': 'roc_auc'}",
        ),
        ("drift.window", "0h", "this duration must be above 0"),
        ("drift.schedule", 5, "expected text, not 5 (quote it)"),
        ("drift.max_drifted_share", -0.1, "must be at least 0, not -0.1"),
        ("drift.false_alarm_rate", 0, "must be above 0, not 0"),
        ("drift.false_alarm_rate", 1, "must be below 1, not 1"),
        ("retrain.schedule", 6, "expected text, not 6 (quote it)"),
        ("retrain.on", "drift", "expected a list such as [a, b], not 'drift'"),
        ("retrain.cooldown", -1, f"-1 {DURATION}"),
        (
            "rollout.strategy",
            "canari",
            "'canari' is not one of shadow, canary, blue_green, ab_test; did you mean 'canary'?",
        ),
        (
            "rollout.strategy",
            ["shadow", 5],
            "5 is not one of shadow, canary, blue_green, ab_test",
        ),
        ("rollout.strategy", [], "must not be empty"),
        ("rollout.timeout", "0s", "this duration must be above 0"),
        ("rollout.min_requests", 0, "must be at least 1, not 0"),
        ("rollout.approval", "yes", "expected true, false or a list of percents, not 'yes'"),
        ("rollout.approval", [], "expected true, false or a list of percents, not []"),
        ("rollout.approval", [True], "expected a whole number of percent, not True"),
        ("rollout.alpha", 0, "must be above 0, not 0"),
        ("rollout.alpha", 1, "must be below 1, not 1"),
        ("rollout.limits.failed", -1, "must be at least 0, not -1"),
        ("rollout.limits.error", None, "expected a whole number, not None"),
        ("rollout.check_every", "0s", "this duration must be above 0"),
        ("rollout.bake", "ten", f"'ten' {DURATION}"),
        ("rollout.guards", 1, "expected keys and values, not 1"),
        ("rollout.guards.error_rate", 1.5, "must be at most 1, not 1.5"),
        ("rollout.guards.p99_ms", 0, "must be above 0, not 0"),
        ("rollout.guards.prediction_shift", 2, "must be at most 1, not 2"),
        ("rollout.guards.metric", "logloss", "expected keys and values, not 'logloss'"),
        ("rollout.guards.business", {}, "expected a list such as [a, b], not {}"),
        ("log.enabled", "no", "expected true or false, not 'no'"),
        ("log.hash", "id", "expected a list such as [a, b], not 'id'"),
        ("log.keep", "12h", "rows expire by whole days; keep them for 1d at least"),
        ("log.compact_files", 1, "must be at least 2, not 1"),
    ],
)
def test_a_wrong_value_is_told_with_its_path_and_what_would_be_right(
    mistakes: Any, path: str, value: object, said: str
) -> None:
    guarded = {"rollout.guards": {"error_rate": 0.1}} if path.startswith("rollout.") else {}
    assert mistakes({**guarded, path: value}) == [f"{path}: {said}"]


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ("roc_auc > 0.6", "gates.0: expected keys and values, not 'roc_auc > 0.6'"),
        ({"metric": "roc_auc", "min": "0.6"}, "gates.0.min: expected a number, not '0.6'"),
        (
            {"metric": "roc_auc", "min": 0.6, "confidence": 95},
            "gates.0.confidence: must be below 1, not 95",
        ),
        (
            {"metric": "roc_auc", "min": 0.6, "min_rows": 0},
            "gates.0.min_rows: must be at least 1, not 0",
        ),
        ({"metric": "roc_auc"}, "gates.0: give either min or max"),
        ({"metric": "roc_auc", "min": 0.6, "max": 0.9}, "gates.0: give either min or max"),
        ({"min": 0.6}, "gates.0.metric: this key is required"),
        (
            {"beats": "challenger", "metric": "logloss"},
            "gates.0.beats: 'challenger' is not one of champion",
        ),
        (
            {"beats": "champion", "metric": "logloss", "first_version": "pass"},
            "gates.0.first_version: 'pass' is not one of passed, inconclusive; "
            "did you mean 'passed'?",
        ),
        (
            {"beats": "champion", "metric": "logloss", "confidence": 0.5},
            "gates.0.confidence: must be above 0.5, not 0.5",
        ),
        (
            {"slices": [], "metric": "logloss", "max_regression": 0.1},
            "gates.0.slices: must not be empty",
        ),
        (
            {"slices": "country", "metric": "logloss", "max_regression": 0.1},
            "gates.0.slices: expected a list such as [a, b], not 'country'",
        ),
        (
            {"slices": ["country"], "metric": "logloss"},
            "gates.0.max_regression: this key is required",
        ),
        (
            {"slices": ["country"], "metric": "logloss", "max_regression": -0.1},
            "gates.0.max_regression: must be at least 0, not -0.1",
        ),
        ({"p99_ms": 0}, "gates.0.p99_ms: must be above 0, not 0"),
    ],
)
def test_a_wrong_gate_is_told_by_the_rules_of_its_own_kind(
    mistakes: Any, gate: object, said: str
) -> None:
    assert mistakes({"gates": [gate]}) == [said]


@pytest.mark.parametrize("key", ["name", "objective", "source", "label", "columns"])
def test_a_required_key_that_is_missing_is_named(mistakes: Any, key: str) -> None:
    assert mistakes({key: ...}) == [f"{key}: this key is required"]


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("colums", "columns"),
        ("source.ur1", "uri"),
        ("label.colum", "column"),
        ("columns.amount.mini", "min"),
        ("quarantine.max_shares", "max_share"),
        ("split.validaton", "validation"),
        ("training.round", "rounds"),
        ("tuning.trails", "trials"),
        ("drift.windows", "window"),
        ("retrain.shedule", "schedule"),
        ("rollout.stategy", "strategy"),
        ("rollout.guards.p99", "p99_ms"),
        ("log.omits", "omit"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_valid_one(
    mistakes: Any, path: str, nearest: str
) -> None:
    key = path.rpartition(".")[2]
    assert mistakes({path: 1}) == [f"{path}: unknown key {key!r}; did you mean {nearest!r}?"]


@pytest.mark.parametrize(
    ("gate", "key", "nearest"),
    [
        ({"metric": "roc_auc", "min": 0.6, "minrows": 9}, "minrows", "min_rows"),
        ({"beats": "champion", "metric": "logloss", "mingain": 0}, "mingain", "min_gain"),
        (
            {"slices": ["country"], "metric": "logloss", "max_regresion": 0, "max_regression": 0},
            "max_regresion",
            "max_regression",
        ),
        ({"p99_ms": 5, "p99": 5}, "p99", "p99_ms"),
        ({"beat": "champion", "metric": "logloss"}, "beat", "beats"),
        ({"slice": ["country"], "metric": "logloss", "max_regression": 0}, "slice", "slices"),
        ({"p99ms": 5}, "p99ms", "p99_ms"),
    ],
)
def test_an_unknown_key_of_a_gate_is_refused_with_the_nearest_of_that_kind(
    mistakes: Any, gate: dict[str, object], key: str, nearest: str
) -> None:
    assert mistakes({"gates": [gate]}) == [
        f"gates.0.{key}: unknown key {key!r}; did you mean {nearest!r}?"
    ]


def test_an_unknown_key_unlike_any_other_is_refused_with_all_valid_ones(mistakes: Any) -> None:
    assert mistakes({"label.zzz": 1}) == [
        "label.zzz: unknown key 'zzz' (valid keys: column, delay, positive)"
    ]
    assert mistakes({"tuning.space.gamma": {"low": 1, "high": 2, "qqq": 1}}) == [
        "tuning.space.gamma.qqq: unknown key 'qqq' (valid keys: low, high, log)"
    ]


def test_a_misspelt_required_key_is_told_once_not_also_as_missing(mistakes: Any) -> None:
    assert mistakes({"source": {"kind": "csv", "ur": "x", "event_time": "at"}}) == [
        "source.ur: unknown key 'ur'; did you mean 'uri'?"
    ]


@pytest.mark.parametrize(
    "name", ["Flight", "flight_delay", "-a", "a-", "a b", "é", "a" * 64, "", "a\n"]
)
def test_a_name_is_lowercase_letters_digits_and_dashes(mistakes: Any, name: str) -> None:
    [said] = mistakes({"name": name})
    assert said.endswith(
        " is not a name; use lowercase letters, digits and dashes, at most 63, "
        "with no dash at either end"
    )


@pytest.mark.parametrize("name", ["a", "0", "flight-delay", "a" * 63])
def test_a_right_name_is_taken(spec: Any, name: str) -> None:
    assert spec(name=name).name == name


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("90s", timedelta(seconds=90)),
        ("1.5h", timedelta(minutes=90)),
        ("2d", timedelta(days=2)),
        ("1w", timedelta(days=7)),
        ("0d", timedelta(0)),
        ("0.000001s", timedelta(microseconds=1)),
    ],
)
def test_a_duration_is_a_number_and_a_unit(spec: Any, text: str, value: timedelta) -> None:
    assert spec(label__delay=text).label.delay == value


def test_a_long_value_is_shown_in_part(mistakes: Any) -> None:
    [said] = mistakes({"label.delay": "9" * 10_000})
    assert said == f"label.delay: '{'9' * 56}… {DURATION}"


def test_whole_numbers_may_be_written_with_a_point(spec: Any) -> None:
    rounds = spec(training__rounds=400.0).training.rounds
    assert (rounds, type(rounds)) == (400, int)


def test_a_range_of_whole_numbers_stays_whole(spec: Any) -> None:
    space = spec(tuning__space={"max_depth": [3, 8], "gamma": [0, 1.0]}).tuning.space
    assert space["max_depth"].whole
    assert not space["gamma"].whole
    assert (space["gamma"].low, space["gamma"].high, space["gamma"].log) == (0, 1.0, False)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"gamma": [2, 1]}, ["gamma: low 2 is not below high 1"]),
        ({"gamma": [1, 1]}, ["gamma: low 1 is not below high 1"]),
        ({"gamma": ["a", 1]}, ["gamma.low: expected a number, not 'a'"]),
        (
            {"gamma": {"low": 0, "high": 1, "log": True}},
            ["gamma.low: a logarithmic range starts above 0, not at 0"],
        ),
        ({"gamma": {"low": 0}}, ["gamma.high: this key is required"]),
        ({"max_dept": [3, 8]}, ["max_dept: not a tunable parameter; did you mean 'max_depth'?"]),
        ({"eta": [0.1, 0.2]}, ["eta: not a tunable parameter; did you mean 'learning_rate'?"]),
        (
            {"max_depth": [3, 8.5]},
            ["max_depth.high: max_depth is a whole number, not 8.5"],
        ),
        (
            {"subsample": [0, 1.5]},
            [
                "subsample.low: subsample is above 0 and at most 1, not 0",
                "subsample.high: subsample is above 0 and at most 1, not 1.5",
            ],
        ),
        ({"reg_alpha": [-1, 1]}, ["reg_alpha.low: reg_alpha is at least 0, not -1"]),
    ],
)
def test_a_search_space_holds_what_a_booster_takes(
    mistakes: Any, space: dict[str, Any], said: list[str]
) -> None:
    assert mistakes({"tuning.space": space}) == [f"tuning.space.{line}" for line in said]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("eta", 0.1, "not a parameter that can be set; did you mean 'learning_rate'?"),
        ("grow_polcy", "hist", "not a parameter that can be set; did you mean 'grow_policy'?"),
        ("objective", "reg:tweedie", "this is set by objective"),
        ("eval_metric", "auc", "this is set by tuning.metric"),
        ("n_estimators", 10, "this is set by training.rounds"),
        ("grow_policy", "deptwise",
         "'deptwise' is not one of depthwise, lossguide; did you mean 'depthwise'?"),
        ("tree_method", "approx",
         "this is always hist, which the rows are put in bins for; leave it out"),
        ("grow_policy", 1, "expected text, not 1"),
        ("max_depth", "6", "expected a number, not '6'"),
        ("max_depth", 6.5, "max_depth is a whole number, not 6.5"),
        ("subsample", 1.5, "subsample is above 0 and at most 1, not 1.5"),
        ("base_score", float("nan"), "base_score is any number, not nan"),
        ("base_score", 5, "a probability, above 0 and below 1, not 5"),
        ("max_depth", [["a"]], "expected a number, not [['a']]"),
        *(
            ("monotone_constraints", wrong,
             f"write names of features, such as {{price: -1, income: 1}}; not {wrong!r}")
            for wrong in ("(1,0)", {"age": 2}, {"age": True}, [["age"]])
        ),
        *(
            ("interaction_constraints", wrong,
             f"write names of features, such as [[height, weight], [age]]; not {wrong!r}")
            for wrong in ("[[0]]", ["age"], [[]], [[1]], {"age": 1})
        ),
    ],
)  # fmt: skip
def test_a_fixed_parameter_is_one_that_a_booster_takes(
    mistakes: Any, name: str, value: object, said: str
) -> None:
    assert mistakes({f"training.params.{name}": value}) == [f"training.params.{name}: {said}"]


def test_every_parameter_that_may_be_set_is_one_that_xgboost_knows() -> None:
    import xgboost as xgb

    from perennial.spec.parameters import CHOICES, SETTABLE

    values = {name: (CHOICES[name] or ("",))[0] if name in CHOICES else 1 for name in SETTABLE}
    values |= {"monotone_constraints": "(1)", "interaction_constraints": "[[0]]"}  # by position
    values |= {"max_bin": 8, "base_score": 0.5, "sampling_method": "uniform"}
    data = xgb.QuantileDMatrix([[0.0], [1.0]] * 8, [0.0, 1.0] * 8, max_bin=8)
    booster = xgb.train(
        {**values, "validate_parameters": True, "objective": "binary:logistic"}, data, 1
    )
    assert booster.num_boosted_rounds() == 1
