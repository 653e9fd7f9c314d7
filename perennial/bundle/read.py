"""Open a bundle: every byte is checked against the manifest before any of it is used, and, where
signatures are asked for, that somebody who is trusted made it."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from perennial.bundle.manifest import (
    BOOSTER,
    FORMAT,
    MANIFEST,
    MEMBERS,
    WEIGHTS,
    Manifest,
    document_digest,
)
from perennial.bundle.signing import SIGNATURE, check_signature, read_signature
from perennial.contracts.errors import InputError, IntegrityError, Problem
from perennial.contracts.features import FeatureSchema
from perennial.contracts.metrics import Objective
from perennial.contracts.refs import Member
from perennial.spec import ModelSpec, kept_spec

if TYPE_CHECKING:
    import pandas as pd

_RESTORE = "restore the folder from a copy, or remove it and train again"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. ``contents`` are the files' verified bytes: what is used is what was
    checked, whatever happens to the folder later. ``signature`` are those of signature.json."""

    path: Path
    manifest: Manifest
    contents: Mapping[str, bytes]
    signature: bytes | None = None

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def model(self) -> str:
        return self.manifest.model

    @property
    def objective(self) -> Objective:
        return self.manifest.objective

    @property
    def booster(self) -> bytes:
        """The trees, as ``Booster.load_model`` takes them. Raises InputError for a weighted mean,
        which has none."""
        if BOOSTER not in self.contents:
            what = "a weighted mean of other models has no booster"
            raise InputError(Problem(f"bundle {self.path}", what))
        return self.contents[BOOSTER]

    @cached_property
    def weights(self) -> tuple[float, ...] | None:
        """A weighted mean's, in the order of ``members``; None for a booster."""
        if WEIGHTS not in self.contents:
            return None
        weights = self._json(WEIGHTS)
        return tuple(weights[member.name] for member in self.manifest.members)

    @cached_property
    def members(self) -> dict[str, Bundle]:
        """The members of an ensemble by the names it has for them, in order; of this bundle's own
        verified bytes. Raises IntegrityError for one that isn't the version it should be."""
        return {member.name: self._member(member) for member in self.manifest.members}

    def whole(self) -> Iterator[Bundle]:
        """This bundle, its members and, in turn, theirs. Raises as ``members``."""
        yield self
        for inner in self.members.values():
            yield from inner.whole()

    def _member(self, member: Member) -> Bundle:
        path = self.path / MEMBERS / member.digest
        inside = f"{MEMBERS}/{member.digest}/"
        contents = {
            name.removeprefix(inside): data
            for name, data in self.contents.items()
            if name.startswith(inside)
        }
        try:
            document = json.loads(contents.pop(MANIFEST))
            manifest = Manifest.model_validate(document)
        except (KeyError, ValueError) as error:
            what = f"no manifest that can be read: {str(error)[:100]}"
            raise IntegrityError(Problem(f"bundle {path}", what, _RESTORE)) from None
        if not member.digest == manifest.digest == document_digest(document):
            what = f"its digest is {manifest.digest}, expected {member.digest}"
            raise IntegrityError(Problem(f"bundle {path}", what, _RESTORE))
        return Bundle(path, manifest, contents)

    @property
    def features_source(self) -> str:
        return self.contents["features.py"].decode()

    @cached_property
    def spec(self) -> ModelSpec:
        return kept_spec(self.contents["spec.yaml"].decode(), f"{self.path}/spec.yaml")

    @cached_property
    def schema(self) -> FeatureSchema:
        return FeatureSchema.model_validate_json(self.contents["schema.json"])

    @property
    def class_count(self) -> int | None:
        """How many values a prediction of one row has; None when it is a single number."""
        if self.objective != "multiclass" or self.schema.classes is None:
            return None
        return len(self.schema.classes)

    @cached_property
    def state(self) -> dict[str, Any]:
        return self._json("state.json")

    @cached_property
    def profile(self) -> dict[str, Any]:
        return self._json("profile.json")

    @cached_property
    def metrics(self) -> dict[str, Any]:
        return self._json("metrics.json")

    @cached_property
    def lineage(self) -> dict[str, Any]:
        return self._json("lineage.json")

    def reference(self) -> pd.DataFrame:
        """The raw sample of training rows, read anew at each call."""
        import pyarrow.parquet as pq

        frame: pd.DataFrame = pq.read_table(
            io.BytesIO(self.contents["reference.parquet"])
        ).to_pandas()
        return frame

    def _json(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.contents[name])
        return document


