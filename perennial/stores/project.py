"""A project on disk: ``models/`` that a user edits and ``.perennial/`` that Perennial keeps."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from perennial.contracts.errors import InputError, Problem
from perennial.contracts.refs import ModelRef
from perennial.spec import ModelSpec, kept_spec, load_spec, spec_text
from perennial.spec.schema import nearest
from perennial.stores.storage.places import (
    STORAGE_VARIABLE,
    check_place,
    is_remote,
    resolved,
    storage_place,
)

PROJECT_VARIABLE = "PERENNIAL_PROJECT"
KEPT_SPEC = "kept.yaml"
"""In the place of model.yaml where a version is made once more: the spec that its bundle keeps."""


@dataclass(frozen=True, slots=True)
class Project:
    """A project's folder. All places of things derive from it. Raises InputError for a folder that
    can't hold tables."""

    root: Path

    def __post_init__(self) -> None:
        check_place(str(self.root))

    @classmethod
    def current(cls) -> Project:
        """The project named by the environment, else the working directory."""
        return cls(Path(os.environ.get(PROJECT_VARIABLE) or Path.cwd()).resolve())

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def home(self) -> Path:
        return self.root / ".perennial"

    @property
    def registry_url(self) -> str:
        """SQLAlchemy URL; may hold a password: never log it."""
        return os.environ.get("PERENNIAL_REGISTRY_URL") or f"sqlite:///{self.home}/registry.db"

    @property
    def studies_url(self) -> str:
        """SQLAlchemy URL of Optuna's database; may hold a password: never log it."""
        return os.environ.get("PERENNIAL_STUDIES_URL") or f"sqlite:///{self.home}/studies.db"

    @property
    def storage(self) -> str:
        """Where durable things live, as PERENNIAL_STORAGE says: a folder (by default the home), or
        ``s3://bucket/prefix``. Raises InputError when it is neither."""
        return storage_place(os.environ.get(STORAGE_VARIABLE, ""), self.root, self.home)

    def uri(self, kind: str, model: str) -> str:
        """``<storage>/<kind>/<model>``, of what lasts: tables, quarantine, predictions, labels,
        failures, bundles, reports, drift; and of features that a cluster's workers fetch."""
        return f"{self.storage}/{kind}/{model}"

    def owner_of(self, place: str) -> str | None:
        """The storage or the home when a place (an absolute path, or an address) lies in it or
        contains it, links followed; None for any other place."""
        path = resolved(place)
        for own in (self.storage, str(self.home)):
            kept = resolved(own)
            if path.is_relative_to(kept) or kept.is_relative_to(path):
                return own
        return None

    def folder(self, kind: str, model: str) -> Path:
        """``.perennial/<kind>/<model>``, on this machine's disk, of what can be made anew: staging,
        splits, features, audits, scores, backtests, reproductions."""
        return self.home / kind / model

    @property
    def cache(self) -> Path:
        """Folders of a storage that is elsewhere, as they are there, by their digests."""
        return self.home / "cache"

    def working(self, kind: str, model: str) -> Path:
        """Where a folder of a lasting kind is written, under its digest, before it is published:
        at its place, or in the cache where the storage is elsewhere."""
        uri = self.uri(kind, model)
        return self.cache if is_remote(uri) else Path(uri)

    def model_names(self) -> list[str]:
        """The names of all models, sorted. Raises InputError for wrong model.yamls, and for two
        models of the same name."""
        folders, wrong = self.model_folders()
        if wrong:
            raise InputError(wrong)
        return sorted(folders)

    def specs(self) -> list[ModelSpec]:
        """All models' specs, sorted by name. Raises as ``model_names``."""
        return [self.load_model(name)[1] for name in self.model_names()]

    def model_folder(self, name: str) -> Path:
        """The folder under ``models/`` whose model.yaml has this name; what is wrong with other
        models is no obstacle. Raises InputError when there is none."""
        guess = self.models / name.replace("-", "_") / "model.yaml"
        if guess.is_file() and load_spec(guess).name == name:
            return guess.parent
        folders, wrong = self.model_folders()
        if name in folders:
            return folders[name]
        known = sorted(folders)
        fix = (
            f"models here: {', '.join(known)}"
            if known
            else "perennial init makes one; --project names another place"
        )
        unknown = Problem(str(self.models), f"no model {name!r}{nearest(name, known)}", fix)
        raise InputError([unknown, *wrong])

    def model_folders(self) -> tuple[dict[str, Path], list[Problem]]:
        """The models' folders by their names, and what is wrong with the others: a model.yaml, or
        a name that several have."""
        files: dict[str, list[Path]] = {}
        wrong: list[Problem] = []
        for path in sorted(self.models.glob("*/model.yaml")):
            try:
                files.setdefault(load_spec(path).name, []).append(path)
            except InputError as error:
                wrong += error.problems
        for name, (first, *others) in files.items():
            what = f"the name {name!r} is also that of {first}"
            fix = "give each model its own name"
            wrong += [Problem(f"{other}, name", what, fix) for other in others]
        return {name: paths[0].parent for name, paths in files.items() if len(paths) == 1}, wrong

    def load_model(self, name: str) -> tuple[ModelRef, ModelSpec]:
        """A model by its name. Raises InputError when it is unknown or its model.yaml is wrong."""
        return load_model(self.model_folder(name))


def load_model(folder: Path) -> tuple[ModelRef, ModelSpec]:
    """The model in a folder, or the version that is kept there: its reference and its spec."""
    kept = folder / KEPT_SPEC
    spec = (
        kept_spec(kept.read_text(encoding="utf-8"), str(kept))
        if kept.is_file()
        else load_spec(folder / "model.yaml")
    )
    ref = ModelRef(
        name=spec.name,
        directory=str(folder),
        spec_digest=_digest(spec_text(spec)),
        code_digest=_digest(feature_source(folder)),
    )
    return ref, spec


def feature_source(folder: Path) -> str:
    """The text of a model's features.py; "" when it has none."""
    path = folder / "features.py"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16] if text else ""
