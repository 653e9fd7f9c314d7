"""From a registered version back to its inputs, and what training again says about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from perennial.contracts.errors import InputError, Problem
from perennial.contracts.refs import BundleRef, StudyRef
from perennial.contracts.runs import Recalled, ReproductionSummary
from perennial.reports.markdown import plain
from perennial.spec import spec_text
from perennial.stores import tables
from perennial.stores.bundles import open_stored
from perennial.stores.ensembles import members_within
from perennial.stores.folders import write_file
from perennial.stores.project import KEPT_SPEC, Project, load_model
from perennial.stores.registry import Registry
from perennial.stores.trained import dataset_of
from tasks._definition import read_definition
from tasks._running import RETRIES

_LEARNT = (("weights.json", "its weights differ"), ("booster.ubj", "the booster differs"))


@task(
    task_run_name="recall {model}@{version}", cache_policy=NO_CACHE, timeout_seconds=120, **RETRIES
)
def recall(model: str, version: int) -> Recalled:
    """The version's definition, data, and parameters, from its bundle.

    Raises InputError when the rows it was trained on can't be read any more, or the table was made
    anew and its version of that number has other columns or another number of rows.
    """
    project = Project.current()
    ref = Registry(project.registry_url).version(model, version).ref
    bundle = open_stored(ref)
    dataset = dataset_of(project, bundle)
    if not tables.intact(dataset):  # whatever became of the table since
        what = f"version {dataset.version} is gone"
        raise InputError(Problem(dataset.uri, what, "restore the table, then run this again"))
    if not tables.may_hold(dataset, bundle.spec):
        what = f"version {dataset.version} holds other rows than {model}@{version} was trained on"
        fix = "it can't be reproduced from them; versions trained on the table since then can"
        raise InputError(Problem(dataset.uri, f"{what}: the table was made anew", fix))
    folder = project.folder("reproductions", model) / ref.digest
    write_file(folder / KEPT_SPEC, spec_text(bundle.spec))
    write_file(folder / "features.py", bundle.features_source)
    name = f"{model}@{version}"
    study = StudyRef.model_validate(
        {**bundle.lineage["study"], "study": name, "tracking_group": ""}
    )
    return Recalled(
        version=ref,
        definition=load_model(folder)[0],
        dataset=dataset,
        study=study,
        members=members_within(ref, bundle),
    )


@task(
    task_run_name="compare {original.version.model}@{original.version.version}",
    cache_policy=NO_CACHE,
    timeout_seconds=120,
)
def compare(original: Recalled, again: BundleRef) -> ReproductionSummary:
    """File by file, the version's bundle beside the one just trained."""
    version = original.version
    name = f"{version.model}@{version.version}"
    differences = tuple(_differences(open_stored(version).path, open_stored(again).path))
    other = next((w for file, w in _LEARNT if any(d.startswith(file) for d in differences)), "")
    if again.digest == version.digest:
        reason = f"{name} was reproduced: the digest is {again.digest} again"
    elif other:
        reason = f"{name} was not reproduced: {other}{_of_other_rows(original)}"
    else:
        reason = f"{name}: the booster is the same to the byte, but the bundle's digest differs"
    summary = ReproductionSummary(
        version=version,
        digest=again.digest,
        identical=again.digest == version.digest,
        reason=reason,
        differences=differences,
    )
    text = "\n".join([f"# {plain(reason)}", "", *(f"- {plain(line)}" for line in differences)])
    create_markdown_artifact(text, key=f"{version.model}-reproduction", description=plain(reason))
    return summary


def _of_other_rows(original: Recalled) -> str:
    dataset = original.dataset
    if tables.holds(dataset, read_definition(original.definition)):
        return ""
    return (
        f", as version {dataset.version} of {dataset.uri} holds other rows than then: "
        "the table was made anew"
    )


def _differences(before: Path, after: Path) -> list[str]:
    lines = []
    for name in sorted({*_files(before), *_files(after)}):
        one, two = before / name, after / name
        if name == "manifest.json" or (
            one.is_file() and two.is_file() and one.read_bytes() == two.read_bytes()
        ):
            continue
        if name.endswith(".json") and one.is_file() and two.is_file():
            lines += _json_differences(
                name, json.loads(one.read_text()), json.loads(two.read_text())
            )
        else:
            lines.append(f"{name} differs")
    return lines


def _files(folder: Path) -> list[str]:
    return [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]


def _json_differences(path: str, one: Any, two: Any) -> list[str]:
    if isinstance(one, dict) and isinstance(two, dict):
        lines = []
        for key in sorted({*one, *two}):
            if one.get(key) != two.get(key):
                lines += _json_differences(f"{path}: {key}", one.get(key), two.get(key))
        return lines
    return [f"{path} was {one!r:.80}, is {two!r:.80}"]
