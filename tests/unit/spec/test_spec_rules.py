"""Rules between keys and between sections, each with its exact words."""

from __future__ import annotations

from typing import Any

import pytest

FLOOR = {"metric": "roc_auc", "min": 0.6}
SNAPSHOT = {
    "source": {"kind": "csv", "uri": "rows.csv"},
    "split": {"kind": "stratified", "validation": 0.2, "test": 0.2},
}


def slices(*columns: str) -> dict[str, Any]:
    return {"slices": list(columns), "metric": "logloss", "max_regression": 0.02}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        # source
        (
            {"source.kind": "sql"},
            ["source.query: an sql source needs a table's name or a SELECT"],
        ),
        (
            {"source.query": "rows"},
            ["source.query: only an sql source has a query, this is csv"],
        ),
        (
            {"source.kind": "parquet", "source.delimiter": ";"},
            ["source.delimiter: only a csv source has a delimiter, this is parquet"],
        ),
        (
            {"source.kind": "delta", "source.decimal": ","},
            ["source.decimal: only a csv source has a decimal, this is delta"],
        ),
        (
            {"source.entity": ["idd"]},
            ["source.entity.0: no column 'idd'; did you mean 'id'?"],
        ),
        (
            {"source.entity": ["id", "at"]},
            ["source.entity.1: the event time always belongs to a row's identity; leave it out"],
        ),
        ({"source.entity": ["id", "id"]}, ["source.entity.1: 'id' is given twice"]),
        (
            {"source.entity": ["late"]},
            ["source.entity.0: the label can't identify a row: it is not known at first"],
        ),
        (
            SNAPSHOT | {"source.lateness": "2d"},
            ["source.lateness: no row is late without source.event_time"],
        ),
        # names
        (
            {
                "columns.Amount": {"type": "float"},
                "label.column": "COUNT",
                "source.event_time": "Day",
            },
            [
                "columns.Amount: 'Amount' and 'amount' differ in capitals only, which tables don't "
                "tell apart; rename one of them, or leave it out",
                "label.column: 'COUNT' and 'count' differ in capitals only, which tables don't "
                "tell apart; rename one of them, or leave it out",
                "source.event_time: 'Day' and 'day' differ in capitals only, which tables don't "
                "tell apart; rename one of them, or leave it out",
            ],
        ),
        (
            {"columns._Perennial_row": {"type": "float"}, "label.column": "_perennial_y"},
            [
                "columns._Perennial_row: names that begin with _perennial_ are Perennial's own; "
                "rename '_Perennial_row' in the data and in model.yaml, and train",
                "label.column: names that begin with _perennial_ are Perennial's own; "
                "rename '_perennial_y' in the data and in model.yaml, and train",
            ],
        ),
        (
            {"columns._Version": {"type": "integer"}, "source.event_time": "_time"},
            [
                "columns._Version: '_version' is a column of the prediction log's own; "
                "rename '_Version' in the data and in model.yaml, and train",
                "source.event_time: '_time' is a column of the prediction log's own; "
                "rename '_time' in the data and in model.yaml, and train",
            ],
        ),
        # ensemble
        (
            {"ensemble.of": ["a", "m@2"], "name": "m"},
            ["ensemble.of.1: a model can't be made of itself"],
        ),
        ({"ensemble.of": ["a"]}, ["ensemble.of: an ensemble has two members at least"]),
        ({"ensemble.of": ["a", "b", "a"]}, ["ensemble.of.2: 'a' is given twice"]),
        (
            {"ensemble.of": ["a", "b"], "features": ["amount"]},
            ["features: an ensemble's features are its members' predictions; leave this out"],
        ),
        (
            {"ensemble.of": ["a", "b"], "ensemble.weights": {"a": 1, "bb": 2}},
            [
                "ensemble.weights.bb: no member 'bb'; did you mean 'b'?",
                "ensemble.weights: no weight for b; 0 leaves a member out of the mean",
            ],
        ),
        (
            {"ensemble.of": ["a", "b"], "ensemble.weights": {"a": 0, "b": 0}},
            ["ensemble.weights: one weight must be above 0"],
        ),
        (
            {
                "ensemble.of": ["a", "b@2"],
                "ensemble.combine": "stacking",
                "ensemble.weights": {"a": 1, "b@2": 2},
            },
            ["ensemble.weights: only a mean has weights, this is stacking"],
        ),
        (
            SNAPSHOT | {"ensemble.of": ["a", "b"]},
            [
                "ensemble.overlap: rows that members were fitted on are told by their event time; "
                "name source.event_time, or write keep and take the figures for flattering"
            ],
        ),
        (
            {"ensemble.of": ["a@0", "B", "c"]},
            [
                "ensemble.of.0: 'a@0' is not NAME or NAME@VERSION, such as demand@3",
                "ensemble.of.1: 'B' is not a name; use lowercase letters, digits and dashes, at "
                "most 63, with no dash at either end",
            ],
        ),
        # label
        (
            SNAPSHOT | {"label.delay": "2d"},
            ["label.delay: a label is late only after an event; name source.event_time"],
        ),
        ({"label.column": "at"}, ["label.column: the label can't be the event time"]),
        (
            {"objective": "multiclass", "label.positive": "yes"},
            ["label.positive: only a binary model has a positive class, not a multiclass"],
        ),
        (
            {
                "columns.late": {"type": "category", "allowed": ["no", "yes"]},
                "label.positive": "ja",
            },
            ["label.positive: 'ja' is none of the label's allowed values no, yes"],
        ),
        # columns
        (
            {"columns.amount.min": 2, "columns.amount.max": 1},
            ["columns.amount: min 2 is above max 1"],
        ),
        (
            {"columns.country.min": 0, "columns.country.max": 9},
            [
                "columns.country.min: only a float or integer column has a min, this is category",
                "columns.country.max: only a float or integer column has a max, this is category",
            ],
        ),
        (
            {"columns.amount.allowed": ["1"]},
            [
                "columns.amount.allowed: only a category, string or integer column has allowed "
                "values, this is float"
            ],
        ),
        (
            {"columns.count.allowed": [1, "two", "03"]},
            [
                "columns.count.allowed.1: 'two' is not a whole number, as the column's type says",
                "columns.count.allowed.2: '03' is not a whole number, as the column's type says",
            ],
        ),
        (
            {"columns.country.allowed": ["DE", 1, "1", True]},
            ["columns.country.allowed.3: expected text or a whole number, not True; quote it"],
        ),
        (
            {"columns.country.allowed": ["DE", 1, "1"]},
            ["columns.country.allowed.2: '1' is given twice"],
        ),
        (
            {"columns.id.feature": True},
            [
                "columns.id.feature: a string column can't be a feature; make it a category, "
                "or use features.py"
            ],
        ),
        (
            {"columns.at": {"type": "integer"}},
            ["columns.at.type: the event time is a datetime, not integer"],
        ),
        (
            {"columns.at": {"type": "datetime", "nullable": True}},
            ["columns.at.nullable: the event time is never missing"],
        ),
        (
            {"columns.late": {"type": "boolean", "feature": True}},
            ["columns.late.feature: the label can't be a feature"],
        ),
        (
            {"objective": "regression", "columns.late": {"type": "category"}},
            ["columns.late.type: a regression predicts a float or an integer, not a category"],
        ),
        (
            {"columns.late": {"type": "datetime"}},
            ["columns.late.type: the label of a classifier can't be a datetime"],
        ),
        # features
        ({"features": ["amount", "late"]}, ["features.1: the label can't be a feature"]),
        ({"features": ["amount", "amount"]}, ["features.1: 'amount' is given twice"]),
        (
            {"features": ["at"]},
            ["features.0: the event time can't be a feature; use features.py"],
        ),
        (
            {"features": ["id", "day"]},
            [
                "features.0: a string column can't be a feature; make it a category, "
                "or use features.py",
                "features.1: a datetime column can't be a feature; make it a category, "
                "or use features.py",
            ],
        ),
        (
            {"features": ["amount"], "columns.amount.feature": False},
            ["features.0: columns.amount says feature: false"],
        ),
        # split
        (
            {"split.validation": 0.2},
            ["split.validation: validation of a time split is a duration such as 14d, not 0.2"],
        ),
        (
            {"split": {"kind": "random", "test": 0.2}},
            ["split.validation: validation of a random split is a share of rows such as 0.2"],
        ),
        (
            {"split": {"kind": "random", "validation": 0.5, "test": 0.5}},
            ["split: validation and test leave nothing to train on"],
        ),
        (
            {"split": {"kind": "group", "validation": 0.2, "test": 0.2}},
            ["split.group: group names the column of a group split, and only of one"],
        ),
        (
            {"split.group": "id"},
            ["split.group: group names the column of a group split, and only of one"],
        ),
        (
            {"split": {"kind": "group", "validation": 0.2, "test": 0.2, "group": "late"}},
            ["split.group: groups of equal labels would leave classes out of a part"],
        ),
        (
            {"split": {"kind": "group", "validation": 0.2, "test": 0.2, "group": "contry"}},
            ["split.group: no column 'contry'; did you mean 'country'?"],
        ),
        (
            {
                "split": {
                    "kind": "random",
                    "validation": 0.2,
                    "test": 0.2,
                    "gap": "1d",
                    "window": "60d",
                }
            },
            [
                "split.gap: gap belongs to a time split, this is random",
                "split.window: window belongs to a time split, this is random",
            ],
        ),
        (
            {"source": {"kind": "csv", "uri": "rows.csv"}},
            ["split.kind: a time split needs source.event_time; use stratified, group or random"],
        ),
        (
            SNAPSHOT | {"objective": "regression"},
            ["split.kind: a regression has no classes to stratify by; use random or group"],
        ),
        # tuning, training
        (
            {"tuning.metric": "accuracy"},
            [
                "tuning.metric: 'accuracy' can't rank trials of a binary model; "
                "use one of logloss, roc_auc, pr_auc"
            ],
        ),
        (
            {
                "objective": "multiclass",
                "tuning.space": {"scale_pos_weight": [1, 9]},
                "training.params": {"scale_pos_weight": 2},
            },
            [
                f"{place}.scale_pos_weight: only a binary model has a positive class, "
                "not a multiclass"
                for place in ("tuning.space", "training.params")
            ],
        ),
        # gates
        (
            {"gates": [{"metric": "rmse", "max": 3}, {"beats": "champion", "metric": "log_loss"}]},
            [
                f"gates.{i}.metric: {metric!r} is no metric of a binary model; "
                "use one of logloss, roc_auc, pr_auc, brier, accuracy"
                for i, metric in ((0, "rmse"), (1, "log_loss"))
            ],
        ),
        (
            {"gates": [{"metric": "logloss", "min": 0.5}, {"metric": "roc_auc", "max": 0.5}]},
            [
                "gates.0: logloss is better when smaller: give max",
                "gates.1: roc_auc is better when greater: give min",
            ],
        ),
        (
            {"gates": [FLOOR, slices("country", "contry", "late", "at", "amount", "day")]},
            [
                "gates.1.slices.1: no column 'contry'; did you mean 'country'?",
                "gates.1.slices.2: a slice of one label has nothing to tell apart",
                "gates.1.slices.3: nearly every event time is a slice of its own",
                "gates.1.slices.4: a float column has no levels to slice by",
                "gates.1.slices.5: a datetime column has no levels to slice by",
            ],
        ),
        (
            {"gates": [slices("country", "country")]},
            ["gates.0.slices.1: 'country' is given twice"],
        ),
        ({"retrain.on": ["data", "data"]}, ["retrain.on.1: 'data' is given twice"]),
        # log
        (
            {"log.hash": ["id", "amount", "day", "countr", "late", "at"]},
            [
                "log.hash.1: a float column can't be hashed; leave it out with log.omit",
                "log.hash.2: a datetime column can't be hashed; leave it out with log.omit",
                "log.hash.3: no column 'countr'; did you mean 'country'?",
                "log.hash.4: the label is no input of a prediction",
                "log.hash.5: the event time is kept as it is: labels find their rows by it",
            ],
        ),
        (
            {"log.omit": ["amount", "id", "at"]},
            [
                "log.omit.1: labels find their rows by the entity; hash it instead",
                "log.omit.2: the event time is kept as it is: labels find their rows by it",
            ],
        ),
        (
            {"log.hash": ["country", "country"], "log.omit": ["country"]},
            [
                "log.hash.1: 'country' is given twice",
                "log.omit.0: 'country' is hashed already; a column is hashed or left out",
            ],
        ),
    ],
)
def test_a_broken_rule_is_told_at_the_key_that_breaks_it(
    mistakes: Any, changes: dict[str, Any], said: list[str]
) -> None:
    assert mistakes(changes) == said


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://reader:hunter2@db/rows",
        "postgresql+psycopg://reader:hun@ter2@db/rows",
        "mysql://db/rows?user=reader&password=hunter2",
        "mssql+pyodbc:///?odbc_connect=DRIVER;PWD%3Dhunter2",
    ],
)
def test_a_password_in_the_address_is_refused_and_not_repeated(mistakes: Any, uri: str) -> None:
    said = mistakes({"source.kind": "sql", "source.query": "rows", "source.uri": uri})
    assert said == [
        "source.uri: holds a password; put the URL in an environment variable and write env:NAME"
    ]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("rows", []),
        ("sales.rows ;", []),
        ('"rows; of; old"', []),
        ("SELECT * FROM rows;\n", []),
        ("SELECT 1; SELECT 2", ["a semicolon in the middle: it must be one SELECT"]),
        ("SELECT ';' AS mark FROM rows", ["a semicolon in the middle: it must be one SELECT"]),
        (" ;", ["an sql source needs a table's name or a SELECT"]),
    ],
)
def test_a_query_is_one_statement_before_any_database_is_asked(
    mistakes: Any, query: str, said: list[str]
) -> None:
    where = {"source.kind": "sql", "source.query": query, "source.uri": "env:UNSET_URL"}
    found = mistakes(where | {"label.colum": "late"})
    told = [each.partition("; ")[0] for each in found if each.startswith("source.query: ")]
    assert told == [f"source.query: {each}" for each in said]
    assert len(found) > len(told)  # with the other mistakes


