"""deploy.yaml: where flows run, in the words of prefect.yaml. Without the file they run on the
process pool of the embedded stack.

What all flows of all models share stands at the top; ``flows`` says otherwise for a flow,
``models`` for a model, ``flows`` below a model for one flow of it, and the narrower wins: a name or
a ``pull`` as a whole, job variables key by key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError

from perennial.contracts.errors import InputError, Problem
from perennial.spec.documents import read_document
from perennial.spec.messages import problems_of
from perennial.spec.values import Mistake, Section, Text, nearest

WORK_POOL = "perennial"
FILE_NAME = "deploy.yaml"

Flow = Literal["continuous-training", "drift-watch", "rollout", "batch-scoring", "backtest"]
FLOWS: tuple[str, ...] = get_args(Flow)

_DEFAULT = {
    "name": WORK_POOL,
    "job_variables": {"env": {"PREFECT_LOCAL_STORAGE_PATH": ".perennial/results"}},
}


def _no_blocks(pool: WorkPool) -> Iterator[Mistake]:
    if re.search(r"\{\{\s*prefect\.blocks\.", str(pool.job_variables)):
        yield (
            "job_variables",
            "prefect deploy would put the block's value into the deployment, for everybody to "
            "read; a pull step or the work pool's template may name blocks",
        )


class WorkPool(Section):
    """As in prefect.yaml; what is left out is as a wider place has it."""

    rules = (_no_blocks,)

    name: Text | None = None
    work_queue_name: Text | None = None
    job_variables: dict[Text, Any] = Field(default_factory=dict)


class Place(Section):
    """Where runs of something go, and how they get at the project's files."""

    work_pool: WorkPool = WorkPool()
    pull: tuple[dict[Text, Any], ...] | None = None
    """Prefect's pull steps."""


def _known_flows(places: Places) -> Iterator[Mistake]:
    for name in places.flows:
        if name not in FLOWS:
            known = f" (known: {', '.join(FLOWS)})"
            yield f"flows.{name}", f"no such flow{nearest(name, FLOWS) or known}"


class Places(Place):
    """Of one model, or of all."""

    rules = (_known_flows,)
    flows: dict[Text, Place] = Field(default_factory=dict)


class Deploy(Places):
    """The whole file."""

    models: dict[Text, Places] = Field(default_factory=dict)

    def of(self, model: str, flow: Flow) -> dict[str, Any]:
        """``work_pool`` and, where any was asked for, ``pull`` of a deployment in prefect.yaml."""
        pool: dict[str, Any] = _DEFAULT
        pull = None
        own = self.models.get(model, Places())
        for place in (self, self.flows.get(flow), own, own.flows.get(flow)):
            if place is not None:
                pool = _merged(pool, place.work_pool.model_dump(exclude_none=True))
                pull = place.pull if place.pull is not None else pull
        return {"work_pool": pool} if pull is None else {"pull": list(pull), "work_pool": pool}

    def check(self, models: Sequence[str], where: str = FILE_NAME) -> None:
        """Raises InputError for models that there are not."""
        unknown = [name for name in self.models if name not in models]
        if unknown:
            fix = f"models here: {', '.join(sorted(models))}"
            raise InputError(
                [
                    Problem(f"{where}, models", f"no model {name!r}{nearest(name, models)}", fix)
                    for name in unknown
                ]
            )


def load_deploy(path: Path) -> Deploy:
    """Read a deploy.yaml; one that isn't there says nothing. Raises InputError with every mistake
    at once."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Deploy()
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(Problem(str(path), f"can't be read: {error}")) from None
    if not any(line.split("#")[0].strip() for line in text.splitlines()):
        return Deploy()
    try:
        return Deploy.model_validate(read_document(text, str(path)))
    except ValidationError as error:
        errors = error.errors(include_url=False)
        raise InputError(list(problems_of(errors, str(path), Deploy))) from None


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Both, key by key at every depth; where both have a value, the other's."""
    merged = dict(one)
    for key, value in other.items():
        there = merged.get(key)
        both = isinstance(there, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(there, value) if both else value  # type: ignore[arg-type]
    return merged
