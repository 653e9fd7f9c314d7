"""Schemathesis: requests made from the OpenAPI document, right and wrong ones, over HTTP."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.served import Server

# Whether a wrong row is accepted is not among the checks: values are read as training reads them,
# so that "1.5" is a number and 7 a text.
_EVERY_REQUEST = ",".join(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "unsupported_method",
        "allow_header_conformance",
    ]
)


@pytest.mark.parametrize(
    "options",
    [
        ["--phases", "examples,coverage,fuzzing", "--max-examples", "3", "--exclude-path-regex", "prices",
         "--checks", _EVERY_REQUEST],
        ["--phases", "fuzzing", "--max-examples", "20", "--mode", "positive",
         "--checks", "positive_data_acceptance", "--include-path-regex", "^/models/"],
    ],
    ids=["every request gets an answer that the document promises", "rows that fit are accepted"],
)  # fmt: skip
def test_the_openapi_document_is_true(server: Server, tmp_path: Path, options: list[str]) -> None:
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), "run", f"{server.url}/openapi.json",
            *options, "--seed", "7", "--request-timeout", "20", "--continue-on-failure",
            "--generation-database", "none", "--no-color",
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    server.is_well()