@pytest.mark.parametrize(
    "uri",
    ["env:WAREHOUSE", "postgresql://reader@db:5432/rows", "sqlite:///rows.db", "s3://bucket/a@b:c"],
)
def test_an_address_without_a_password_is_taken(spec: Any, uri: str) -> None:
    assert spec(source__kind="sql", source__query="rows", source__uri=uri).source.uri == uri


def test_allowed_values_may_be_whole_numbers_and_are_kept_as_text(spec: Any) -> None:
    made = spec(columns__count__allowed=[1, -2, "3"], columns__country__allowed=["NO", 7])
    assert made.columns["count"].allowed == ("1", "-2", "3")
    assert made.columns["country"].allowed == ("NO", "7")


@pytest.mark.parametrize("positive", ["yes", 1, True, False, 0])
def test_the_positive_class_keeps_the_type_it_is_written_in(spec: Any, positive: object) -> None:
    found = spec(label__positive=positive).label.positive
    assert (found, type(found)) == (positive, type(positive))


def test_rows_are_identified_by_event_time_and_entity(spec: Any) -> None:
    assert spec().identity == ("at", "id")


def test_rows_without_an_entity_are_identified_by_all_columns_but_the_label(spec: Any) -> None:
    made = spec(source__entity=[], columns__late={"type": "boolean"})
    assert made.identity == ("at", "id", "amount", "count", "country", "day")


def test_rows_of_a_snapshot_are_identified_by_the_entity_alone(spec: Any) -> None:
    changes = {key.replace(".", "__"): value for key, value in SNAPSHOT.items()}
    assert spec(**changes).identity == ()
    assert spec(**changes, source__entity=["id"]).identity == ("id",)


def test_features_are_columns_but_the_label_the_event_time_text_and_those_refused(
    spec: Any,
) -> None:
    made = spec(
        columns__late={"type": "boolean"},
        columns__at={"type": "datetime"},
        columns__count={"type": "integer", "feature": False},
        columns__weekend={"type": "boolean"},
    )
    assert made.feature_columns == ("amount", "country", "weekend")


def test_trials_are_ranked_by_the_loss_of_the_objective_unless_another_is_named(spec: Any) -> None:
    assert spec().metric == "logloss"
    assert spec(objective="multiclass").metric == "logloss"
    assert spec(objective="regression").metric == "rmse"
    assert spec(tuning__metric="pr_auc").metric == "pr_auc"
