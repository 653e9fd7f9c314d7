"""What must not be kept of a person is hashed or left out before anything touches the disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from perennial.contracts.errors import InputError, Problem
from perennial.spec.schema import ModelSpec

KEY_VARIABLE = "PERENNIAL_HASH_KEY"
_SHORTEST = 16


class Redaction:
    """``log.hash`` and ``log.omit`` of a model, applied to rows of the log and to labels.

    A hashed value becomes 32 hexadecimal digits, always the same for the same column, value and
    key, so that rows can still be joined and counted; missing stays missing. Without the key nobody
    can find the value by trying all there are.
    """

    def __init__(self, omit: tuple[str, ...], hashed: tuple[str, ...], key: bytes = b"") -> None:
        self._omit = omit
        self.hashed = hashed
        self._hashers = {name: _keyed(key, name) for name in hashed}

    @classmethod
    def of(cls, spec: ModelSpec, environment: Mapping[str, str] = os.environ) -> Redaction:
        """A model's redaction, with the key in PERENNIAL_HASH_KEY.

        Raises InputError when columns are to be hashed and there is no key, or a short one.
        """
        log = spec.log
        key = environment.get(KEY_VARIABLE, "")
        if log.hash and len(key) < _SHORTEST:
            what = "is not set" if not key else f"has {len(key)} characters, {_SHORTEST} at least"
            fix = "set it to a long random secret, the same on every server, and keep it"
            why = f"{what}; {spec.name} hashes {', '.join(log.hash)} in its prediction log"
            raise InputError(Problem(KEY_VARIABLE, why, fix))
        return cls(log.omit, log.hash, key.encode())

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch as it may be kept. Columns that it doesn't have are no mistake."""
        names = batch.schema.names
        for name, hasher in self._hashers.items():
            if name in names:
                place = names.index(name)
                batch = batch.set_column(place, name, _hashed(batch.column(place), hasher))
        left_out = [name for name in self._omit if name in names]
        return batch.drop_columns(left_out) if left_out else batch


def _keyed(key: bytes, column: str) -> Any:
    secret = hashlib.sha256(key).digest()
    return hashlib.blake2b(f"{column}\0".encode(), key=secret, digest_size=16)


def _hashed(array: pa.Array, hasher: Any) -> pa.Array:
    digests: list[str | None] = []
    for value in array.to_pylist():
        if value is None:
            digests.append(None)
            continue
        digest = hasher.copy()
        digest.update(str(value).encode())
        digests.append(digest.hexdigest())
    return pa.array(digests, pa.string())
