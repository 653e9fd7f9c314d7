"""A bundle served by itself: what is kept of its predictions, and the key that this needs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from perennial.contracts.errors import InputError
from perennial.serving.fixed import adopt
from perennial.serving.labels import read_labels
from perennial.serving.metrics import Metrics
from perennial.serving.replies import Refusal
from perennial.serving.service import Service
from perennial.serving.settings import Fixed, Settings
from perennial.stores.predictions import Spool
from perennial.stores.predictions.redaction import KEY_VARIABLE
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from tests.fuzz import served

HASHED = served.SPEC + "log: {{hash: [customer]}}\n"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Fixed:
    """A version of a model that hashes a column in its log."""
    root = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(served, "SPEC", HASHED)
        served.make_project(root)
    registry = Registry(Project(root).registry_url)
    ref = registry.version("prices", 1).ref
    registry.close()
    return Fixed(bundle=Path(ref.uri), digest=ref.digest, model="prices", version=1)


async def serve_and_label(bundle: Fixed, root: Path) -> None:
    """Raises Refusal when no labels are kept."""
    settings = Settings(project=root)
    service = Service(settings, Spool(root / "spool"), Metrics(), None, lambda: None)
    try:
        adopt(service, bundle)
        model = service.model("prices")
        labels = read_labels({"prediction_id": "p-1", "label": 1.0}, model, 10)
        await service.log_labels(model, labels)
    finally:
        service.close()


@pytest.mark.parametrize("turned_off", [False, True])
def test_no_key_is_needed_for_hashes_where_nothing_is_kept(
    bundle: Fixed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turned_off: bool
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    if turned_off:
        define(tmp_path, HASHED.replace("hash:", "enabled: false, hash:"))
    with pytest.raises(Refusal) as refused:
        asyncio.run(serve_and_label(bundle, tmp_path))
    assert (refused.value.status, refused.value.code) == (409, "nothing_kept")


def test_what_is_kept_needs_the_key(
    bundle: Fixed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    define(tmp_path, HASHED)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(InputError, match=f"{KEY_VARIABLE}: is not set; prices hashes customer"):
        asyncio.run(serve_and_label(bundle, tmp_path))
    monkeypatch.setenv(KEY_VARIABLE, "a secret of more than sixteen characters")
    asyncio.run(serve_and_label(bundle, tmp_path))


def define(root: Path, spec: str) -> None:
    path = Project(root).models / "prices" / "model.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(spec.format(name="prices", objective="regression"))
