"""Constraints of features, by name in model.yaml: checked against a matrix, and as XGBoost reads
them, by position."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from perennial.contracts.errors import InputError, Problem
from perennial.contracts.features import FeatureSchema
from perennial.spec import ModelSpec
from perennial.spec.parameters import Parameter
from perennial.spec.values import nearest, some


def check_constraints(spec: ModelSpec, schema: FeatureSchema) -> None:
    """Raises InputError for a constraint of what is no feature, and for a direction of a category:
    XGBoost would take one of its levels' places, which mean nothing."""
    known = {feature.name: feature for feature in schema.features}
    problems = []
    for key, names in _constrained(spec.training.params):
        for name in dict.fromkeys(names):
            where = f"model.yaml, training.params.{key}"
            if name not in known:
                what = f"{name!r} is no feature{nearest(name, known)}"
                problems.append(Problem(where, what, f"the features are {some(known, 20)}"))
            elif key == "monotone_constraints" and known[name].levels is not None:
                what = f"{name!r} is a category, which has no direction"
                problems.append(Problem(where, what, "make a number of it in features.py"))
    if problems:
        raise InputError(problems)


def positional(
    params: Mapping[str, Parameter], schema: FeatureSchema
) -> dict[str, float | int | str]:
    """The parameters with constraints as XGBoost reads them: ``(0,1,-1)``, ``[[0,2]]``."""
    place = {feature.name: i for i, feature in enumerate(schema.features)}
    found: dict[str, float | int | str] = {}
    for key, value in params.items():
        if isinstance(value, dict):
            ways = (str(value.get(name, 0)) for name in place)
            found[key] = f"({','.join(ways)})"
        elif isinstance(value, list):
            found[key] = str([[place[name] for name in group] for group in value])
        else:
            found[key] = value
    return found


def _constrained(params: Mapping[str, Parameter]) -> Iterator[tuple[str, list[str]]]:
    for key, value in params.items():
        if isinstance(value, dict):
            yield key, list(value)
        elif isinstance(value, list):
            yield key, [name for group in value for name in group]
