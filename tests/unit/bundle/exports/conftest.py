"""A registered bundle of each objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from perennial.bundle.read import Bundle, open_bundle
from perennial.bundle.write import write_bundle
from perennial.contracts.refs import VersionRef


@dataclass(frozen=True)
class Registered:
    """A version, its bundle, and what it was made of (``Made``)."""

    ref: VersionRef
    bundle: Bundle
    made: Any


@pytest.fixture
def register(tmp_path: Path) -> Callable[[Any], Registered]:
    """Write a bundle of what was made, and give it a version."""

    def write(made: Any) -> Registered:
        ref = write_bundle(tmp_path / "bundles", made.content)
        bundle = open_bundle(Path(ref.uri), ref.digest)
        version = VersionRef(model="parcels", version=12, digest=ref.digest, uri=ref.uri)
        return Registered(version, bundle, made)

    return write


@pytest.fixture
def each_version(each_made: Any, register: Callable[[Any], Registered]) -> Registered:
    return register(each_made)


@pytest.fixture
def version(made: Any, register: Callable[[Any], Registered]) -> Registered:
    return register(made)
