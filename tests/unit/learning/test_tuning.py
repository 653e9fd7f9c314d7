"""A whole study: repeatable to the bit, resumable, and clear about what went wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest

from perennial.contracts.errors import InputError, PerennialError
from perennial.learning import trials
from perennial.learning.matrices import Matrices
from perennial.learning.metrics import scores
from perennial.learning.studies import TrialRecord
from perennial.learning.training import train_booster
from perennial.learning.tuning import StudyResult, tune
from perennial.spec import ModelSpec

NewUrl = Callable[[], str]
MakeSpec = Callable[..., ModelSpec]
MakeMatrices = Callable[..., Matrices]


def timeless(result: StudyResult) -> Sequence[TrialRecord]:
    """The trials without what they took, which is never the same."""
    return [replace(record, seconds=0.0) for record in result.records]


def state(result: StudyResult, number: int) -> str:
    return result.records[number].state


@pytest.mark.parametrize("objective", ["binary", "multiclass", "regression"])
def test_a_study_is_the_same_to_the_bit_whatever_the_number_of_cores(
    objective: str, new_url: NewUrl, make_spec: MakeSpec, make_matrices: MakeMatrices
) -> None:
    spec = make_spec(objective, training={"rounds": 60}, tuning={"trials": 7, "batch": 3})
    results = [
        tune(
            spec,
            make_matrices(objective),
            study_name="s",
            storage_url=new_url(),
            workers=workers,
        )
        for workers in (1, 3)
    ]
    assert len(results[0].records) == 7
    for other in results[1:]:
        assert timeless(other) == timeless(results[0])
        assert other.importances == results[0].importances
        assert replace(other.best, seconds=0.0) == replace(results[0].best, seconds=0.0)


def test_the_best_parameters_and_rounds_give_the_best_value_again(
    url: str, make_spec: MakeSpec, make_matrices: MakeMatrices
) -> None:
    matrices, spec = make_matrices(), make_spec()
    result = tune(spec, matrices, study_name="s", storage_url=url)
    booster = train_booster(matrices, spec, result.best_params, result.best_rounds, 1)
    p = booster.inplace_predict(matrices.x_validation)
    y = matrices.y_validation
    logloss = -np.log(np.where(y == 1, p, 1 - p)).mean()
    assert logloss == pytest.approx(result.best_value, rel=1e-6)
    complete = [r.value for r in result.records if r.value is not None and r.state == "complete"]
    assert result.best_value == min(complete)


def test_a_metric_that_should_be_great_is_maximised(
    url: str, make_spec: MakeSpec, make_matrices: MakeMatrices
) -> None:
    spec = make_spec(tuning={"metric": "roc_auc"})
    result = tune(spec, make_matrices(), study_name="s", storage_url=url)
    values = [r.value for r in result.records if r.value is not None and r.state == "complete"]
    assert result.best_value == max(values)
    assert 0.5 < min(values) < max(values) <= 1
    for record in result.records:
        assert list(record.curve.values()) == sorted(record.curve.values())


def test_a_multiclass_roc_auc_is_that_of_reports_where_rare_classes_count_as_much(
    url: str, make_spec: MakeSpec, make_matrices: MakeMatrices
) -> None:
    matrices = make_matrices("multiclass")
    for y in (matrices.y_train, matrices.y_validation):
        rare = np.flatnonzero(y == 2)
        y[rare[10:]] = 0
    spec = make_spec("multiclass", tuning={"metric": "roc_auc", "trials": 3})
    result = tune(spec, matrices, study_name="s", storage_url=url)
    booster = train_booster(matrices, spec, result.best_params, result.best_rounds, 1)
    p = booster.inplace_predict(matrices.x_validation)
    reported = scores("multiclass", matrices.y_validation, p)["roc_auc"]
    assert result.best_value == pytest.approx(reported, abs=1e-6)


def test_hopeless_trials_are_pruned_unless_the_spec_says_not_to(
    new_url: NewUrl, make_spec: MakeSpec, make_matrices: MakeMatrices
) -> None:
    settings = {"rounds": 80, "early_stopping_rounds": 80}
    space = {"learning_rate": {"low": 0.0001, "high": 0.3, "log": True}}
    results = [
        tune(
            make_spec(training=settings, tuning={"trials": 10, "space": space, "prune": prune}),
            make_matrices(),
            study_name="s",
            storage_url=new_url(),
        )
        for prune in (True, False)
    ]
    pruned = [record for record in results[0].records if record.state == "pruned"]
    assert results[0].pruned == len(pruned) > 0
    assert {max(record.curve) % 10 for record in pruned} == {0}, "looked at every tenth round"
    assert all(max(record.curve) < 80 for record in pruned)
    assert {record.stopped for record in pruned} == {"hopeless"}
    assert results[1].pruned == 0
    assert {max(record.curve) for record in results[1].records} == {80}
    assert results[0].best_params == results[1].best_params
    first_round = [replace(r, seconds=0) for r in results[1].records[:4]]
    assert [replace(r, seconds=0) for r in results[0].records[:4]] == first_round


def test_a_study_that_has_ended_gives_its_result_again_without_training(
    url: str, make_spec: MakeSpec, make_matrices: MakeMatrices, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tune(make_spec(), make_matrices(), study_name="s", storage_url=url)
    monkeypatch.setattr(trials.xgb, "train", None)
    assert tune(make_spec(), make_matrices(), study_name="s", storage_url=url) == first


class Killed(BaseException):
    """What a signal does to a process, as far as the study can tell."""


@pytest.mark.parametrize("after", [1, 4, 6, 9])
def test_an_interrupted_study_goes_on_as_if_it_had_not_been(
    after: int, new_url: NewUrl, make_spec: MakeSpec, make_matrices: MakeMatrices
) -> None:
    spec, matrices = make_spec(tuning={"trials": 10}), make_matrices()
    calm = tune(spec, matrices, study_name="s", storage_url=new_url())

    def strike(done: int, total: int, text: str) -> None:
        if done == after:
            raise Killed

    url = new_url()
    with pytest.raises(Killed):
        tune(spec, matrices, study_name="s", storage_url=url, progress=strike, workers=2)
    assert len(optuna.load_study(study_name="s", storage=url).trials) == after

    resumed = tune(spec, matrices, study_name="s", storage_url=url)
    assert timeless(resumed) == timeless(calm)
    assert resumed.importances == calm.importances


def test_a_study_may_be_extended_and_keeps_its_first_trials(
    new_url: NewUrl, make_spec: MakeSpec, make_matrices: MakeMatrices
) -> None:
    short, long = make_spec(tuning={"trials": 6}), make_spec(tuning={"trials": 10})
    url = new_url()
    begun = tune(short, make_matrices(), study_name="s", storage_url=url)
    extended = tune(long, make_matrices(), study_name="s", storage_url=url)
    whole = tune(long, make_matrices(), study_name="s", storage_url=new_url())
    assert extended.records[:6] == begun.records
    assert timeless(extended) == timeless(whole)


def test_a_name_taken_by_a_study_of_other_settings_is_refused(
    url: str, make_spec: MakeSpec, make_matrices: MakeMatrices
) -> None:
    tune(make_spec(), make_matrices(), study_name="s", storage_url=url)
    other = make_spec(training={"seed": 8}, tuning={"batch": 2})
    with pytest.raises(InputError) as caught:
        tune(other, make_matrices(rows=1000), study_name="s", storage_url=url)
    assert caught.value.message == (
        "study s: its trials ran with another batch and another training and another rows "
        "(give every digest of the inputs its own study)"
    )


@pytest.mark.parametrize(
    ("former", "origins"),
    [
        ([], ["defaults", "search", "search"]),
        ([{"max_depth": 4, "learning_rate": 0.1}], ["former version", "search", "search"]),
        (
            [{"max_depth": 4}, {"max_depth": 4}, {"max_depth": 5}],
            ["former version", "former version", "search"],
        ),
    ],
)
def test_a_new_study_tries_former_best_parameters_first(
    former: Sequence[Mapping[str, object]],
    origins: list[str],
    url: str,
    make_spec: MakeSpec,
    make_matrices: MakeMatrices,
) -> None:
    spec = make_spec(tuning={"trials": 3})
    result = tune(spec, make_matrices(), study_name="s", storage_url=url, warm_start=former)
    assert [record.origin for record in result.records] == origins
    if former:
        assert result.records[0].params["max_depth"] == 4


def test_a_resumed_study_keeps_the_starting_points_it_began_with(
    url: str, make_spec: MakeSpec, make_matrices: MakeMatrices
) -> None:
    def strike(done: int, total: int, text: str) -> None:
        raise Killed

    spec, warm = make_spec(tuning={"trials": 4}), [{"max_depth": 4}, {"max_depth": 5}]
    with pytest.raises(Killed):
        tune(
            spec, make_matrices(), study_name="s", storage_url=url, warm_start=warm, progress=strike
        )
    result = tune(
        spec, make_matrices(), study_name="s", storage_url=url, warm_start=[{"max_depth": 9}]
    )
    assert [record.params["max_depth"] for record in result.records[:2]] == [4, 5]


def test_a_searched_number_of_bins_has_a_matrix_of_its_own(
    url: str, make_spec: MakeSpec, make_matrices: MakeMatrices
) -> None:
    spec = make_spec(tuning={"trials": 6, "space": {"max_bin": [4, 64]}})
    result = tune(spec, make_matrices(), study_name="s", storage_url=url, workers=2)
    assert result.failed == 0
    assert len({record.params["max_bin"] for record in result.records}) > 3
    assert len({record.value for record in result.records}) > 3


def test_with_nothing_to_search_one_trial_finds_the_rounds(
    url: str, make_spec: MakeSpec, make_matrices: MakeMatrices
) -> None:
    spec = make_spec(training={"params": {"max_depth": 3}}, tuning={"space": {"max_depth": [2, 5]}})
    result = tune(spec, make_matrices(), study_name="s", storage_url=url)
    assert (result.trials, result.best_params, result.importances) == (1, {}, {})
    assert 1 <= result.best_rounds <= 30


def test_when_every_trial_fails_the_first_cause_is_told_and_the_next_try_starts_anew(
    url: str, make_spec: MakeSpec, make_matrices: MakeMatrices, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise trials.xgb.core.XGBoostError("[12:00:00] /a/b.cc:7: No room.\nStack trace:\n  [bt]")

    with monkeypatch.context() as broken:
        broken.setattr(trials.xgb, "train", refuse)
        with pytest.raises(PerennialError) as caught:
            tune(make_spec(), make_matrices(), study_name="s", storage_url=url)
    assert caught.value.message == "all 4 trials failed; the first: No room."
    assert tune(make_spec(), make_matrices(), study_name="s", storage_url=url).failed == 0


def test_a_trial_that_fails_is_kept_as_failed_and_the_others_go_on(
    url: str, make_spec: MakeSpec, make_matrices: MakeMatrices, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = trials.xgb.train

    def sometimes(settings: dict[str, Any], *rest: Any, **more: Any) -> Any:
        if settings["max_depth"] > 6:
            raise MemoryError("no room for deep trees")
        return train(settings, *rest, **more)

    monkeypatch.setattr(trials.xgb, "train", sometimes)
    result = tune(make_spec(), make_matrices(), study_name="s", storage_url=url)
    assert 0 < result.failed < result.trials == 8
    for record in result.records:
        assert (record.state == "failed") == (record.params["max_depth"] > 6)
        assert record.error == ("no room for deep trees" if record.state == "failed" else "")


def test_out_of_time_the_study_ends_with_what_it_has_and_stays_ended(
    url: str, make_spec: MakeSpec, make_matrices: MakeMatrices, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(trials.time, "monotonic", lambda: now[0])

    def pass_time(done: int, total: int, text: str) -> None:
        now[0] += 20.0

    spec = make_spec(tuning={"trials": 40, "timeout": "70s"})
    cut = tune(spec, make_matrices(), study_name="s", storage_url=url, progress=pass_time)
    assert cut.trials == 4
    assert tune(spec, make_matrices(), study_name="s", storage_url=url) == cut


def test_even_with_no_time_at_all_the_first_trial_gives_a_round(
    url: str, make_spec: MakeSpec, make_matrices: MakeMatrices
) -> None:
    spec = make_spec(tuning={"timeout": "0.000001s"})
    result = tune(spec, make_matrices(), study_name="s", storage_url=url, workers=2)
    assert (result.trials, result.best_rounds) == (1, 1)
    assert result.records[0].stopped == "timeout"


def test_a_label_that_the_metric_cannot_use_is_told(
    url: str, make_spec: MakeSpec, make_matrices: MakeMatrices
) -> None:
    one_class = make_matrices()
    one_class = replace(one_class, y_validation=np.zeros_like(one_class.y_validation))
    with pytest.raises(PerennialError) as caught:
        tune(make_spec(tuning={"metric": "roc_auc"}), one_class, study_name="s", storage_url=url)
    assert caught.value.message == (
        "all 4 trials failed; the first: roc_auc on the validation part is nan after 1 rounds: it "
        "needs finite labels, and for a ranking metric rows of every class"
    )


def test_progress_is_told_trial_by_trial_in_order(
    url: str, make_spec: MakeSpec, make_matrices: MakeMatrices
) -> None:
    lines: list[tuple[int, int, str]] = []
    result = tune(
        make_spec(tuning={"trials": 5}),
        make_matrices(),
        study_name="s",
        storage_url=url,
        workers=2,
        progress=lambda *line: lines.append(line),
    )
    assert [(done, total) for done, total, _ in lines] == [(i + 1, 5) for i in range(5)]
    first = result.records[0]
    assert lines[0][2] == (
        f"trial 0 complete: logloss {first.value:.6g} at round {first.rounds}, "
        f"best {first.value:.6g}"
    )


def test_nothing_is_printed_and_nothing_is_warned_of(
    url: str,
    make_spec: MakeSpec,
    make_matrices: MakeMatrices,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    tune(make_spec(), make_matrices(), study_name="s", storage_url=url, workers=2)
    assert capfd.readouterr() == ("", "")
    assert [str(warning.message) for warning in recwarn] == []
