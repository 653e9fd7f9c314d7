"""What holds of publishing whatever the destination is: it fails nothing, and keeps secrets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from perennial.bundle.read import Bundle
from perennial.contracts.publishing import Destination
from perennial.stores.bundles import keep_bundle
from perennial.stores.project import Project
from perennial.stores.publishing import publish, servers
from perennial.stores.publishing.mlflow import URI_VARIABLE
from perennial.stores.registry import Registry, Version
from tests.contract import s3
from tests.fuzz.served import content
from tests.published import MODEL, NOW, Shelf, shelf


@dataclass
class Shelves:
    """A destination in memory: of each bundle, the folder that it was read from."""

    project: Project
    name: Destination = "mlflow"
    place: str = "memory"
    held: dict[str, Path] = field(default_factory=dict)

    @contextmanager
    def open(self, _model: str) -> Iterator[Shelves]:
        yield self

    def digests(self) -> set[str]:
        return {*self.held}

    def add(self, version: Version, bundle: Bundle) -> None:
        self.held[version.ref.digest] = bundle.path

    def point(self, aliases: Mapping[str, str]) -> list[str]:
        return [*aliases]


@pytest.fixture
def shelved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    monkeypatch.setenv("WANDB_MODE", "offline")
    with shelf(tmp_path) as found:
        yield found


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("http://[", "http://["),  # urllib can't read it
        ("nonsense://me:secret@host", "nonsense://host"),
        ("http://me:sec/ret@127.0.0.1:x", "http://127.0.0.1:x"),
        ("oracle://me:secret@127.0.0.1:1/db", "oracle://127.0.0.1:1/db"),  # has no driver here
    ],
)
def test_no_address_of_mlflow_is_wrong_enough_to_fail_anything_or_to_show_its_password(
    address: str, place: str, shelved: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URI_VARIABLE, address)
    shelved.add(1)
    (server,) = servers(shelved.project)
    done = publish(server, shelved.registry, MODEL)
    assert (done.place, done.waiting) == (place, 1)
    assert done.error.startswith(f"MLflow at {place} failed: ")
    assert "sec" not in done.model_dump_json()


def test_of_many_bundles_that_are_gone_the_first_are_told(shelved: Shelf) -> None:
    for number in range(1, 9):
        (Path(shelved.add(number).uri) / "manifest.json").unlink()
    done = publish(Shelves(shelved.project), shelved.registry, MODEL)
    assert (done.versions, done.waiting) == ((), 8)
    assert done.error.count("version ") == 5
    assert done.error.endswith("; … and 3 more")


def test_bundles_of_a_bucket_come_by_the_cache_of_their_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.delenv("PERENNIAL_PROJECT", raising=False)
    project = Project(tmp_path / "project")
    with s3.moto() as endpoint:
        for name, value in endpoint.environment("published").items():
            monkeypatch.setenv(name, value)
        ref = keep_bundle(Project(tmp_path / "trainer"), content(MODEL, "binary", 1))
        registry = Registry(f"sqlite:///{tmp_path}/registry.db")
        registry.register(
            MODEL, ref, params={}, metrics={}, judgement={}, links={}, actor="t", reason="", now=NOW
        )
        server = Shelves(project)
        assert publish(server, registry, MODEL).versions == (1,)
        registry.close()
    assert server.held[ref.digest].is_relative_to(project.cache)
    assert list(elsewhere.iterdir()) == []
