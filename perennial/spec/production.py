"""The sections of model.yaml about a model's life: drift, retraining, rollout, predictions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema

from perennial.spec.cron import check_cron
from perennial.spec.values import (
    Duration,
    Flag,
    Mistake,
    Number,
    PositiveDuration,
    Section,
    Share,
    Text,
    Whole,
    format_duration,
    nearest,
    repeated,
    shown,
)


class Drift(Section):
    """When the world counts as changed."""

    schedule: Annotated[str, AfterValidator(check_cron)] | None = "0 5 * * *"
    """When it is looked, as cron of five fields, UTC; null: by hand only."""
    window: PositiveDuration = timedelta(days=7)
    """How much of the newest data is compared."""
    max_drifted_share: Share = 0.3
    """The share of columns that may drift, each weighed by its importance to the model."""
    false_alarm_rate: Annotated[Number, Field(gt=0, lt=1)] = 0.01
    """How often a comparison may find drift where there is none, in any of the columns."""
    min_effect: Share = 0.1
    """The least change of a column that matters, as the Jensen-Shannon distance (base 2) of what it
    held and holds; 0.1 is a shift by a quarter of a standard deviation, or 2 % of the rows turning
    into something new."""


def _causes_once(retrain: Retrain) -> Iterator[Mistake]:
    yield from repeated(retrain.on, "on")


class Retrain(Section):
    """What starts a retraining."""

    schedule: Annotated[str, AfterValidator(check_cron)] | None = None
    """Cron of five fields, UTC."""
    on: tuple[Literal["drift", "performance", "data"], ...] = ()
    """The events that start one."""
    cooldown: Duration = timedelta(hours=6)
    """How long after one the next may begin; only by hand sooner. For events it doubles, from an
    hour at least up to a week, with each in a row that gave no better version, by hand or not."""
    max_a_day: Annotated[Whole, Field(ge=1, le=100)] = 4
    """The most in any 24 hours; only by hand more."""

    rules = (_causes_once,)


class Metric(Section):
    """How much worse than the champion a version may do by late labels."""

    name: Literal["logloss", "brier", "absolute_error", "squared_error"]
    """The loss of one row: logloss of a classifier, brier of a binary one, the others of a
    regression."""
    max_loss: Annotated[Number, Field(ge=0)]
    """By how much its mean may exceed the champion's, in the loss's unit."""


class Business(Section):
    """How much less of something a version may bring in than the champion."""

    column: Text
    """A number, the better the greater: a float, integer or boolean column that the log keeps, a
    regression's label, else what comes with the labels under this name."""
    max_loss: Annotated[Number, Field(ge=0)]
    """By how much its mean a row may fall short of the champion's, in its unit."""


def _business_once(guards: Guards) -> Iterator[Mistake]:
    yield from repeated((guard.column for guard in guards.business), "business")


class Guards(Section):
    """What sends a rollout back; a guard that is not given is not watched."""

    error_rate: Share | None = None
    """The most requests that may fail, as a share."""
    p50_ms: Annotated[Number, Field(gt=0)] | None = None
    """The most the median of latency may be, in milliseconds."""
    p95_ms: Annotated[Number, Field(gt=0)] | None = None
    """The 95th percentile of latency, in milliseconds."""
    p99_ms: Annotated[Number, Field(gt=0)] | None = None
    """The 99th percentile of latency, in milliseconds."""
    prediction_shift: Share | None = None
    """How far the distribution of predictions may be from the champion's: the largest distance of
    the two cumulative distributions, 0 to 1."""
    metric: Metric | None = None
    """The mean loss by late labels, beside the champion's."""
    business: tuple[Business, ...] = ()
    """What versions bring in, beside the champion."""

    rules = (_business_once,)

    @property
    def by_labels(self) -> bool:
        """Whether any of them waits for labels."""
        return self.metric is not None or bool(self.business)

    @property
    def given(self) -> bool:
        """Whether anything is watched."""
        watched = (getattr(self, key) for key in type(self).model_fields)
        return any(value is not None and value != () for value in watched)


class Limits(Section):
    """How many checks of a step may end so; one more ends the rollout, or pauses it."""

    failed: Annotated[Whole, Field(ge=0)] = 0
    """Checks in which a guard was surely beyond its limit; one more rolls back."""
    inconclusive: Annotated[Whole, Field(ge=0)] | None = None
    """Checks that said too little; one more pauses the rollout, for a person to decide. By default
    it is waited for the timeout."""
    error: Annotated[Whole, Field(ge=0)] = 4
    """Checks in a row that could not be measured; one more rolls back."""


