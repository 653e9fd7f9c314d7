"""Train the candidate and write its bundle."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task

from perennial.bundle.read import Bundle
from perennial.bundle.write import BundleContent
from perennial.contracts.refs import (
    BundleRef,
    DatasetRef,
    FeaturesRef,
    Member,
    MemberRef,
    ModelRef,
    StudyRef,
)
from perennial.spec import ModelSpec
from perennial.stores.bundles import keep_bundle
from perennial.stores.compute import Cluster
from perennial.stores.ensembles import clean_since, open_members
from perennial.stores.matrices import read_json, read_schema, read_training, reference_profile
from perennial.stores.project import Project, feature_source
from perennial.stores.sharing import share
from perennial.stores.storage.places import is_remote
from tasks._caching import Stage, code_fingerprint
from tasks._compute import computing
from tasks._definition import read_definition
from tasks._running import RETRIES, cores, measured

if TYPE_CHECKING:
    from perennial.learning.matrices import Fitting

_LIBRARIES = ("xgboost", "numpy", "pandas", "apache-hamilton", "pyarrow")
_LATER = {"description", "quarantine", "compute", "gates", "drift", "retrain", "rollout", "log"}
_CACHE = Stage(
    name="train",
    sections=tuple(key for key in ModelSpec.model_fields if key not in _LATER),
    compute=True,
    feature_code=True,
    libraries=_LIBRARIES,
)


@task(
    task_run_name="train {model.name}",
    cache_policy=_CACHE,
    result_serializer="json",
    timeout_seconds=24 * 3600,
    **RETRIES,
)
def train(
    model: ModelRef,
    dataset: DatasetRef,
    features: FeaturesRef,
    study: StudyRef,
    members: tuple[MemberRef, ...] = (),
) -> BundleRef:
    """Fit the booster with what the study found, and write it with all that made it.

    The same inputs give the same digest: no time, run or machine is in a bundle. An ensemble's
    holds its members' bundles; a weighted mean has no booster, its weights are the study's.
    """
    spec = read_definition(model)
    project = Project.current()
    folder = Path(features.uri)
    with measured("train") as counts:
        mean = spec.ensemble is not None and spec.ensemble.combine == "mean"
        bundles = open_members(members)
        booster, made_by = (None, {}) if mean else _booster(spec, folder, study)
        content = BundleContent(
            spec=_definition(spec),
            schema=read_schema(folder),
            booster=booster,
            features_source=feature_source(Path(model.directory)),
            state=read_json(folder / "state.json"),
            reference=(folder / "reference.parquet").read_bytes(),
            profile=reference_profile(folder, spec),
            metrics={"validation": {study.metric: study.best_value}},
            lineage={
                **_lineage(project, dataset, features, study),
                **made_by,
                **(_made_of(spec, members, bundles) if members else {}),
            },
            weights={name: float(w) for name, w in study.best_params.items()} if mean else None,
            members=tuple((_member(member), bundles[member.name]) for member in members),
        )
        bundle = keep_bundle(project, content)
        fitted = features.rows["validation"] if mean else features.rows["train"]
        if spec.training.refit and not mean:
            fitted += features.rows["validation"]
        counts.rows_in = fitted
    return bundle


def _booster(spec: ModelSpec, folder: Path, study: StudyRef) -> tuple[bytes, dict[str, Any]]:
    """The booster, and what the lineage tells of a cluster: its number of workers is part of the
    result."""
    from perennial.learning.training import booster_bytes, train_booster

    part: Fitting = "train+validation" if spec.training.refit else "train"
    params, rounds = study.best_params, study.best_rounds
    with computing(spec) as compute:
        if isinstance(compute, Cluster):
            from perennial.stores.distributed import train_distributed

            place = share(Project.current(), folder)
            booster, workers = train_distributed(compute, folder, place, spec, params, rounds, part)
            return booster_bytes(booster), {"compute": {"kind": "dask", "workers": workers}}
    matrices = read_training(folder, spec.compute.memory)
    return booster_bytes(train_booster(matrices, spec, params, rounds, cores(), part)), {}


def _member(member: MemberRef) -> Member:
    return Member.model_validate(member.model_dump(exclude={"uri"}))


def _definition(spec: ModelSpec) -> ModelSpec:
    """The spec without what doesn't make the model: a new schedule or gate is no new bundle, nor is
    another address of the cluster that trains it. The description goes with it, to be told by what
    serves it; another one alone trains nothing."""
    kept = spec.model_dump(mode="json", exclude_unset=True, exclude=_LATER - {"description"})
    if spec.compute.kind != "local":
        kept["compute"] = {"kind": spec.compute.kind}
    return ModelSpec.model_validate(kept)


def _lineage(
    project: Project, dataset: DatasetRef, features: FeaturesRef, study: StudyRef
) -> dict[str, Any]:
    """What the candidate was made from. Places are relative to the project, or those of a storage
    that is elsewhere: a bundle made on another machine from the same data is the same bundle."""
    uri, place = dataset.uri, Path(dataset.uri)
    if not is_remote(uri) and place.is_relative_to(project.root):
        uri = str(place.relative_to(project.root))
    return {
        "dataset": {**dataset.model_dump(mode="json"), "uri": uri},
        "rows": dict(features.rows),
        "features_digest": features.digest,
        "study": study.model_dump(mode="json", exclude={"study", "tracking_group"}),
        "code": code_fingerprint(),
        "libraries": {name: version(name) for name in _LIBRARIES},
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


def _made_of(
    spec: ModelSpec, members: tuple[MemberRef, ...], bundles: Mapping[str, Bundle]
) -> dict[str, Any]:
    """An ensemble's members, and the event time from which on none was fitted to any row (None:
    seen rows were kept)."""
    since = clean_since(spec, bundles)
    return {
        "members": [_member(member).model_dump() for member in members],
        "unseen_since": None if since is None else since.isoformat(),
    }
