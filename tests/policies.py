"""Which requests an IAM policy allows: what a store was asked, as actions of AWS.

A view of the policies that shares nothing with our code: requests are read from the store's log.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_LINE = re.compile(r'"([A-Z]+) (\S+) HTTP/[\d.]+" (\d{3})')


SEVERAL = "?delete"
"""Of objects whose names stand in the request's body, which no log has."""


@dataclass(frozen=True, order=True)
class Asked:
    """An action of S3, on a bucket or an object (``arn:aws:s3:::…``)."""

    action: str
    resource: str


def asked(method: str, target: str) -> Asked:
    """What AWS asks a policy for, of a request in path style."""
    parts = urlsplit(target)
    bucket, _, key = unquote(parts.path).strip("/").partition("/")
    query = parse_qs(parts.query, keep_blank_values=True)
    if not key and (method, list(query)) == ("POST", ["delete"]):
        return Asked("s3:DeleteObject", f"arn:aws:s3:::{bucket}/{SEVERAL}")
    if not key:
        lists = method == "HEAD" or (method == "GET" and "list-type" in query)
        return Asked("s3:ListBucket" if lists else f"{method} {target}", f"arn:aws:s3:::{bucket}")
    if method == "DELETE":
        action = "AbortMultipartUpload" if "uploadId" in query else "DeleteObject"
    else:
        action = "GetObject" if method in ("GET", "HEAD") else "PutObject"
    return Asked(f"s3:{action}", f"arn:aws:s3:::{bucket}/{key}")


@contextmanager
def recording() -> Iterator[set[Asked]]:
    """All that moto's server of this process is asked meanwhile."""
    found: set[Asked] = set()

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if match := _LINE.search(re.sub(r"\x1b\[[\d;]*m", "", record.getMessage())):
                found.add(asked(match[1], match[2]))

    logger, handler = logging.getLogger("werkzeug"), Listening()
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


def policy(name: str, bucket: str, prefix: str) -> list[dict[str, Any]]:
    """The statements of a policy of deployments/ecs, for a bucket and a prefix."""
    path = Path(__file__).parents[1] / "deployments" / "ecs" / name
    text = path.read_text().replace("YOUR-BUCKET", bucket).replace("YOUR-PREFIX", prefix)
    return list(json.loads(text)["Statement"])


def granting(statements: list[dict[str, Any]], one: Asked) -> set[tuple[str, str]]:
    """The actions on resources of a policy that allow it; none: it is refused."""
    return {
        (action, resource)
        for statement in statements
        for action in statement["Action"]
        for resource in _all(statement["Resource"])
        if action == one.action
        and (one.resource.endswith(f"/{SEVERAL}") or fnmatchcase(one.resource, resource))
    }


def granted(statements: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """All actions on resources that a policy allows."""
    return {
        (action, resource)
        for statement in statements
        for action in statement["Action"]
        for resource in _all(statement["Resource"])
    }


def _all(resources: str | list[str]) -> list[str]:
    return [resources] if isinstance(resources, str) else resources