def open_bundle(path: Path, digest: str) -> Bundle:
    """Open the bundle in a folder, and only the one with this digest.

    Raises IntegrityError naming each file that is missing, changed, or not of the bundle, and what
    to do; also for a bundle of a newer format, of a newer XGBoost than is installed, or without a
    signature that is asked for (see ``signing``).
    """
    bundle = open_unsigned(path, digest)
    check_signature(f"bundle {path}", digest, bundle.signature)
    return bundle


def open_unsigned(path: Path, digest: str) -> Bundle:
    """``open_bundle`` without a look at who signed it: for those who are about to sign."""
    where = f"bundle {path}"
    document = _document(path, where)
    found = document.get("format")
    if not isinstance(found, int) or found > FORMAT:
        what = f"its format is {found!r}; this Perennial reads up to {FORMAT}"
        raise IntegrityError(Problem(where, what, "upgrade perennial"))
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise IntegrityError(Problem(f"{where}, {MANIFEST}", what, _RESTORE)) from None
    actual = document_digest(document)
    if actual != manifest.digest:
        what = f"it says digest {manifest.digest}, its content has {actual}"
        raise IntegrityError(Problem(f"{where}, {MANIFEST}", what, _RESTORE))
    if actual != digest:
        what = f"its digest is {actual}, expected {digest}"
        raise IntegrityError(Problem(where, what, "another bundle is in its place; " + _RESTORE))
    if _release(version("xgboost")) < _release(manifest.xgboost):
        what = f"written with xgboost {manifest.xgboost}, installed is {version('xgboost')}"
        raise IntegrityError(Problem(where, what, "upgrade xgboost"))
    contents: dict[str, bytes] = {}
    problems = list(_check_files(path, where, manifest, contents))
    if problems:
        raise IntegrityError(problems)
    return Bundle(path, manifest, contents, read_signature(path))


def _document(path: Path, where: str) -> dict[str, Any]:
    try:
        document = json.loads((path / MANIFEST).read_bytes())
    except FileNotFoundError:
        what = f"no {MANIFEST}: it was never finished" if path.is_dir() else "no such folder"
        raise IntegrityError(Problem(where, what, _RESTORE)) from None
    except OSError as error:
        raise IntegrityError(Problem(where, f"can't be read: {error.strerror}")) from None
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise IntegrityError(Problem(f"{where}, {MANIFEST}", "not a JSON object", _RESTORE))
    return document


def _check_files(
    path: Path, where: str, manifest: Manifest, contents: dict[str, bytes]
) -> Iterator[Problem]:
    known = {MANIFEST, SIGNATURE, *manifest.files}
    known |= {str(above) for name in manifest.files for above in PurePosixPath(name).parents}
    found = {p.relative_to(path).as_posix() for p in path.rglob("*")}
    for extra in sorted(name for name in found - known if str(PurePosixPath(name).parent) in known):
        yield Problem(f"{where}, {extra}", "not a file of the bundle", "remove it")
    for name, expected in manifest.files.items():
        try:
            data = (path / name).read_bytes()
        except OSError as error:
            yield Problem(f"{where}, {name}", f"can't be read: {error.strerror}", _RESTORE)
            continue
        if len(data) != expected.bytes:
            what = f"{len(data):,} bytes, the manifest says {expected.bytes:,}"
            yield Problem(f"{where}, {name}", what, _RESTORE)
        elif hashlib.sha256(data).hexdigest() != expected.sha256:
            yield Problem(f"{where}, {name}", "its content was changed", _RESTORE)
        contents[name] = data


def _release(text: str) -> tuple[int, int]:
    """Major and minor of a version; patches read each other's models."""
    major, minor = text.split(".")[:2]
    return int(major), int(minor)
