"""Training one booster: repeatable, with categories and missing values as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perennial.contracts.errors import InputError, PerennialError
from perennial.contracts.features import Feature, FeatureSchema
from perennial.learning.matrices import Matrices, feature_names
from perennial.learning.training import (
    Watch,
    booster_bytes,
    booster_params,
    first_line,
    importance,
    load_booster,
    predict,
    train_booster,
)
from perennial.spec import ModelSpec
from perennial.spec.parameters import SETTABLE

OBJECTIVES = ("binary", "multiclass", "regression")
SEARCHED = {"learning_rate": 0.2, "max_depth": 5, "subsample": 0.7, "colsample_bytree": 0.6}
OTHERS = {
    "learning_rate": 0.1, "max_depth": 2, "max_leaves": 3, "min_child_weight": 30,
    "subsample": 0.5, "colsample_bytree": 0.5, "colsample_bylevel": 0.5, "colsample_bynode": 0.5,
    "reg_alpha": 5, "reg_lambda": 20, "gamma": 3, "max_bin": 16, "max_delta_step": 0.05,
    "max_cat_to_onehot": 20, "max_cat_threshold": 1, "scale_pos_weight": 3, "num_parallel_tree": 2,
    "base_score": 0.3, "grow_policy": "lossguide", "sampling_method": "gradient_based",
    "monotone_constraints": {"speed": 1},
    "interaction_constraints": [["speed", "height [m]"], ["colour", "noise"]],
}  # fmt: skip
"""For each parameter a value that is not its default."""

MakeSpec = Callable[..., ModelSpec]
MakeMatrices = Callable[..., Matrices]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_same_inputs_give_the_same_bytes_whatever_the_number_of_threads(
    objective: str, make_spec: MakeSpec, make_matrices: MakeMatrices
) -> None:
    boosters = {
        booster_bytes(
            train_booster(make_matrices(objective), make_spec(objective), SEARCHED, 12, threads)
        )
        for threads in (1, 2, 2, 3)
    }
    assert len(boosters) == 1


@pytest.mark.parametrize("name", SETTABLE)
def test_whatever_is_set_the_number_of_threads_changes_nothing(
    name: str, make_spec: MakeSpec, make_matrices: MakeMatrices
) -> None:
    spec = make_spec(training={"params": {"subsample": 0.5, name: OTHERS[name]}})
    rows = make_matrices(rows=20_000)
    boosters = {booster_bytes(train_booster(rows, spec, {}, 6, threads)) for threads in (1, 2, 3)}
    assert len(boosters) == 1


def test_constraints_name_features_and_are_passed_on_by_position(
    make_spec: MakeSpec, make_matrices: MakeMatrices
) -> None:
    params = {
        "monotone_constraints": {"noise": -1, "speed": 1},
        "interaction_constraints": [["noise", "height [m]"], ["colour"]],
    }
    settings = booster_params(make_matrices().schema, make_spec(training={"params": params}), {}, 1)
    assert settings["monotone_constraints"] == "(1,0,0,-1)"
    assert settings["interaction_constraints"] == "[[3, 1], [2]]"

    rising = {"monotone_constraints": {"height [m]": 1}}
    spec = make_spec(training={"params": rising})
    matrices = make_matrices()
    x = np.zeros((50, 4), np.float32)
    x[:, 1] = np.linspace(-3, 3, 50)
    free, bound = (
        predict(train_booster(matrices, each, {}, 30, 1), x, matrices.schema)
        for each in (make_spec(), spec)
    )
    assert (np.diff(free) < 0).any()
    assert (np.diff(bound) >= 0).all()


def test_a_constraint_that_no_booster_could_keep_is_refused(
    make_spec: MakeSpec, make_matrices: MakeMatrices
) -> None:
    params = {
        "monotone_constraints": {"sped": 1, "colour": -1},
        "interaction_constraints": [["speed", "width"]],
    }
    with pytest.raises(InputError) as caught:
        train_booster(make_matrices(), make_spec(training={"params": params}), {}, 2, 1)
    assert [str(problem) for problem in caught.value.problems] == [
        "model.yaml, training.params.interaction_constraints: 'width' is no feature "
        "(the features are speed, height [m], colour, noise)",
        "model.yaml, training.params.monotone_constraints: 'colour' is a category, which has no "
        "direction (make a number of it in features.py)",
        "model.yaml, training.params.monotone_constraints: 'sped' is no feature; did you mean "
        "'speed'? (the features are speed, height [m], colour, noise)",
    ]


def test_another_seed_gives_another_booster(
    make_spec: MakeSpec, make_matrices: MakeMatrices
) -> None:
    boosters = {
        booster_bytes(
            train_booster(make_matrices(), make_spec(training={"seed": seed}), SEARCHED, 5, 1)
        )
        for seed in (1, 2)
    }
    assert len(boosters) == 2


def test_a_refit_on_both_parts_is_a_fit_on_all_rows_at_once(
    make_spec: MakeSpec, make_matrices: MakeMatrices
) -> None:
    parts = make_matrices()
    together = replace(
        parts,
        x_train=np.concatenate([parts.x_train, parts.x_validation]),
        y_train=np.concatenate([parts.y_train, parts.y_validation]),
    )
    refitted = train_booster(parts, make_spec(), SEARCHED, 8, 1, "train+validation")
    assert booster_bytes(refitted) == booster_bytes(
        train_booster(together, make_spec(), SEARCHED, 8, 1)
    )
    assert booster_bytes(refitted) != booster_bytes(
        train_booster(parts, make_spec(), SEARCHED, 8, 1, "train")
    )


def test_arrays_mapped_from_disk_train_like_arrays_in_memory(
    tmp_path: Path, make_spec: MakeSpec, make_matrices: MakeMatrices
) -> None:
    memory = make_matrices()
    for name in ("x_train", "y_train", "x_validation", "y_validation"):
        np.save(tmp_path / f"{name}.npy", getattr(memory, name))
    mapped = {path.stem: np.load(path, mmap_mode="r") for path in tmp_path.glob("*.npy")}
    disk = Matrices(**mapped, schema=memory.schema)
    assert booster_bytes(train_booster(disk, make_spec(), SEARCHED, 5, 1)) == booster_bytes(
        train_booster(memory, make_spec(), SEARCHED, 5, 1)
    )


def test_a_category_is_split_by_membership_not_by_the_order_of_its_levels(
    make_spec: MakeSpec,
) -> None:
    levels = tuple(f"level {i:02}" for i in range(40))
    codes = np.tile(np.arange(40, dtype=np.float32), 50)[:, None]
    label = (codes[:, 0] * 7 % 5 < 2).astype(np.float32)
    schema = FeatureSchema(
        inputs=(), features=(Feature(name="code", levels=levels),), classes=("0", "1")
    )
    matrices = Matrices(codes, label, codes[:40], label[:40], schema)
    booster = train_booster(matrices, make_spec(), {"max_depth": 1, "learning_rate": 1.0}, 1, 1)
    assert booster.feature_types == ["c"]
    assert ((predict(booster, codes, schema) > 0.5) == label).all()


def test_missing_values_are_learned_from(make_spec: MakeSpec) -> None:
    x = np.array([[1.0], [np.nan]] * 200, dtype=np.float32)
    y = np.array([0.0, 1.0] * 200, dtype=np.float32)
    schema = FeatureSchema(inputs=(), features=(Feature(name="x"),), classes=("0", "1"))
    booster = train_booster(Matrices(x, y, x[:2], y[:2], schema), make_spec(), {}, 20, 1)
    known, missing = predict(booster, x[:2], schema)
    assert known < 0.05
    assert missing > 0.95


def test_fixed_parameters_win_over_searched_ones(
    make_spec: MakeSpec, make_matrices: MakeMatrices
) -> None:
    fixed = make_spec(training={"params": {"max_depth": 2, "max_bin": 64}})
    settings = booster_params(make_matrices().schema, fixed, SEARCHED, 1)
    assert (settings["max_depth"], settings["max_bin"]) == (2, 64)
    depth_two = {**SEARCHED, "max_depth": 2, "max_bin": 64}
    assert booster_bytes(train_booster(make_matrices(), fixed, SEARCHED, 5, 1)) == booster_bytes(
        train_booster(make_matrices(), make_spec(), depth_two, 5, 1)
    )


@pytest.mark.parametrize("name", SETTABLE)
def test_every_parameter_that_may_be_set_changes_the_booster(
    name: str, make_spec: MakeSpec, make_matrices: MakeMatrices
) -> None:
    params = {"subsample": 0.8, name: OTHERS[name]}
    boosters = {
        booster_bytes(train_booster(make_matrices(), make_spec(training=training), {}, 5, 1))
        for training in ({"params": {"subsample": 0.8}}, {"params": params})
    }
    assert len(boosters) == 2


def test_what_xgboost_refuses_is_told_in_its_words_without_a_stack_trace(
    make_spec: MakeSpec, make_matrices: MakeMatrices
) -> None:
    matrices = make_matrices()
    matrices.y_train[0] = 5.0  # no probability
    with pytest.raises(PerennialError) as caught:
        train_booster(matrices, make_spec(), {}, 2, 1)
    assert caught.value.message.startswith("XGBoost can't train: ")
    assert "\n" not in caught.value.message
    assert "libxgboost" not in caught.value.message


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("Invalid Parameter format for max_depth", "Invalid Parameter format for max_depth"),
        ("[07:56:48] /src/objective.cc:27: Unknown: `no`\nOne of: a", "Unknown: `no`"),
        (
            "[07:33:42] /src/result.cc:83: [comm_group.cc:125|07:33:42]:\n\n"
            "- [comm.cc:409|07:33:36]: Failed to shutdown.\n"
            "- [comm.cc:41|07:33:36]: Failed to connect to the tracker.\n",
            "Failed to shutdown.",
        ),
        ("[07:33:42] /src/result.cc:83: [comm_group.cc:125|07:33:42]:\n", "no reason told"),
    ],
)
def test_of_an_error_of_xgboost_the_first_line_that_is_more_than_a_place_is_told(
    error: str, said: str
) -> None:
    assert first_line(Exception(error)) == said


@pytest.mark.parametrize(
    ("objective", "width"), [("binary", ()), ("multiclass", (3,)), ("regression", ())]
)
def test_predictions_have_the_shape_of_the_objective_also_for_no_rows(
    objective: str, width: tuple[int, ...], make_spec: MakeSpec, make_matrices: MakeMatrices
) -> None:
    matrices = make_matrices(objective)
    booster = train_booster(matrices, make_spec(objective), SEARCHED, 3, 1)
    for rows in (5, 1, 0):
        values = predict(booster, matrices.x_validation[:rows], matrices.schema)
        assert values.shape == (rows, *width)
        assert values.dtype == np.float32


def test_a_booster_survives_its_bytes(make_spec: MakeSpec, make_matrices: MakeMatrices) -> None:
    matrices = make_matrices("multiclass")
    booster = train_booster(matrices, make_spec("multiclass"), SEARCHED, 5, 2)
    again = load_booster(booster_bytes(booster))
    assert booster_bytes(again) == booster_bytes(booster)
    rows = matrices.x_validation
    assert (
        predict(again, rows, matrices.schema).tobytes()
        == predict(booster, rows, matrices.schema).tobytes()
    )


def test_importance_is_shares_of_the_gain_under_the_features_own_names(
    make_spec: MakeSpec, make_matrices: MakeMatrices
) -> None:
    matrices = make_matrices()
    shares = importance(
        train_booster(matrices, make_spec(), {"max_depth": 3}, 3, 1), matrices.schema
    )
    assert set(shares) == {"speed", "height [m]", "colour", "noise"}
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert next(iter(shares)) in ("speed", "colour")
    assert shares["noise"] < 0.1


def test_names_that_are_equal_to_xgboost_are_numbered_and_no_others(
    make_spec: MakeSpec, make_matrices: MakeMatrices
) -> None:
    matrices = make_matrices()
    assert feature_names(matrices.schema) == ["speed", "height (m)", "colour", "noise"]
    old, params = train_booster(matrices, make_spec(), {"max_depth": 3}, 3, 1), {"max_depth": 3}
    named = ("x[0]", "x(0)", "colour", "1:x(0)")
    features = tuple(
        f.model_copy(update={"name": name})
        for f, name in zip(matrices.schema.features, named, strict=True)
    )
    schema = matrices.schema.model_copy(update={"features": features})
    booster = train_booster(replace(matrices, schema=schema), make_spec(), params, 3, 1)
    assert feature_names(schema) == ["0:x(0)", "1:x(0)", "2:colour", "3:1:x(0)"]
    shares, before = importance(booster, schema), importance(old, matrices.schema)
    assert set(shares) == set(named)
    assert list(shares.values()) == list(before.values())


def test_importance_without_a_split_is_nothing_for_everyone(
    make_spec: MakeSpec, make_matrices: MakeMatrices
) -> None:
    matrices = make_matrices()
    stump = train_booster(matrices, make_spec(), {"gamma": 1e9}, 2, 1)
    assert set(importance(stump, matrices.schema).values()) == {0.0}


def follow(watch: Watch, values: list[float]) -> int:
    """Show a watch one value a round; returns the rounds until it ended the training."""
    for epoch, value in enumerate(values):
        if watch.after_iteration(None, epoch, {"validation": {"metric": [value]}}):
            return epoch + 1
    return 0


@pytest.mark.parametrize(
    ("metric", "values", "ended", "best_rounds", "best_value"),
    [
        ("logloss", [0.6, 0.5, 0.4, 0.41, 0.42, 0.43, 0.44, 0.45, 0.1], 8, 3, 0.4),
        ("roc_auc", [0.6, 0.7, 0.69, 0.68, 0.67, 0.66, 0.65, 0.9], 7, 2, 0.7),
        ("logloss", [0.5, 0.4, 0.3, 0.2, 0.1], 0, 5, 0.1),
        ("logloss", [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], 6, 1, 0.5),
    ],
    ids=["rises again", "greater is better", "still gains", "a tie is no gain"],
)
def test_early_stopping_waits_its_rounds_and_keeps_the_best(
    metric: str,
    values: list[float],
    ended: int,
    best_rounds: int,
    best_value: float,
    make_spec: MakeSpec,
) -> None:
    watch = Watch(make_spec(tuning={"metric": metric}))
    assert follow(watch, values) == ended
    assert watch.stopped == ("early stopping" if ended else "")
    assert (watch.best_rounds, watch.best_value) == (best_rounds, best_value)


def test_the_last_digits_of_a_sum_decide_nothing(make_spec: MakeSpec) -> None:
    exact, shaken = Watch(make_spec()), Watch(make_spec())
    values = [0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]
    assert follow(exact, values) == follow(
        shaken, [v * (1 - 2e-16 * i) for i, v in enumerate(values)]
    )
    assert (exact.best_rounds, exact.losses) == (shaken.best_rounds, shaken.losses)


def test_a_watch_ends_a_training_when_it_is_told_to(
    make_spec: MakeSpec,
) -> None:
    watch = Watch(make_spec(), lambda watch: "enough" if len(watch.losses) == 3 else "")
    assert follow(watch, [0.5, 0.4, 0.3, 0.2]) == 3
    assert watch.stopped == "enough"


def test_a_metric_that_is_undefined_is_an_error_that_says_what_it_needs(
    make_spec: MakeSpec,
) -> None:
    watch: Any = Watch(make_spec(tuning={"metric": "roc_auc"}))
    with pytest.raises(PerennialError) as caught:
        follow(watch, [float("nan")])
    assert caught.value.message == (
        "roc_auc on the validation part is nan after 1 rounds: it needs finite labels, and for a "
        "ranking metric rows of every class"
    )
