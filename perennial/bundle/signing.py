"""Signatures of bundles: that one was made by somebody who is trusted, and not only whole.

A digest says that a bundle is what the registry names. Who may write to the registry could name
another. A signature, by a key that only trainers have, is over the digest, and so over every byte
of the content; it lies beside the content (``signature.json``), so that the digest of a bundle
does not depend on who signed it.

Two environment variables decide. ``PERENNIAL_SIGNING_KEY_FILE``: what is written is signed by this
Ed25519 key. ``PERENNIAL_TRUSTED_KEYS_FILE``: what is not signed by one of these public keys is
refused wherever a bundle is opened. Neither needs the other. Only then is ``cryptography`` needed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from perennial.bundle.manifest import canonical_json
from perennial.contracts.distribution import pip_install
from perennial.contracts.errors import InputError, IntegrityError, Problem
from perennial.contracts.refs import Value

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

SIGNATURE = "signature.json"
KEY_VARIABLE = "PERENNIAL_SIGNING_KEY_FILE"
TRUST_VARIABLE = "PERENNIAL_TRUSTED_KEYS_FILE"

_MOST_BYTES = 64 * 1024
_SUBJECT = b"perennial bundle\0"  # a signature of anything else never counts as one of a bundle
_PUBLIC = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----\s*", re.DOTALL)
_SIGN = "perennial keys sign NAME@V signs it, where the key is"


class Signature(Value):
    """The content of signature.json. ``key`` names who signed (see ``key_id``); whether that is
    true only the key's public half tells."""

    algorithm: Literal["ed25519"] = "ed25519"
    key: str
    signature: str


def sign(digest: str) -> bytes | None:
    """The signature.json of a bundle by the key of PERENNIAL_SIGNING_KEY_FILE; None without one.
    The same key and digest give the same bytes.

    Raises InputError when the key can't be read, is none, or may be read by everybody.
    """
    path = os.environ.get(KEY_VARIABLE)
    if not path:
        return None
    key = _private_key(Path(path))
    made = base64.b64encode(key.sign(_SUBJECT + digest.encode())).decode()
    found = Signature(key=key_id(key.public_key()), signature=made)
    return canonical_json(found.model_dump()) + b"\n"


def read_signature(folder: Path) -> bytes | None:
    """The bytes of a bundle's signature.json, not judged; None when it has none."""
    try:
        with (folder / SIGNATURE).open("rb") as file:
            return file.read(_MOST_BYTES)
    except OSError:
        return None


def check_signature(where: str, digest: str, signature: bytes | None) -> None:
    """Raises IntegrityError when PERENNIAL_TRUSTED_KEYS_FILE is set and no key of it signed this
    digest, InputError when that file can't be used. Does nothing when it is not set."""
    path = os.environ.get(TRUST_VARIABLE)
    if not path:
        return
    trusted = trusted_keys(Path(path))
    where = f"{where}, {SIGNATURE}"
    if signature is None:
        what = f"not signed, and {TRUST_VARIABLE} asks for a signature"
        raise IntegrityError(Problem(where, what, _SIGN))
    try:
        found = Signature.model_validate_json(signature)
        made = base64.b64decode(found.signature, validate=True)
    except (ValidationError, binascii.Error):
        raise IntegrityError(Problem(where, "not a signature that can be read", _SIGN)) from None
    if found.key not in trusted:
        known = ", ".join(trusted)
        what = f"signed by the key {found.key[:80]!r}, which {path} does not have (it has {known})"
        raise IntegrityError(Problem(where, what, "add its public key there if you trust it"))

    from cryptography.exceptions import InvalidSignature

    try:
        trusted[found.key].verify(made, _SUBJECT + digest.encode())
    except InvalidSignature:
        what = f"not what the key {found.key} made for the digest {digest}"
        fix = "somebody changed the bundle or its signature: find out who before you train again"
        raise IntegrityError(Problem(where, what, fix)) from None


def new_key(path: Path) -> str:
    """Make a key: the private half at ``path``, for its owner only, the public one beside it as
    ``<path>.pub``. Returns its ``key_id``. Raises InputError, and leaves neither, when one of the
    files is there already or can't be written."""
    _needs_cryptography("perennial keys new")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    beside = path.with_name(path.name + ".pub")
    if beside.exists():
        raise InputError(Problem(str(beside), "is there already", "name another file"))
    _write_new(path, private, 0o600)
    try:
        _write_new(beside, _pem(key.public_key()), 0o644)
    except InputError:
        path.unlink()
        raise
    return key_id(key.public_key())


def key_id(key: Ed25519PublicKey) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the raw public key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def trusted_keys(path: Path) -> dict[str, Ed25519PublicKey]:
    """The public keys of a file by ``key_id``: PEM, one after the other, with any text between.

    Raises InputError when it can't be read, has none, one that is not Ed25519, or when others than
    its owner may write to it.
    """
    _needs_cryptography(TRUST_VARIABLE)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    where = f"{TRUST_VARIABLE}, {path}"
    data = _read(path, where, stat.S_IWGRP | stat.S_IWOTH, "others may write to it", "go-w")
    found: dict[str, Ed25519PublicKey] = {}
    for number, text in enumerate(_PUBLIC.findall(data), 1):
        try:
            key = load_pem_public_key(text)
        except (ValueError, UnsupportedAlgorithm):
            what = f"key {number} can't be read"
            raise InputError(Problem(where, what, "perennial keys new makes keys")) from None
        if not isinstance(key, Ed25519PublicKey):
            what = f"key {number} is not an Ed25519 key"
            raise InputError(Problem(where, what, "perennial keys new makes keys"))
        found[key_id(key)] = key
    if not found:
        fix = "it takes the .pub files of perennial keys new, one after the other"
        raise InputError(Problem(where, "no public key in it", fix))
    return found


def _private_key(path: Path) -> Ed25519PrivateKey:
    _needs_cryptography(KEY_VARIABLE)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    where = f"{KEY_VARIABLE}, {path}"
    shared = stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP
    data = _read(path, where, shared, "others may read it or write to it", "g-w,o-rwx")
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # never the library's text: it may quote
        what = "not a private key in PEM that can be read without a password"
        raise InputError(Problem(where, what, "perennial keys new makes one")) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(Problem(where, "not an Ed25519 key", "perennial keys new makes one"))
    return key


def _read(path: Path, where: str, forbidden: int, shared: str, mode: str) -> bytes:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno()).st_mode
            data = file.read(_MOST_BYTES)
    except OSError as error:
        raise InputError(Problem(where, f"can't be read: {error.strerror}")) from None
    if found & forbidden:
        what = f"{shared} (mode {stat.S_IMODE(found):04o})"
        raise InputError(Problem(where, what, f"chmod {mode} {path}"))
    return data


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise InputError(Problem(str(path), "is there already", "name another file")) from None
    except OSError as error:
        raise InputError(Problem(str(path), f"can't be written: {error.strerror}")) from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
    except OSError as error:
        path.unlink()
        raise InputError(Problem(str(path), f"can't be written: {error.strerror}")) from None


def _pem(key: Ed25519PublicKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _needs_cryptography(what: str) -> None:
    try:
        import cryptography  # noqa: F401
    except ModuleNotFoundError:
        fix = pip_install("signing")
        raise InputError(Problem(what, "signatures need cryptography", fix)) from None
