"""Write a bundle: whole under its final name, or not at all."""

from __future__ import annotations

import errno
import fcntl
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from perennial.bundle.manifest import (
    BOOSTER,
    MANIFEST,
    MEMBERS,
    WEIGHTS,
    canonical_json,
    make_manifest,
    manifest_bytes,
)
from perennial.bundle.read import Bundle, open_unsigned
from perennial.bundle.signing import SIGNATURE, read_signature, sign
from perennial.contracts.errors import InputError, IntegrityError, Problem
from perennial.contracts.features import FeatureSchema
from perennial.contracts.refs import BundleRef, Member
from perennial.spec import ModelSpec, spec_text

_UNFINISHED = ".writing"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class BundleContent:
    """All that a bundle holds. ``booster`` is ``Booster.save_raw("ubj")`` with just the trees that
    predict, or None in a weighted mean, which has ``weights`` by member instead. ``reference`` are
    the bytes of a Parquet file. The mappings are JSON: text keys, no NaN, and nothing that differs
    between two runs on the same inputs. ``members`` are an ensemble's with their bundles, in the
    order of its features."""

    spec: ModelSpec
    schema: FeatureSchema
    booster: bytes | None
    features_source: str
    state: Mapping[str, Any]
    reference: bytes
    profile: Mapping[str, Any]
    metrics: Mapping[str, Any]
    lineage: Mapping[str, Any]
    weights: Mapping[str, float] | None = None
    members: tuple[tuple[Member, Bundle], ...] = ()


def write_bundle(parent: Path, content: BundleContent) -> BundleRef:
    """Write a bundle to ``parent/<digest>``, or reuse the one that is there.

    A damaged bundle under the same digest is replaced. Writers of one parent take turns; what a
    killed one left behind is removed by the next. It is signed where there is a key to sign with
    (see ``signing``), also one that is reused. Raises InputError when the disk is full or the
    folder can't be written, nothing half-written stays; and when the key can't be used.
    """
    files = _files(content)
    members = [member for member, _ in content.members]
    manifest = make_manifest(
        content.spec.name, content.spec.objective, version("xgboost"), files, members
    )
    files[MANIFEST] = manifest_bytes(manifest)
    place = parent.absolute() / manifest.digest
    signature = sign(manifest.digest)
    if signature is not None:
        files[SIGNATURE] = signature
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with _turn(parent):
            if not _intact(place, manifest.digest):
                _write(place, files)
            elif signature is not None:
                put_signature(place, signature)
    except OSError as error:
        size = sum(len(data) for data in files.values())
        what = f"can't be written: {error.strerror}; nothing was kept"
        if error.errno in _FULL:
            what = f"no space for its {size:,} bytes ({error.strerror}); nothing was kept"
        fix = "free some space or check the folder's permissions, then run again"
        raise InputError(Problem(f"bundle {place}", what, fix)) from None
    return BundleRef(uri=str(place), digest=manifest.digest)


def put_signature(place: Path, signature: bytes) -> None:
    """Sign a bundle that is there, or sign it anew: never a moment with half a signature.
    Raises OSError."""
    if read_signature(place) == signature:
        return
    half = place.parent / f".{place.name}.{SIGNATURE}"
    half.write_bytes(signature)
    half.replace(place / SIGNATURE)


def _files(content: BundleContent) -> dict[str, bytes]:
    if content.booster is not None:
        files = {BOOSTER: bytes(content.booster)}
    else:
        files = {WEIGHTS: _json("weights", content.weights or {})}
    for member, bundle in content.members:
        inside = f"{MEMBERS}/{member.digest}"
        files |= {f"{inside}/{name}": data for name, data in bundle.contents.items()}
        files[f"{inside}/{MANIFEST}"] = manifest_bytes(bundle.manifest)
    return files | {
        "features.py": content.features_source.encode(),
        "state.json": _json("state", content.state),
        "schema.json": _json("schema", content.schema.model_dump(mode="json")),
        "spec.yaml": spec_text(content.spec).encode(),
        "reference.parquet": content.reference,
        "profile.json": _json("profile", content.profile),
        "metrics.json": _json("metrics", content.metrics),
        "lineage.json": _json("lineage", content.lineage),
    }


def _json(name: str, value: Mapping[str, Any]) -> bytes:
    try:
        return canonical_json(dict(value))
    except (TypeError, ValueError) as error:
        raise InputError(Problem(f"bundle, {name}.json", f"not JSON: {error}")) from None


@contextmanager
def _turn(parent: Path) -> Iterator[None]:
    """Wait for other writers. The lock ends with its holder, however that ends."""
    with (parent / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _intact(place: Path, digest: str) -> bool:
    try:
        open_unsigned(place, digest)
    except IntegrityError:
        return False
    return True


def _write(place: Path, files: Mapping[str, bytes]) -> None:
    unfinished = place.parent / _UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)  # a killed writer's: it is our turn
    unfinished.mkdir()
    try:
        for name, data in files.items():
            (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
            (unfinished / name).write_bytes(data)
        if place.exists():
            shutil.rmtree(place)
        unfinished.rename(place)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
