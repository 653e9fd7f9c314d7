"""The section of model.yaml that makes a model of other models."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from perennial.spec.values import Mistake, Number, Section, check_name, nearest, repeated, shown

_PINNED = re.compile(r"^(.+)@([1-9][0-9]{0,8})$")


def member_of(text: str) -> tuple[str, int | None]:
    """The model that ``demand`` or ``demand@3`` names, and its version; None: the champion."""
    pinned = _PINNED.fullmatch(text)
    return (text, None) if pinned is None else (pinned[1], int(pinned[2]))


def _check_member(value: str) -> str:
    model, version = member_of(value)
    if version is None and "@" in model:
        raise ValueError(f"{shown(value)} is not NAME or NAME@VERSION, such as demand@3")
    check_name(model)
    return value


Part = Annotated[
    str,
    AfterValidator(_check_member),
    Field(
        json_schema_extra={"pattern": r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(@[1-9][0-9]{0,8})?$"}
    ),
]


def _several_members(ensemble: Ensemble) -> Iterator[Mistake]:
    if len(ensemble.of) < 2:
        yield "of", "an ensemble has two members at least"
    yield from repeated(ensemble.of, "of")


def _weights_fit(ensemble: Ensemble) -> Iterator[Mistake]:
    weights = ensemble.weights
    if weights is None:
        return
    if ensemble.combine != "mean":
        yield "weights", f"only a mean has weights, this is {ensemble.combine}"
    for name in weights:
        if name not in ensemble.of:
            yield f"weights.{name}", f"no member {name!r}{nearest(name, ensemble.of)}"
    absent = [name for name in ensemble.of if name not in weights]
    if absent:
        yield "weights", f"no weight for {', '.join(absent)}; 0 leaves a member out of the mean"
    elif not any(weights.values()):
        yield "weights", "one weight must be above 0"


class Ensemble(Section):
    """A model of registered versions of other models: their predictions are its features."""

    of: Annotated[tuple[Part, ...], Field(json_schema_extra={"minItems": 2})]
    """Models by name, which stands for the champion at the moment of training, or pinned to a
    version: `demand@3`. All have this model's objective and read columns that it declares."""
    combine: Literal["mean", "stacking"] = "mean"
    """mean: their weighted mean, for which `tuning.metric` is read and nothing else of `training`
    and `tuning`; stacking: a booster, tuned as any other, over their predictions."""
    weights: dict[str, Annotated[Number, Field(ge=0)]] | None = None
    """mean only: a weight for each member, of any sum; by default those that predict the validation
    part best."""
    overlap: Literal["drop", "keep"] = "drop"
    """What becomes of rows that a member may have been fitted on, by event time. drop: nothing is
    fitted or judged on them; keep: they are used, and figures flatter the ensemble."""

    rules = (_several_members, _weights_fit)
