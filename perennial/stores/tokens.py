"""The tokens of the service, on disk: who may do what, and never the tokens themselves.

A token is 256 random bits, so its plain SHA-256 can't be turned back, and need not be kept from
readers; from writers it must, since an entry is all that access takes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from perennial.contracts.errors import InputError, Problem
from perennial.contracts.refs import Value
from perennial.spec.documents import document_text, read_document
from perennial.stores.stamps import Stamp, stamp_of

Role = Literal["predict", "label", "admin"]
ROLES: tuple[Role, ...] = ("predict", "label", "admin")
FILE_NAME = "tokens.yaml"

_HEAD = "# Made by `perennial tokens`. The server reads it again when it changes.\n"
_FIRST = "perennial tokens add NAME --role predict makes one"
_MAX_BYTES = 2**20
_PREFIX = "perennial_"  # by which scanners for leaked secrets, and people, know it


class Token(Value):
    """One token: its holder's name, what it may do, and its SHA-256.

    A name may have several: that is how one is exchanged while both are valid.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    roles: Annotated[tuple[Role, ...], Field(min_length=1)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    created_at: datetime | None = None

    @property
    def id(self) -> str:
        """What tells the tokens of one name apart; says nothing about the token."""
        return self.sha256[:8]


class _Document(Value):
    tokens: tuple[Token, ...]


def digest(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_tokens(path: Path) -> tuple[tuple[Token, ...], Stamp]:
    """All tokens of a file, and the file's stamp from before it was read.

    Raises InputError when there is no such file, when its content is wrong, and when others than
    its owner may write to it.
    """
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError(Problem(str(path), "no such file", _FIRST)) from None
    except OSError as error:
        raise InputError(Problem(str(path), f"can't be read: {error.strerror}")) from None
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        what = f"others may write to it (mode {stat.S_IMODE(found.st_mode):04o})"
        raise InputError(Problem(str(path), what, f"chmod go-w {path}"))
    return _parsed(data, path), stamp_of(found)


def add_token(path: Path, name: str, roles: Sequence[Role], now: datetime) -> str:
    """Add a token to a file, which is made if need be, and return it: it is kept nowhere else.

    Raises InputError for a wrong name, and as ``read_tokens``.
    """
    token = _PREFIX + secrets.token_urlsafe(32)
    try:
        entry = Token(
            name=name, roles=tuple(dict.fromkeys(roles)), sha256=digest(token), created_at=now
        )
    except ValidationError:
        what = f"{name!r} is not a name"
        fix = "1 to 64 letters, digits, dots, dashes and underscores; a letter or digit comes first"
        raise InputError(Problem("NAME", what, fix)) from None
    with _alone(path):
        _write(path, (*_kept(path), entry))
    return token


def remove_tokens(path: Path, name: str, identity: str | None) -> tuple[Token, ...]:
    """Remove the tokens of a name from a file, or only the one with this id; return what is gone.

    Raises InputError when there is none, and as ``read_tokens``.
    """
    with _alone(path):
        tokens = read_tokens(path)[0]
        named = [token for token in tokens if token.name == name]
        gone = [token for token in named if identity in (None, token.id)]
        if not gone:
            what = f"no token of {name!r}" + (f" with id {identity!r}" if identity else "")
            known = ", ".join(token.id for token in named) if named else ", ".join(
                sorted({token.name for token in tokens})
            )  # fmt: skip
            fix = f"{'its ids' if named else 'names'} here: {known}" if known else ""
            raise InputError(Problem(str(path), what, fix))
        _write(path, [token for token in tokens if token not in gone])
    return tuple(gone)


def _parsed(data: bytes, path: Path) -> tuple[Token, ...]:
    if len(data) > _MAX_BYTES:
        raise InputError(Problem(str(path), f"larger than {_MAX_BYTES:,} bytes"))
    try:
        document = read_document(data.decode(), str(path), f"remove it; {_FIRST}")
        tokens = _Document.model_validate(document).tokens
    except UnicodeDecodeError as error:
        raise InputError(Problem(str(path), f"not UTF-8 text at byte {error.start}")) from None
    except ValidationError as error:
        raise InputError(
            [
                Problem(f"{path}, {'.'.join(map(str, item['loc']))}", item["msg"])
                for item in error.errors(include_url=False)
            ]
        ) from None
    seen: set[str] = set()
    for i, token in enumerate(tokens):
        if token.sha256 in seen:
            what = "the same token is there twice"
            raise InputError(Problem(f"{path}, tokens.{i}.sha256", what, "one holder, one token"))
        seen.add(token.sha256)
    return tokens


def _kept(path: Path) -> tuple[Token, ...]:
    return read_tokens(path)[0] if path.exists() else ()


def _write(path: Path, tokens: Sequence[Token]) -> None:
    """Put a new file in place of the old one, with its mode and group; the first one is 0600."""
    document = _Document(tokens=tuple(tokens)).model_dump(mode="json", exclude_none=True)
    target = path.resolve()
    old = target.stat() if target.exists() else None
    new = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(_HEAD + document_text(document))
            file.flush()
            if old is not None:
                os.fchown(handle, -1, old.st_gid)
                os.fchmod(handle, stat.S_IMODE(old.st_mode))
            os.fsync(handle)
        new.replace(target)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Only one at a time changes the file, or a token that was given out would be lost."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.resolve().parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