Strategy = Literal["shadow", "canary", "blue_green", "ab_test"]
_ORDER: tuple[tuple[Strategy, ...], ...] = (("shadow",), ("ab_test",), ("canary", "blue_green"))


def _strategies(value: object) -> object:
    """One strategy, or a list of them, in the words of the choices."""
    names = value if isinstance(value, list | tuple) else [value]
    for name in names:
        if not isinstance(name, str) or name not in get_args(Strategy):
            hint = nearest(name, get_args(Strategy)) if isinstance(name, str) else ""
            valid = ", ".join(get_args(Strategy))
            raise ValueError(f"{shown(name)} is not one of {valid}{hint}")
    if not names:
        raise ValueError("must not be empty")
    return tuple(names) if isinstance(value, list | tuple) else value


Strategies = Annotated[
    Strategy | tuple[Strategy, ...],
    PlainValidator(_strategies),
    PlainSerializer(lambda v: v if isinstance(v, str) else list(v)),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "enum": list(get_args(Strategy))},
                {
                    "type": "array",
                    "items": {"type": "string", "enum": list(get_args(Strategy))},
                    "minItems": 1,
                },
            ]
        }
    ),
]
"""A strategy, or several one after the other."""


def _approval(value: object) -> object:
    if isinstance(value, bool):
        return value
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"expected true, false or a list of percents, not {shown(value)}")
    for percent in value:
        if isinstance(percent, bool) or not isinstance(percent, int):
            raise ValueError(f"expected a whole number of percent, not {shown(percent)}")
    return tuple(value)


Approval = Annotated[
    bool | tuple[int, ...],
    PlainValidator(_approval),
    PlainSerializer(lambda v: v if isinstance(v, bool) else list(v)),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "boolean"},
                {"type": "array", "items": {"type": "integer"}, "minItems": 1},
            ]
        }
    ),
]


def _in_order(rollout: Rollout) -> Iterator[Mistake]:
    places = [
        next(i for i, stage in enumerate(_ORDER) if name in stage) for name in rollout.strategies
    ]
    if places != sorted(set(places)):
        chain = ", ".join(rollout.strategies)
        yield (
            "strategy",
            f"a chain is of shadow, ab_test and then canary or blue_green, not [{chain}]",
        )


def _steps_rise(rollout: Rollout) -> Iterator[Mistake]:
    if list(rollout.steps) != sorted(set(rollout.steps)) or rollout.steps[-1] != 100:
        yield "steps", f"steps rise and end at 100, not {list(rollout.steps)}"
    elif {"ab_test", "canary"} <= {*rollout.strategies} and rollout.steps[0] < rollout.split:
        yield (
            "steps",
            f"the canary takes over from ab_test's split of {rollout.split} %; "
            f"begin at that or above, not at {rollout.steps[0]}",
        )


def _of_its_strategy(rollout: Rollout) -> Iterator[Mistake]:
    """A key that nothing reads is a misunderstanding."""
    by = "ab_test"
    if "split" in rollout.model_fields_set and by not in rollout.strategies:
        yield "split", f"only an {by} has a split; write strategy: {by}"
    by = "canary"
    if "steps" in rollout.model_fields_set and by not in rollout.strategies:
        yield "steps", f"only a {by} has steps; write strategy: {by}"
    if isinstance(rollout.approval, bool):
        return
    if by not in rollout.strategies:
        yield "approval", f"only a {by} has percents to approve; write true, or strategy: {by}"
        return
    for i, percent in enumerate(rollout.approval):
        if percent not in rollout.steps:
            steps = ", ".join(map(str, rollout.steps))
            yield f"approval.{i}", f"{percent} is none of the steps {steps}"


_OF_GUARDS = ("timeout", "min_requests", "alpha", "limits", "check_every")
"""Keys of a rollout that say how it is guarded."""


