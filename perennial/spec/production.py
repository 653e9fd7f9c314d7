"""The sections of model.yaml about a model's life: drift, retraining, rollout, predictions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

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
    repeated,
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
    """How long after one the next may begin; only by hand sooner. For events it doubles with each
    in a row that gave no better version, up to a week."""
    max_a_day: Annotated[Whole, Field(ge=1, le=100)] = 4
    """The most in any 24 hours; only by hand more."""

    rules = (_causes_once,)


class Guards(Section):
    """What sends a rollout back; a guard that is not given is not watched."""

    error_rate: Share | None = None
    """The most requests that may fail, as a share."""
    p99_ms: Annotated[Number, Field(gt=0)] | None = None
    """The 99th percentile of latency, in milliseconds."""


def _steps_rise(rollout: Rollout) -> Iterator[Mistake]:
    if list(rollout.steps) != sorted(set(rollout.steps)) or rollout.steps[-1] != 100:
        yield "steps", f"steps rise and end at 100, not {list(rollout.steps)}"


class Rollout(Section):
    """How a registered version takes over traffic."""

    strategy: Literal["shadow", "canary", "blue_green", "ab_test"] = "canary"
    """How the old and the new version share requests."""
    steps: Annotated[tuple[Annotated[Whole, Field(ge=1, le=100)], ...], Field(min_length=1)] = (
        5, 25, 50, 100,
    )  # fmt: skip
    """Percent of the requests, step by step."""
    bake: Duration = timedelta(minutes=10)
    """The least time at a step."""
    guards: Guards = Guards()

    rules = (_steps_rise,)


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
