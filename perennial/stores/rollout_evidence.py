"""What a rollout's present step has measured so far, from the prediction log and its labels.

Every look counts anew all that the step has logged, in bounded memory: a controller that was killed
or is there twice measures the same. Intervals hold at every look at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from math import isfinite
from typing import Any

import numpy as np
import pyarrow as pa

from perennial.bundle.outputs import aligned
from perennial.bundle.targets import Target, alike, target_of
from perennial.contracts.errors import InputError, PerennialError, Problem
from perennial.contracts.rollouts import DECISIVE, Guard, Measurement, Rollout
from perennial.decisions.guards import shares
from perennial.decisions.sequential import (
    bernoulli_bounds,
    difference_bounds,
    distribution_bounds,
)
from perennial.learning.metrics import EPSILON
from perennial.spec import ModelSpec
from perennial.stores import engine
from perennial.stores.bundles import open_stored
from perennial.stores.predictions.columns import variants
from perennial.stores.predictions.joining import DUE, LABEL, labelled_rows
from perennial.stores.predictions.tables import open_log
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from perennial.stores.rollout_arms import (
    ARM,
    CHALLENGER,
    CHAMPION,
    ROW,
    Arms,
    Mean,
    Requests,
    columns_of,
    count_requests,
    count_units,
    means,
    numeric,
    reading,
    relation,
    sample,
)

SAMPLED_ROWS = 100_000
"""Most rows of an arm whose predictions are compared: a random part of more."""
_SAMPLED_VALUES = 4_000_000
"""Most probabilities of an arm that are held: of models with many classes fewer rows."""
_UNEVEN_ALPHA = 0.001
"""How often a split that is right is taken for a mismatch, over all looks."""
_LEVEL_SHARE = 0.8
"""Of alpha, for samples of the first level; each further level has a fifth of the one before it,
so that all of them together have no more than alpha."""


def measure(
    project: Project, spec: ModelSpec, rollout: Rollout, now: datetime
) -> tuple[tuple[Measurement, ...], int]:
    """What each guard of the present step measured before ``now``, in the plan's order, and the
    rows that the challenger has answered (in shadow: scored) or failed in it.

    - ``error_rate``, ``latency``: the share of the challenger's requests that failed, or took
      longer than the threshold (in shadow: than scoring took). ``n`` are requests.
    - ``prediction``: the largest distance of the two cumulative distributions of what was
      predicted; with several classes, of the probability of the class that differs most. One
      prediction a unit (see ``rollout_arms``) and at most ``SAMPLED_ROWS``; ``n`` are those.
    - ``metric``: the challenger's mean loss less the champion's, of rows whose label is known *and*
      due: labels that come before they are due are often those of one class. The loss is the
      guard's name: logloss (probabilities clipped at 1.2e-7; a class that a version never saw
      has probability 0), brier, absolute_error or squared_error.
    - ``business``: the champion's mean of the column less the challenger's. A column of model.yaml
      that the log has is read there. Any other came with the labels, as did a regression's label,
      and then rows are due too.

    Of an ``ab_test`` neither of the last two can be measured when the versions were not given the
    units that ``split`` says, by more than chance (a sample ratio mismatch).

    What has no rows yet is not measured (``value`` None). What can't be measured has ``error``: a
    damaged table, a store or registry that doesn't answer, a column that isn't kept. Never raises
    for what is in the data or where it lies.
    """
    look = _Look(project, spec, rollout, now)
    guards = look.arms.step.guards
    counts, wrong = look.requests([g for g in guards if g.kind == "latency"])
    rows = counts.get(CHALLENGER, Requests()).rows
    uneven = look.uneven()
    return tuple(
        Measurement(guard=guard.name, error=uneven)
        if uneven and guard.kind in DECISIVE
        else look.measured(guard, counts, wrong)
        for guard in guards
    ), rows


@dataclass(frozen=True)
class _Look:
    project: Project
    spec: ModelSpec
    rollout: Rollout
    now: datetime

    @property
    def arms(self) -> Arms:
        return Arms(self.rollout, self.now)

    @property
    def alpha(self) -> float:
        return shares(self.rollout.plan)

    def uri(self, kind: str) -> str:
        return self.project.uri(kind, self.spec.name)

    def requests(self, latency: Sequence[Guard]) -> tuple[dict[int, Requests], str]:
        """Both arms' requests, and what kept them from being counted."""
        try:
            with self._connection() as connection:
                answered, failed = (
                    self._relation(connection, kind) for kind in ("predictions", "failures")
                )
                limits = tuple(float(guard.threshold or 0) for guard in latency)
                return dict(count_requests(connection, answered, failed, limits)), ""
        except PerennialError as error:
            return {}, _told(error)

    def uneven(self) -> str:
        """What is wrong with the units that the versions of an ab_test were given; "" when nothing
        is, or that can't be said. (Lindon and Malek, arXiv 2011.03567.)"""
        step, entity = self.arms.step, self.spec.source.entity
        if step.strategy != "ab_test":
            return ""
        try:
            with self._connection() as connection:
                answered, failed = (
                    self._relation(connection, kind) for kind in ("predictions", "failures")
                )
                if answered is None:
                    return ""
                unit = self.arms.unit(self.spec, columns_of(open_log(self.uri("predictions"))))
                if entity and unit == ROW:  # rows of one entity, which the log leaves out, are one
                    return ""
                found = count_units(connection, answered, failed, unit)
        except PerennialError:  # told by what can't be measured then
            return ""
        given, every = found.get(CHALLENGER, 0), sum(found.values())
        low, high = bernoulli_bounds(given, every, _UNEVEN_ALPHA)
        if low <= step.weight / 100 <= high:
            return ""
        units = "entities" if entity else "rows"
        found_share = f"{given:,} of {every:,} {units}, {100 * given / every:.1f} %"
        return (
            f"sample ratio mismatch: version {self.rollout.version} was given {found_share} where "
            f"{step.weight} % were asked for, and that is no chance: something keeps one version's "
            "requests from being sent, answered or logged"
        )

    def measured(self, guard: Guard, counts: dict[int, Requests], wrong: str) -> Measurement:
        if guard.kind in ("error_rate", "latency"):
            if wrong:
                return Measurement(guard=guard.name, error=wrong)
            return self._share(guard, counts)
        ways: dict[str, Callable[[Guard], Measurement]] = {
            "prediction": self._distance,
            "metric": self._loss,
            "business": self._business,
        }
        try:
            return ways[guard.kind](guard)
        except PerennialError as error:
            return Measurement(guard=guard.name, error=_told(error))

    def _share(self, guard: Guard, counts: dict[int, Requests]) -> Measurement:
        found, champion = (counts.get(arm, Requests()) for arm in (CHALLENGER, CHAMPION))
        n = found.requests
        if not n:
            return Measurement(guard=guard.name, n_champion=champion.requests)
        if guard.kind == "error_rate":
            bad = found.failed
        else:
            latency = [g.name for g in self.arms.step.guards if g.kind == "latency"]
            bad = found.slow[latency.index(guard.name)]
        low, high = bernoulli_bounds(bad, n, self.alpha)
        return Measurement(
            guard=guard.name,
            n_champion=champion.requests,
            n_challenger=n,
            value=bad / n,
            low=low,
            high=high,
        )

    def _distance(self, guard: Guard) -> Measurement:
        several = self.spec.objective == "multiclass"
        classes = self._classes()
        every = sorted({n for names in classes.values() for n in names}) if several else []
        most = min(SAMPLED_ROWS, _SAMPLED_VALUES // max(1, len(every)))
        with self._connection() as connection:
            rows = self._relation(connection, "predictions")
            if rows is None:
                return Measurement(guard=guard.name)
            told, usable = "_prediction", "isfinite(_prediction)"
            if several:
                lengths = (f"{ARM} = {arm} AND len(_probabilities) = {len(names)}"
                           for arm, names in classes.items())  # fmt: skip
                told, usable = "_probabilities", f"({' OR '.join(lengths)})"
            unit = self.arms.unit(self.spec, columns_of(open_log(self.uri("predictions"))))
            found = sample(connection, rows, unit, told, usable, most)
        sizes = [len(found[arm].values) if arm in found else 0 for arm in (CHALLENGER, CHAMPION)]
        measured = Measurement(guard=guard.name, n_challenger=sizes[0], n_champion=sizes[1])
        if not all(sizes):
            return measured
        tables = {
            arm: _probabilities(one.values, classes[arm], tuple(every))
            if several
            else one.values.to_numpy()[:, None]
            for arm, one in found.items()
        }
        shared = self.alpha / max(1, len(every))
        for one in found.values():
            shared *= _LEVEL_SHARE * (1 - _LEVEL_SHARE) ** one.level
        distances = [
            distribution_bounds(challenger, champion, shared)
            for challenger, champion in zip(tables[CHALLENGER].T, tables[CHAMPION].T, strict=True)
        ]
        # Each class's interval holds at once with all others, so the largest ends hold the largest.
        value, low, high = (max(float(one[i]) for one in distances) for i in range(3))
        return measured.model_copy(update={"value": value, "low": low, "high": high})

    def _loss(self, guard: Guard) -> Measurement:
        loss = _loss_sql(guard, self.spec, self.arms.sql(), self._classes)
        return self._labelled(guard, loss, (), worse=CHALLENGER)

    def _business(self, guard: Guard) -> Measurement:
        column, spec = guard.column, self.spec
        label = column == spec.label.column
        if label and spec.objective == "regression":
            return self._labelled(guard, LABEL, (), worse=CHAMPION)
        log = columns_of(open_log(self.uri("predictions")))
        if label or column not in spec.columns or not variants(column, log):
            return self._labelled(guard, "_label_metric_0", (column,), worse=CHAMPION)
        value = numeric(column, log)
        if not value:
            fix = "name a column of numbers, of which the log keeps more than a hash"
            raise InputError(Problem(f"column {column!r}", "is no number in the log", fix))
        with self._connection() as connection:
            rows = self._relation(connection, "predictions")
            if rows is None:
                return Measurement(guard=guard.name)
            found = means(
                lambda query: list(connection.execute(query).fetchall()),
                rows, ARM, self.arms.unit(spec, log), value,
            )  # fmt: skip
        return self._difference(guard, found, worse=CHAMPION)

    def _labelled(
        self, guard: Guard, value: str, metrics: tuple[str, ...], *, worse: int
    ) -> Measurement:
        arms, uri = self.arms, self.uri("predictions")
        with labelled_rows(
            self.spec, uri, self.uri("labels"), arms.window, self.now, metrics
        ) as query:
            unit = arms.unit(self.spec, columns_of(open_log(uri)))
            source = f"joined WHERE {LABEL} IS NOT NULL AND {DUE}"
            found = means(query, source, arms.sql(), unit, value)
        return self._difference(guard, found, worse=worse)

    def _difference(self, guard: Guard, found: dict[int, Mean], *, worse: int) -> Measurement:
        """The mean of the arm in which more is worse for the challenger, less the other's."""
        one, other = (found.get(arm) for arm in (worse, 1 - worse))
        rows = {arm: mean.rows for arm, mean in found.items()}
        measured = Measurement(
            guard=guard.name, n_challenger=rows.get(CHALLENGER, 0), n_champion=rows.get(CHAMPION, 0)
        )
        if one is None or other is None:
            return measured
        value = one.mean - other.mean
        bounds = difference_bounds(*_moments(one), *_moments(other), self.alpha)
        low, high = (bound if isfinite(bound) else None for bound in bounds)
        return measured.model_copy(update={"value": value, "low": low, "high": high})

    def _classes(self) -> dict[int, tuple[str, ...]]:
        """The classes of each arm's version, in the order of its probabilities. Raises InputError
        when the two don't predict the same, of two classes the same one."""
        model = self.spec.name
        numbers = {CHALLENGER: self.rollout.version, CHAMPION: self.rollout.champion}
        targets = {arm: _target(self.project, model, number) for arm, number in numbers.items()}
        one, other = targets[CHAMPION], targets[CHALLENGER]
        turned = one.objective == "binary" and one.classes != other.classes
        if turned or not alike(one, other):
            last = ", the last the positive" if turned else ""
            raise InputError(f"the versions don't predict the same: {one} and {other}{last}")
        return {arm: target.classes or () for arm, target in targets.items()}

    def _connection(self) -> AbstractContextManager[Any]:
        return reading(self.uri("predictions"), self.project.home)

    def _relation(self, connection: Any, kind: str) -> str | None:
        table = open_log(self.uri(kind))
        return None if table is None else relation(connection, table, self.uri(kind), self.arms)


def _moments(found: Mean) -> tuple[float, float, int]:
    return found.mean, found.variance, found.units


def _probabilities(
    values: pa.ChunkedArray, known: tuple[str, ...], every: tuple[str, ...]
) -> np.ndarray:
    """Lists of probabilities as (n, classes), in the order of ``every``."""
    flat = values.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return aligned(flat.reshape(-1, len(known)), known, every)


def _loss_sql(
    guard: Guard, spec: ModelSpec, arm: str, classes: Callable[[], dict[int, tuple[str, ...]]]
) -> str:
    """The loss of a row of ``joined``, in SQL; null for a prediction or label that is none."""
    fitting = {
        "binary": ("logloss", "brier"),
        "multiclass": ("logloss",),
        "regression": ("absolute_error", "squared_error"),
    }[spec.objective]
    if guard.name not in fitting:
        what = f"{guard.name!r} is no loss of a {spec.objective} model"
        raise InputError(Problem(f"guard {guard.name!r}", what, f"use {' or '.join(fitting)}"))
    known = classes()
    if spec.objective == "regression":
        error = f"(_prediction - {LABEL})"
        return f"abs({error})" if guard.name == "absolute_error" else f"{error} ** 2"
    if spec.objective == "multiclass":
        return _clipped(_true_probability(known, arm))
    ((negative, positive),) = set(known.values())
    right = (
        f"(CASE {LABEL} WHEN {engine.literal(positive)} THEN _prediction "
        f"WHEN {engine.literal(negative)} THEN 1 - _prediction END)"
    )
    return f"(1 - {right}) ** 2" if guard.name == "brier" else _clipped(right)


def _true_probability(classes: dict[int, tuple[str, ...]], arm: str) -> str:
    """The probability of a row's own class: 0 where its version never saw it, in SQL. Null for a
    label that neither version knows."""
    every = _list(sorted({name for names in classes.values() for name in names}))
    whens = " ".join(
        f"WHEN {number} THEN coalesce(_probabilities[list_position({_list(names)}, {LABEL})], 0)"
        for number, names in classes.items()
    )
    return (
        f"(CASE WHEN _probabilities IS NOT NULL AND list_contains({every}, {LABEL}) "
        f"THEN CASE {arm} {whens} END END)"
    )


def _list(names: Sequence[str]) -> str:
    return f"[{', '.join(engine.literal(name) for name in names)}]"


def _clipped(probability: str) -> str:
    # SQL's greatest and least pass over what is missing, and take NaN for a number.
    inside = f"greatest({EPSILON!r}, least({1 - EPSILON!r}, {probability}))"
    return f"(CASE WHEN isfinite({probability}) THEN -ln({inside}) END)"


@lru_cache(maxsize=64)
def _target(project: Project, model: str, version: int) -> Target:
    registry = Registry(project.registry_url)
    try:
        ref = registry.version(model, version).ref
    finally:
        registry.close()
    return target_of(open_stored(ref, project))


def _told(error: PerennialError) -> str:
    return " ".join(error.message.split())[:500]
