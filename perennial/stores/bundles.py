"""Bundles by their references, wherever the storage is."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from perennial.bundle.manifest import MANIFEST
from perennial.bundle.read import Bundle, open_bundle, open_unsigned
from perennial.bundle.signing import SIGNATURE, sign
from perennial.bundle.write import BundleContent, put_signature, write_bundle
from perennial.contracts.refs import BundleRef
from perennial.stores.project import Project
from perennial.stores.storage.cache import fetch
from perennial.stores.storage.objects import Objects
from perennial.stores.storage.places import is_remote
from perennial.stores.storage.publishing import publish


class Stored(Protocol):
    """A reference to a bundle: a ``BundleRef``, ``VersionRef`` or ``MemberRef``."""

    @property
    def uri(self) -> str: ...

    @property
    def digest(self) -> str: ...


def open_stored(ref: Stored, project: Project | None = None) -> Bundle:
    """Open the bundle that a reference is of, every byte checked; one that is elsewhere is fetched
    into the project's cache first (by default the current project's).

    Raises IntegrityError as ``open_bundle``, naming the storage's address; UnavailableError when
    the storage doesn't answer and the cache has no copy.
    """
    cache = (project or Project.current()).cache
    return fetch(ref.uri, cache, lambda folder: open_bundle(folder, ref.digest))


def sign_stored(ref: Stored, project: Project | None = None) -> bytes | None:
    """Sign the bundle that a reference is of, its content checked, signed before or not; returns
    its new signature. None, and nothing done, without a key to sign with.

    Raises as ``open_stored`` and ``signing.sign``, and OSError.
    """
    cache = (project or Project.current()).cache
    fetch(ref.uri, cache, lambda folder: open_unsigned(folder, ref.digest))
    signature = sign(ref.digest)
    if signature is None:
        return None
    if not is_remote(ref.uri):
        put_signature(Path(ref.uri), signature)
    else:  # a copy in a cache is fetched anew by whoever asks for the signature
        Objects(ref.uri).write(SIGNATURE, signature)
    return signature


def keep_bundle(project: Project, content: BundleContent) -> BundleRef:
    """Write a bundle into the project's storage, its manifest last, or reuse the one that is there.
    Raises as ``write_bundle`` and ``publish``."""
    model = content.spec.name
    written = write_bundle(project.working("bundles", model), content)
    place = Path(written.uri)
    there = f"{project.uri('bundles', model)}/{place.name}"
    uri = publish(place, there, last=MANIFEST, beside={SIGNATURE})
    return BundleRef(uri=uri, digest=written.digest)
