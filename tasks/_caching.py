"""Cache keys, explicit: what a stage reads decides whether it runs.

A key is made of the stage's name, its input references, the sections of model.yaml it uses, the
text of features.py where it runs it, a fingerprint of Perennial's own code, and the versions of the
libraries that decide its result. Prefect's TASK_SOURCE would see only a task's own few lines.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.results import ResultStore, get_result_store
from pydantic_core import to_jsonable_python

import perennial
from perennial.contracts.refs import DatasetRef, ModelRef, StagedRef, ValidationRef
from perennial.contracts.runs import RouteRef
from perennial.stores.artefacts import intact
from tasks._definition import read_definition


@dataclass
class Stage(CachePolicy):
    """The cache policy of one stage.

    ``sections`` name the keys of model.yaml the stage uses; ``feature_code`` says that it runs or
    keeps features.py; ``compute`` that the kind of compute makes a difference to its result;
    ``libraries`` are distributions whose versions decide the result.

    A cached reference whose target is gone or damaged is a miss, so is a dataset whose table has
    changed since, or as of now to which the clock alone has added labels, so are rows staged of a
    database, and so is every stage of a run with ``force``: the new result is stored as the key's
    next generation.
    """

    name: str = ""
    sections: tuple[str, ...] = ()
    feature_code: bool = False
    compute: bool = False
    libraries: tuple[str, ...] = ()

    def compute_key(
        self,
        task_ctx: TaskRunContext,  # noqa: ARG002 (Prefect's signature)
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,  # noqa: ARG002
    ) -> str:
        forced = bool(flow_parameters.get("force"))
        holds = partial(_holds, inputs)
        return _generation(self.base_key(inputs), get_result_store(), forced, holds)

    def base_key(self, inputs: dict[str, Any]) -> str:
        """The key without its generation: the stage's name and 32 hexadecimal digits."""
        parts = {
            "inputs": {name: self._identity(value) for name, value in inputs.items()},
            "code": code_fingerprint(),
            "libraries": self.versions(),
        }
        text = json.dumps(parts, sort_keys=True)
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    def versions(self) -> dict[str, str]:
        """The versions of the libraries that decide the result."""
        return {name: version(name) for name in self.libraries}

    def _identity(self, value: object) -> object:
        """What of an input decides the result: a model's used sections, a dataset's content."""
        if isinstance(value, ModelRef):
            spec = read_definition(value).model_dump(mode="json")
            used = {section: spec[section] for section in ("name", *self.sections)}
            if self.compute:
                used["compute"] = spec["compute"]["kind"]
            return [used, value.code_digest if self.feature_code else ""]
        if isinstance(value, DatasetRef):  # a later version that changed nothing in the window
            return value.model_dump(mode="json", exclude={"version"})
        if isinstance(value, RouteRef):  # who is beaten, not how often the route changed
            return value.champion.digest if value.champion else None
        if isinstance(value, ValidationRef):  # that the batch may be published, not what was noted
            return value.passed
        return to_jsonable_python(value)


def _holds(inputs: Mapping[str, Any], result: object) -> bool:
    """Whether a cached result would come out the same again."""
    if not intact(result):
        return False
    if isinstance(result, StagedRef):
        return bool(inputs["source"].kind != "sql")  # an UPDATE leaves no trace that a look finds
    if isinstance(result, DatasetRef):
        from perennial.stores import lake, tables

        if lake.version_of(result.uri) != result.version:  # a change may have been taken back
            return False
        if inputs.get("as_of") is None:
            return tables.is_current(read_definition(inputs["model"]), result)
    return True


def _generation(
    base: str, store: ResultStore, forced: bool, holds: Callable[[object], bool] = intact
) -> str:
    generation = 0
    while store.exists(f"{base}-{generation}"):
        generation += 1
    if generation and not forced:
        newest = f"{base}-{generation - 1}"
        if holds(store.read(newest).result):
            return newest
    return f"{base}-{generation}"


@cache
def code_fingerprint() -> str:
    """Digest of the code that decides results: the package without its command line and service,
    and the tasks. Constant within a process."""
    return fingerprint(Path(perennial.__file__).parent, Path(__file__).parent)


def fingerprint(package: Path, tasks: Path) -> str:
    """Digest of the Python files and page templates below two folders, by path and content."""
    digest = hashlib.sha256()
    for folder in (package, tasks):
        for path in sorted(p for p in folder.rglob("*") if p.suffix in (".py", ".j2")):
            relative = path.relative_to(folder)
            if folder == package and relative.parts[0] in ("cli.py", "cli", "serving"):
                continue
            digest.update(f"{folder.name}/{relative.as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]
