"""Opening a bundle: what isn't exactly as written is refused, with the file and what to do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perennial.bundle import read
from perennial.bundle.manifest import FILES, MANIFEST, document_digest
from perennial.bundle.predictor import Predictor
from perennial.bundle.write import write_bundle
from perennial.contracts.errors import IntegrityError
from perennial.contracts.refs import BundleRef
from perennial.spec import spec_text

RESTORE = "(restore the folder from a copy, or remove it and train again)"


@pytest.fixture
def ref(made: Any, tmp_path: Path) -> BundleRef:
    return write_bundle(tmp_path, made.content)


def refusal(ref: BundleRef, digest: str | None = None) -> str:
    with pytest.raises(IntegrityError) as refused:
        read.open_bundle(Path(ref.uri), digest or ref.digest)
    return str(refused.value).replace(ref.uri, "HERE")


def rewrite_manifest(ref: BundleRef, **changes: Any) -> str:
    """Change the manifest and make its digest fit again, as a forger would. Returns the digest."""
    path = Path(ref.uri, MANIFEST)
    document = json.loads(path.read_text()) | changes
    document["digest"] = document_digest(document)
    path.write_text(json.dumps(document))
    return str(document["digest"])


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_named(ref: BundleRef, name: str) -> None:
    path = Path(ref.uri, name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert refusal(ref) == f"bundle HERE, {name}: its content was changed {RESTORE}"


def test_a_truncated_a_missing_and_a_foreign_file_are_told_at_once(ref: BundleRef) -> None:
    booster = Path(ref.uri, "booster.ubj")
    size = booster.stat().st_size
    booster.write_bytes(booster.read_bytes()[:1000])
    Path(ref.uri, "state.json").unlink()
    Path(ref.uri, "helper.py").touch()
    assert refusal(ref).split("\n") == [
        "bundle HERE, helper.py: not a file of the bundle (remove it)",
        f"bundle HERE, booster.ubj: 1,000 bytes, the manifest says {size:,} {RESTORE}",
        f"bundle HERE, state.json: can't be read: No such file or directory {RESTORE}",
    ]


def test_a_folder_in_place_of_a_file_is_told(ref: BundleRef) -> None:
    Path(ref.uri, "state.json").unlink()
    Path(ref.uri, "state.json").mkdir()
    assert refusal(ref) == f"bundle HERE, state.json: can't be read: Is a directory {RESTORE}"


def test_another_bundle_under_the_expected_name_is_refused(ref: BundleRef) -> None:
    assert refusal(ref, "0" * 64) == (
        f"bundle HERE: its digest is {ref.digest}, expected {'0' * 64} "
        "(another bundle is in its place; restore the folder from a copy, "
        "or remove it and train again)"
    )


def test_a_manifest_changed_by_hand_contradicts_its_digest(ref: BundleRef) -> None:
    path = Path(ref.uri, MANIFEST)
    path.write_text(path.read_text().replace('"parcels"', '"letters"'))
    assert refusal(ref).startswith(f"bundle HERE, manifest.json: it says digest {ref.digest}, its")


def test_a_forged_bundle_does_not_have_the_digest_that_was_registered(ref: BundleRef) -> None:
    path = Path(ref.uri, "state.json")
    path.write_text("{}")
    manifest = json.loads(Path(ref.uri, MANIFEST).read_text())
    entry = {"sha256": hashlib.sha256(b"{}").hexdigest(), "bytes": 2}
    forged = rewrite_manifest(ref, files=manifest["files"] | {"state.json": entry})
    assert refusal(ref).startswith(f"bundle HERE: its digest is {forged}, expected {ref.digest}")


def test_a_folder_without_a_manifest_was_never_finished(ref: BundleRef) -> None:
    Path(ref.uri, MANIFEST).unlink()
    assert refusal(ref) == f"bundle HERE: no manifest.json: it was never finished {RESTORE}"


def test_a_bundle_that_is_gone_is_told(ref: BundleRef, tmp_path: Path) -> None:
    gone = ref.model_copy(update={"uri": str(tmp_path / "gone")})
    assert refusal(gone) == f"bundle HERE: no such folder {RESTORE}"


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00\xff"])
def test_a_manifest_that_is_no_json_object_is_told(ref: BundleRef, text: str) -> None:
    Path(ref.uri, MANIFEST).write_text(text, encoding="latin-1")
    assert refusal(ref) == f"bundle HERE, manifest.json: not a JSON object {RESTORE}"


def test_a_manifest_that_lacks_a_key_is_told(ref: BundleRef) -> None:
    Path(ref.uri, MANIFEST).write_text('{"format": 1}')
    assert refusal(ref) == f"bundle HERE, manifest.json: model: Field required {RESTORE}"


@pytest.mark.parametrize("found", [3, "1", None])
def test_a_format_that_is_not_known_is_refused_whatever_else_it_holds(
    ref: BundleRef, found: object
) -> None:
    digest = rewrite_manifest(ref, format=found, colour="blue")
    assert refusal(ref, digest) == (
        f"bundle HERE: its format is {found!r}; this Perennial reads up to 2 (upgrade perennial)"
    )


def installed(release: str) -> Callable[[str], str]:
    return lambda _: release


def test_a_booster_of_a_newer_xgboost_is_refused_by_an_older_one(
    ref: BundleRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = read.version("xgboost")
    monkeypatch.setattr(read, "version", installed("2.1.4"))
    assert refusal(ref) == (
        f"bundle HERE: written with xgboost {written}, installed is 2.1.4 (upgrade xgboost)"
    )


@pytest.mark.parametrize("release", ["99.0.0", "99.0.0rc1"])
def test_a_newer_xgboost_reads_an_older_booster(
    ref: BundleRef, monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    monkeypatch.setattr(read, "version", installed(release))
    assert read.open_bundle(Path(ref.uri), ref.digest).model == "parcels"


def test_what_was_checked_is_what_is_used_even_if_the_folder_changes_later(
    ref: BundleRef, made: Any
) -> None:
    bundle = read.open_bundle(Path(ref.uri), ref.digest)
    for path in Path(ref.uri).iterdir():
        path.write_bytes(b"changed")
    assert bundle.state == made.content.state
    assert bundle.booster == made.content.booster
    assert bundle.reference().equals(made.rows.head(50))


def test_a_version_whose_spec_has_what_is_refused_now_is_opened(ref: BundleRef) -> None:
    bundle = read.open_bundle(Path(ref.uri), ref.digest)
    old = spec_text(bundle.spec).encode() + b"training:\n  params: {tree_method: approx}\n"
    assert b"\ntraining:" not in spec_text(bundle.spec).encode()
    before = replace(bundle, contents={**bundle.contents, "spec.yaml": old})
    assert before.spec.training.params == {"tree_method": "approx"}
    assert Predictor(before).columns == Predictor(bundle).columns
