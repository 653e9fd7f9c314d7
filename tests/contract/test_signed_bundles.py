"""Signatures wherever the storage is: they go with their bundle, also when they come later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from perennial.bundle.signing import KEY_VARIABLE, TRUST_VARIABLE, new_key
from perennial.contracts.errors import IntegrityError
from perennial.stores.bundles import keep_bundle, open_stored, sign_stored
from perennial.stores.project import Project
from tests.contract import s3
from tests.fuzz.served import content


@pytest.fixture(params=["local", "s3"])
def project(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Project]:
    """The project of who trains."""
    with ExitStack() as stack:
        if request.param == "s3":
            for name, value in stack.enter_context(s3.moto()).environment("signed").items():
                monkeypatch.setenv(name, value)
        yield Project(tmp_path / "trainer")


def test_a_version_is_opened_once_it_is_signed_and_stays_signed(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key.pem"
    new_key(key)
    made = content("parcels", "binary", 1)
    server = Project(tmp_path / "server")  # with a cache of its own, where it isn't local
    ref = keep_bundle(project, made)
    assert open_stored(ref, server).digest == ref.digest

    monkeypatch.setenv(TRUST_VARIABLE, f"{key}.pub")
    with pytest.raises(IntegrityError, match="not signed, and PERENNIAL_TRUSTED_KEYS_FILE"):
        open_stored(ref, server)
    assert sign_stored(ref, project) is None  # no key
    monkeypatch.setenv(KEY_VARIABLE, str(key))
    signature = sign_stored(ref, project)

    assert open_stored(ref, server).signature == signature
    monkeypatch.delenv(KEY_VARIABLE)
    assert keep_bundle(project, made) == ref  # by somebody who has no key
    assert open_stored(ref, Project(tmp_path / "another")).signature == signature


def test_what_is_trained_with_a_key_is_signed_where_it_is_kept(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key.pem"
    new_key(key)
    monkeypatch.setenv(KEY_VARIABLE, str(key))
    monkeypatch.setenv(TRUST_VARIABLE, f"{key}.pub")

    ref = keep_bundle(project, content("parcels", "binary", 1))

    assert open_stored(ref, Project(tmp_path / "server")).digest == ref.digest
