"""What a study searches, where it starts, and what it tries next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from perennial.spec import ModelSpec
from perennial.spec.schema import Range

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

Params = dict[str, float | int]

XGBOOST_DEFAULTS: Params = {
    "learning_rate": 0.3, "max_depth": 6, "max_leaves": 0, "min_child_weight": 1, "subsample": 1.0,
    "colsample_bytree": 1.0, "colsample_bylevel": 1.0, "colsample_bynode": 1.0, "reg_alpha": 0.0,
    "reg_lambda": 1.0, "gamma": 0.0, "max_bin": 256, "max_delta_step": 0.0, "max_cat_to_onehot": 4,
    "max_cat_threshold": 64, "scale_pos_weight": 1.0,
}  # fmt: skip


def searched(spec: ModelSpec) -> dict[str, Range]:
    """The parameters a study varies, by name; what ``training.params`` fixes is not among them."""
    space = spec.tuning.space
    return {name: space[name] for name in sorted(space) if name not in spec.training.params}


def clipped(params: Mapping[str, object], space: Mapping[str, Range]) -> Params:
    """The point of the space nearest to ``params``; XGBoost's defaults stand for what they lack."""
    point: Params = {}
    for name, ends in space.items():
        value = params.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            value = XGBOOST_DEFAULTS[name]
        inside = min(max(value, ends.low), ends.high)
        point[name] = round(inside) if ends.whole else float(inside)
    return point


def starting_points(
    space: Mapping[str, Range], former: Sequence[Mapping[str, object]], limit: int
) -> list[Params]:
    """What a new study tries first: at most ``limit`` former best parameters, the first ones given;
    without any, XGBoost's defaults. Clipped to the space, each point once."""
    points: list[Params] = []
    for params in former[:limit] or [XGBOOST_DEFAULTS]:
        point = clipped(params, space)
        if point not in points:
            points.append(point)
    return points


def propose(
    space: Mapping[str, Range],
    history: Sequence[FrozenTrial],
    *,
    greater_is_better: bool,
    seed: Sequence[int],
) -> Iterator[Params]:
    """Points to try after ``history``, without end; each is aware of those given before it.

    A pure function of its arguments (tree-structured Parzen estimator, multivariate, with the
    constant liar: Bergstra et al. 2011, Falkner et al. 2018), so a study that was interrupted goes
    on as if it had not been.
    """
    from optuna.samplers import TPESampler

    entropy = np.random.SeedSequence(seed).generate_state(1)[0]
    study = _study(history, TPESampler(seed=int(entropy)), greater_is_better)
    domains = distributions(space)
    while True:
        yield dict(study.ask(domains).params)


def parameter_importance(
    history: Sequence[FrozenTrial], *, greater_is_better: bool
) -> dict[str, float]:
    """How much each parameter mattered, as shares of 1, the largest first (PED-ANOVA: Watanabe,
    Bansal, Hutter, IJCAI 2023). Trials that were given up count with what they had reached. Empty
    with fewer than four that reached anything, or when all of those came to the same value."""
    from optuna.importance import get_param_importances
    from optuna.trial import create_trial

    reached = [
        create_trial(value=trial.value, params=trial.params, distributions=trial.distributions)
        for trial in history
        if trial.value is not None
    ]
    if len(reached) < 4 or len({trial.value for trial in reached}) == 1:
        return {}
    return dict(get_param_importances(_study(reached, None, greater_is_better)))


def _study(
    history: Sequence[FrozenTrial], sampler: BaseSampler | None, greater_is_better: bool
) -> optuna.Study:
    """A study in memory."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        direction="maximize" if greater_is_better else "minimize", sampler=sampler
    )
    study.add_trials(history)
    return study


def distributions(space: Mapping[str, Range]) -> dict[str, BaseDistribution]:
    """Optuna's form of the space."""
    from optuna.distributions import FloatDistribution, IntDistribution

    return {
        name: IntDistribution(int(ends.low), int(ends.high), log=ends.log)
        if ends.whole
        else FloatDistribution(ends.low, ends.high, log=ends.log)
        for name, ends in space.items()
    }
