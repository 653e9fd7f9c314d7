"""``perennial keys``: from an unsigned version to one that a careful reader opens."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from perennial.bundle.read import open_bundle
from perennial.bundle.signing import KEY_VARIABLE, SIGNATURE, TRUST_VARIABLE
from perennial.contracts.errors import IntegrityError
from perennial.contracts.refs import BundleRef
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from tests.workplace import Workplace

GOLDEN = Path(__file__).parents[2] / "golden" / "bundles" / "1"


@pytest.fixture
def version(project: Workplace) -> BundleRef:
    """A version that is registered and not signed: demand@1."""
    (golden,) = (path for path in GOLDEN.iterdir() if path.is_dir() and len(path.name) == 64)
    place = project.root / ".perennial" / "bundles" / "demand" / golden.name
    shutil.copytree(golden, place)
    ref = BundleRef(uri=str(place), digest=golden.name)
    registry = Registry(Project(project.root).registry_url)
    registry.register(
        "demand", ref, params={}, metrics={}, judgement={}, links={}, actor="test", reason="test",
        now=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    registry.close()
    return ref


def test_an_unsigned_version_is_refused_until_it_is_signed(
    project: Workplace, version: BundleRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = project.root / "signing.pem"
    made = project.command("keys", "new", str(key))
    assert (made.returncode, made.stderr) == (0, "")
    identity = made.stdout.split()[1]
    assert made.stdout == (
        f"key {identity}\n"
        f"  PERENNIAL_SIGNING_KEY_FILE={key}  (keep it secret)\n"
        f"  PERENNIAL_TRUSTED_KEYS_FILE={key}.pub\n"
    )
    monkeypatch.setenv(TRUST_VARIABLE, f"{key}.pub")
    with pytest.raises(IntegrityError, match="not signed"):
        open_bundle(Path(version.uri), version.digest)

    without = project.command("keys", "sign", "demand@1")
    assert (without.returncode, without.stderr) == (
        2,
        "PERENNIAL_SIGNING_KEY_FILE: no key to sign with (PERENNIAL_SIGNING_KEY_FILE=FILE names "
        "one; perennial keys new FILE makes one)\n",
    )
    project.environment[KEY_VARIABLE] = str(key)
    signed = project.command("keys", "sign", "demand@1")

    assert (signed.returncode, signed.stdout) == (0, f"demand@1 signed by the key {identity}\n")
    assert open_bundle(Path(version.uri), version.digest).digest == version.digest


def test_a_damaged_version_is_not_signed(project: Workplace, version: BundleRef) -> None:
    key = project.root / "signing.pem"
    project.command("keys", "new", str(key))
    project.environment[KEY_VARIABLE] = str(key)
    (Path(version.uri) / "features.py").write_text("import os\n")

    done = project.command("keys", "sign", "demand@1")

    assert done.returncode == 2
    assert "features.py" in done.stderr
    assert not (Path(version.uri) / SIGNATURE).exists()