def _watched(rollout: Rollout) -> Iterator[Mistake]:
    """A step that nothing guards is never successful, since nothing is measured of it."""
    if rollout.guards.given:
        if "ab_test" in rollout.strategies and not rollout.guards.by_labels:
            yield "guards", "an ab_test decides by labels; give metric or business"
        return
    if rollout.strategies != ("blue_green",):
        names = " and ".join(rollout.strategies)
        need = "need" if len(rollout.strategies) > 1 else "needs"
        yield "guards", f"{names} {need} a guard, such as error_rate: 0.01; none is given"
        return
    unread = ["approval"] if rollout.approval is not False else []
    unread += ["bake"] if "bake" in rollout.model_fields_set and rollout.bake else []
    unread += [key for key in _OF_GUARDS if key in rollout.model_fields_set]
    if unread:
        have, those = ("have", "them") if len(unread) > 1 else ("has", unread[0])
        yield (
            "guards",
            f"without a guard a blue_green switches at once, and {', '.join(unread)} {have} no "
            f"meaning; give a guard, such as error_rate: 0.01, or remove {those}",
        )


def _time_enough(rollout: Rollout) -> Iterator[Mistake]:
    if rollout.timeout <= rollout.bake:
        yield (
            "timeout",
            f"a step lasts {format_duration(rollout.bake)} at least (bake), so the longest must be "
            f"above that, not {format_duration(rollout.timeout)}",
        )


class Rollout(Section):
    """How a registered version takes over traffic. Without guards it does so at once."""

    strategy: Strategies = "blue_green"
    """`shadow`: it sees copies of requests and answers nobody. `ab_test`: it answers a fixed split
    until one of the two is surely better. `canary`: its share grows step by step. `blue_green`: all
    requests at once, the old version kept loaded. Or several, in this order, such as
    `[shadow, canary]`."""
    steps: Annotated[tuple[Annotated[Whole, Field(ge=1, le=100)], ...], Field(min_length=1)] = (
        5, 25, 50, 100,
    )  # fmt: skip
    """Of a canary: percent of the requests, step by step."""
    split: Annotated[Whole, Field(ge=1, le=99)] = 50
    """Of an ab_test: the new version's percent of the requests."""
    bake: Duration = timedelta(minutes=10)
    """The least time at a step."""
    timeout: PositiveDuration = timedelta(hours=24)
    """The most time at a step; what was not shown to be good by then is rolled back, and an ab_test
    ends without a difference. The wait for a person doesn't count."""
    min_requests: Annotated[Whole, Field(ge=1)] = 100
    """The least rows that the new version must have answered at a step, and of which a guard by
    labels must have the label; in an ab_test, in both arms."""
    approval: Approval = False
    """`true`: every step that gives the version more requests begins when a person approves; or the
    percents of a canary that wait."""
    alpha: Annotated[Number, Field(gt=0, lt=1)] = 0.05
    """The most that a version which does no harm may be rolled back with, by chance, over the whole
    rollout, however often it is looked."""
    limits: Limits = Limits()
    check_every: PositiveDuration = timedelta(seconds=3)
    """Between two looks at the guards."""
    guards: Guards = Guards()

    rules = (_in_order, _steps_rise, _of_its_strategy, _watched, _time_enough)

    @property
    def strategies(self) -> tuple[Strategy, ...]:
        """The strategies one after the other."""
        return (self.strategy,) if isinstance(self.strategy, str) else self.strategy


def _hashed_or_omitted(log: Log) -> Iterator[Mistake]:
    yield from repeated(log.hash, "hash")
    yield from repeated(log.omit, "omit")
    for i, column in enumerate(log.omit):
        if column in log.hash:
            yield f"omit.{i}", f"{column!r} is hashed already; a column is hashed or left out"


def _whole_days(log: Log) -> Iterator[Mistake]:
    if log.keep < timedelta(days=1):
        yield "keep", "rows expire by whole days; keep them for 1d at least"


class Log(Section):
    """What is kept of the predictions that a server makes, and of the labels it takes. It belongs
    to the model, not to a version: a change here makes no new candidate."""

    enabled: Flag = True
    """Log every prediction with its inputs. Without it nothing can be learnt from production."""
    hash: tuple[Text, ...] = ()
    """Category, string or integer columns of which only a keyed hash is kept; the key is
    PERENNIAL_HASH_KEY."""
    omit: tuple[Text, ...] = ()
    """Columns of which nothing is kept."""
    keep: PositiveDuration = timedelta(days=400)
    """How long rows are kept, in whole days of UTC; what expired is off the disk a day later."""
    compact_files: Annotated[Whole, Field(ge=2, le=10_000)] = 64
    """How many small files of one day are put together into one."""

    rules = (_hashed_or_omitted, _whole_days)
