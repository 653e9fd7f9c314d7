"""Where the project's storage is: a folder, or ``s3://bucket/prefix``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from urllib.parse import urlsplit

from perennial.contracts.errors import InputError, Problem

STORAGE_VARIABLE = "PERENNIAL_STORAGE"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9_.=/-]*")
_UNFIT = re.compile(r"%[0-9A-Fa-f]{2}|[\[\]*?#^|\\\x00-\x1f\x7f]")
_SCHEMES = ("s3", "s3a")
_REGION = "us-east-1"
_ATTEMPTS, _MOST_ATTEMPTS = 12, 100


def is_remote(uri: str) -> bool:
    """Whether something is not a path of this machine."""
    return "://" in uri


def check_place(where: str) -> None:
    """Raises InputError for a folder, or an address in a bucket, that can't hold tables: with one
    of these characters in it Delta's library opens none there, takes it for another place, or finds
    no history; and DuckDB takes some for a pattern that other files match."""
    if is_remote(where):
        check_address(where)
    unfit = _UNFIT.search(where)
    if unfit:
        what = f"no tables can be kept in a folder whose path has {unfit[0]!r} in it"
        fix = r"use another, without # [ ] * ? ^ | \ %XX and control characters in its path"
        raise InputError(Problem(where, what, fix))


def check_address(uri: str) -> None:
    """Raises InputError for an address that isn't ``s3://bucket/…``, or has other spellings: parts
    that are empty, ``.`` or ``..``."""
    scheme, _, rest = uri.partition("://")
    bucket, *folders = rest.rstrip("/").split("/")
    known = scheme.lower() in _SCHEMES and bucket and "@" not in bucket
    if not known or {"", ".", ".."} & set(folders):
        what = "is neither a folder nor s3://bucket/prefix"
        fix = "no empty parts, . or .. in the prefix; credentials belong in AWS_… variables"
        raise InputError(Problem(without_password(uri), what, fix))


def resolved(where: str) -> PurePath:
    """One path for all spellings of a place: links are followed; that of an address begins with the
    bucket."""
    if is_remote(where):
        return PurePosixPath(where.partition("://")[2])
    return Path(os.path.realpath(where))  # which ends also where links lead to each other


def storage_place(setting: str, root: Path, home: Path) -> str:
    """Where durable things live: ``home`` when there is no setting, a folder (relative to the
    project's ``root``), or ``s3://bucket/prefix``. Raises InputError for anything else."""
    if not setting:
        return str(home)
    if not is_remote(setting):
        folder = str((root / Path(setting).expanduser()).absolute())
        check_place(folder)
        return folder
    parts = urlsplit(setting)
    fits = (
        parts.scheme == "s3"
        and _BUCKET.fullmatch(parts.netloc)
        and _PREFIX.fullmatch(parts.path)
        and not parts.query + parts.fragment
        and not {".", "..", ""} & set(parts.path.strip("/").split("/") if parts.path else ())
    )
    if not fits and not (parts.scheme == "s3" and parts.path == "/" and parts.netloc):
        what = f"{without_password(setting)!r} is neither a folder nor s3://bucket/prefix"
        fix = "letters, digits and _ . = - in the prefix; credentials belong in AWS_… variables"
        raise InputError(Problem(STORAGE_VARIABLE, what, fix))
    return setting.rstrip("/")


def bucket_of(uri: str) -> tuple[str, str]:
    """The bucket and the key of an ``s3://`` address."""
    bucket, _, key = uri.partition("://")[2].partition("/")
    return bucket, key.strip("/")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Which S3 it is. ``url`` is None for Amazon's own; plain HTTP is only spoken where ``url``
    says so."""

    url: str | None
    region: str
    attempts: int = _ATTEMPTS
    """How often a busy or lost store is asked at most."""

    @classmethod
    def current(cls, environment: Mapping[str, str] = os.environ) -> Endpoint:
        """As AWS's own variables say: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, AWS_REGION,
        AWS_DEFAULT_REGION (us-east-1 where there is none), AWS_MAX_ATTEMPTS. Raises InputError."""
        attempts = environment.get("AWS_MAX_ATTEMPTS") or str(_ATTEMPTS)
        if not attempts.isdecimal() or not 0 < int(attempts) <= _MOST_ATTEMPTS:
            what = f"is {attempts!r}, no number from 1 to {_MOST_ATTEMPTS}"
            raise InputError(Problem("AWS_MAX_ATTEMPTS", what, "unset it"))
        return cls(
            url=environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL"),
            region=environment.get("AWS_REGION")
            or environment.get("AWS_DEFAULT_REGION")
            or _REGION,
            attempts=int(attempts),
        )

    @property
    def plain_http(self) -> bool:
        return (self.url or "").lower().startswith("http://")

    @property
    def told(self) -> str:
        """For people: without a name or password that may stand in it."""
        return without_password(self.url) if self.url else f"Amazon S3 in {self.region}"


def without_password(text: str) -> str:
    """A text whose addresses have neither user nor password."""
    return re.sub(r"//[^/@\s]*@", "//", text)
