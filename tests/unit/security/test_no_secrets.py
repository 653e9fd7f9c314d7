"""No secret in any tracked file: the forms that providers give theirs, keys, and URLs that hold a
password. Examples in docs and tests are told by their words.

The forms are those that scanners for leaked secrets know, kept short: entropy is not measured, for
a repository full of digests has nothing else.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FORMS = {
    "a private key": rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\\?n?\s*[A-Za-z0-9+/=]{16}",
    "an AWS access key": rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "an AWS secret key": rb"(?i)aws.{0,20}secret.{0,20}['\"][A-Za-z0-9/+]{40}['\"]",
    "a GitHub token": rb"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60})",
    "a GitLab token": rb"\bglpat-[A-Za-z0-9_-]{20}",
    "a Slack token": rb"\bxox[abprs]-[0-9]{6,}-[A-Za-z0-9-]{10,}",
    "a Slack webhook": rb"hooks\.slack\.com/services/T[A-Z0-9]{8,}/B[A-Z0-9]{8,}/[A-Za-z0-9]{20,}",
    "a Prefect key": rb"\bpn[ub]_[A-Za-z0-9]{36}\b",
    "a PyPI token": rb"\bpypi-AgE[A-Za-z0-9_-]{50}",
    "a Google key": rb"\bAIza[0-9A-Za-z_-]{35}\b",
    "a token of ours": rb"\bperennial_[A-Za-z0-9_-]{43}\b",
    "a JSON web token": rb"\beyJ[A-Za-z0-9_-]{15,}\.eyJ[A-Za-z0-9_-]{15,}\.[A-Za-z0-9_-]{15,}",
    "a password in a URL": rb"[a-z0-9+]{2,}://[^\s/:@'\"`{}<>$]+:([^\s/:@'\"`{}<>$]+)@[a-z0-9\[]",
}
PATTERNS = {name: re.compile(form) for name, form in FORMS.items()}
EXAMPLES = re.compile(
    rb"(?i)\*\*\*|^(?:\xe2\x80\xa6|\.\.\.|hun|pw?)$|pass|secret|s3cre?[t7]|5ecre7|hidden|hunter2|wr[o0]ng|s3cr3t"
    rb"|word|token|example"
)
"""Passwords of examples: they say what they are. One in a new test should, too."""


def _found(data: bytes) -> list[tuple[str, bytes]]:
    """The secrets in a file, by kind; of a password in a URL only the password."""
    return [
        (name, match.group(match.lastindex or 0))
        for name, pattern in PATTERNS.items()
        for match in pattern.finditer(data)
        if not (name == "a password in a URL" and EXAMPLES.search(match[1]))
    ]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("a private key", "-----BEGIN " + "PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA"),
        ("an AWS access key", "AKIA" + "ABCDEFGHIJ234567"),
        ("a GitHub token", "ghp_" + "a1" * 18),
        ("a Slack token", "xoxb-" + "123456789012-abcdefghijkl"),
        ("a Prefect key", "pnu_" + "a1" * 18),
        ("a token of ours", "perennial_" + "Ab-_" * 10 + "xyz"),
        ("a password in a URL", "postgresql://me:" + "Tr0ub4dor&3@db.internal/x"),
    ],
)
def test_a_secret_is_found(kind: str, text: str) -> None:
    assert [name for name, _ in _found(f"x = '{text}'\n".encode())] == [kind]


@pytest.mark.parametrize(
    "text",
    ["postgresql://me:***@host/x", "smtp://USER:PASSWORD@HOST:587", "http://localhost:4200/api",
     "postgresql+psycopg://{user}:{key}@{host}", "perennial_token", "s3://bucket/a:b@c"],
)  # fmt: skip
def test_an_example_is_none(text: str) -> None:
    assert _found(text.encode()) == []


def test_no_tracked_file_holds_a_secret() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, timeout=240
    ).stdout
    paths = [ROOT / name.decode() for name in listed.split(b"\0") if name]
    assert len(paths) > 300

    found = [
        f"{path.relative_to(ROOT)}: {kind}"
        for path in paths
        if path.is_file()
        for kind, _ in _found(path.read_bytes())
    ]
    assert found == []


def test_no_file_of_keys_or_tokens_is_tracked() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, check=True, text=True, timeout=240
    ).stdout.splitlines()
    names = re.compile(
        r"(^|/)(\.env|tokens\.yaml|\.netrc|\.pypirc|id_[a-z0-9]+|.*\.(key|p12|pfx))$"
    )

    assert [path for path in listed if names.search(path)] == []
