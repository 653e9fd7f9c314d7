"""The XGBoost parameters a model.yaml may fix or search, and what each may be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import GetJsonSchemaHandler, PlainValidator, WithJsonSchema, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from perennial.spec.values import Bound, Flag, Mistake, Section, nearest, shown


@dataclass(frozen=True, slots=True)
class Domain:
    """The numbers a parameter takes: ``low <= x <= high``, or ``low < x`` when it is open."""

    low: float = 0
    high: float = math.inf
    open: bool = False
    whole: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.open else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        if math.isinf(self.low):
            return "any number"
        low = f"above {self.low:g}" if self.open else f"at least {self.low:g}"
        return low if math.isinf(self.high) else f"{low} and at most {self.high:g}"


_SHARE = Domain(0, 1, open=True)
_COUNT = Domain(1, whole=True)

DOMAINS: dict[str, Domain] = {
    "learning_rate": _SHARE,
    "max_depth": Domain(whole=True),
    "max_leaves": Domain(whole=True),
    "min_child_weight": Domain(),
    "subsample": _SHARE,
    "colsample_bytree": _SHARE,
    "colsample_bylevel": _SHARE,
    "colsample_bynode": _SHARE,
    "reg_alpha": Domain(),
    "reg_lambda": Domain(),
    "gamma": Domain(),
    "max_bin": Domain(2, whole=True),
    "max_delta_step": Domain(),
    "max_cat_to_onehot": _COUNT,
    "max_cat_threshold": _COUNT,
    "scale_pos_weight": Domain(open=True),
    "num_parallel_tree": _COUNT,
    "base_score": Domain(-math.inf),
}
OF_OBJECTIVES = {
    "scale_pos_weight": "; binary only",
    "base_score": "; of a binary model a probability; of a multiclass model none",
}
"""What rules across keys say of a parameter, for the reference."""
CHOICES: dict[str, tuple[str, ...]] = {
    "grow_policy": ("depthwise", "lossguide"),
    "sampling_method": ("uniform", "gradient_based"),
}
"""Parameters that are text, and what each may be."""
CONSTRAINTS = {
    "monotone_constraints": "{price: -1, income: 1}",
    "interaction_constraints": "[[height, weight], [age]]",
}
"""Parameters that are about features, by their names; as they are written."""

SETTABLE = (*DOMAINS, *CHOICES, *CONSTRAINTS)
TUNABLE = tuple(name for name in DOMAINS if name not in ("num_parallel_tree", "base_score"))

_ALIASES = {
    "eta": "learning_rate",
    "alpha": "reg_alpha",
    "lambda": "reg_lambda",
    "min_split_loss": "gamma",
}
_SET_ELSEWHERE = {
    "objective": "objective",
    "eval_metric": "tuning.metric",
    "num_class": "objective",
    "seed": "training.seed",
    "random_state": "training.seed",
    "device": "training.device",
    "num_boost_round": "training.rounds",
    "n_estimators": "training.rounds",
    "early_stopping_rounds": "training.early_stopping_rounds",
}


def _ends_in_order(ends: Range) -> Iterator[Mistake]:
    if ends.low >= ends.high:
        yield "", f"low {ends.low:g} is not below high {ends.high:g}"
    if ends.log and ends.low <= 0:
        yield "low", f"a logarithmic range starts above 0, not at {ends.low:g}"


class Range(Section):
    """What a parameter is searched over, both ends included: `[low, high]` or the keys."""

    rules = (_ends_in_order,)
    low: Bound
    """Inclusive."""
    high: Bound
    """Inclusive."""
    log: Flag = False
    """Search the logarithm."""

    @property
    def whole(self) -> bool:
        """Both ends are whole numbers, so every value tried is."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if isinstance(value, list | tuple) and len(value) == 2:
            return {"low": value[0], "high": value[1]}
        if not isinstance(value, dict | Range):
            raise ValueError(
                f"{shown(value)} is not a range; write [low, high] or {{low: …, high: …, log: …}}"
            )
        return value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        keys = handler.resolve_ref_schema(handler(schema))
        number = {"type": "number"}
        pair = {"type": "array", "items": number, "minItems": 2, "maxItems": 2}
        return {"description": keys.pop("description"), "oneOf": [pair, keys]}


DEFAULT_SPACE: dict[str, Range] = {
    "learning_rate": Range(low=0.03, high=0.3, log=True),
    "max_depth": Range(low=3, high=10),
    "min_child_weight": Range(low=1, high=100, log=True),
    "subsample": Range(low=0.5, high=1.0),
    "colsample_bytree": Range(low=0.4, high=1.0),
    "reg_lambda": Range(low=0.1, high=30, log=True),
}


def _setting(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str | int | float | dict | list):
        raise ValueError(f"expected a number, text or features, not {shown(value)}")
    return value


Parameter = float | int | str | dict[str, int] | list[list[str]]
"""A fixed parameter: a number, text, or a constraint of features by their names."""
Setting = Annotated[
    Parameter,
    PlainValidator(_setting),
    WithJsonSchema({"type": ["number", "string", "object", "array"]}),
]


def setting_mistakes(name: str, value: Parameter) -> Iterator[str]:
    """What is wrong with a fixed parameter: an unknown name, or a value no booster would take."""
    if name == "tree_method":
        yield "this is always hist, which the rows are put in bins for; leave it out"
    elif name in _SET_ELSEWHERE:
        yield f"this is set by {_SET_ELSEWHERE[name]}"
    elif name not in SETTABLE:
        yield f"not a parameter that can be set{parameter_hint(name, SETTABLE)}"
    elif name in CHOICES:
        choices = CHOICES[name]
        if not isinstance(value, str):
            yield f"expected text, not {shown(value)}"
        elif value not in choices:
            yield f"{value!r} is not one of {', '.join(choices)}{nearest(value, choices)}"
    elif name in CONSTRAINTS:
        if not _constrains(name, value):
            yield f"write names of features, such as {CONSTRAINTS[name]}; not {shown(value)}"
    elif not isinstance(value, int | float):
        yield f"expected a number, not {shown(value)}"
    else:
        yield from number_mistakes(name, value)


def _constrains(name: str, value: object) -> bool:
    """Whether a value has the form of this constraint."""
    if name == "monotone_constraints":
        return isinstance(value, dict) and all(
            isinstance(feature, str) and type(way) is int and way in (-1, 0, 1)
            for feature, way in value.items()
        )
    return isinstance(value, list) and all(
        isinstance(group, list) and group and all(isinstance(feature, str) for feature in group)
        for group in value
    )


def number_mistakes(name: str, value: float) -> Iterator[str]:
    """What is wrong with a number for a parameter; nothing when the parameter is unknown."""
    domain = DOMAINS.get(name)
    if domain is None:
        return
    if domain.whole and not isinstance(value, int):
        yield f"{name} is a whole number, not {value:g}"
    elif value not in domain or math.isinf(value):
        yield f"{name} is {domain}, not {value:g}"


def parameter_hint(name: str, valid: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for an alias or a misspelling of a valid parameter, or nothing."""
    return f"; did you mean {_ALIASES[name]!r}?" if name in _ALIASES else nearest(name, valid)
