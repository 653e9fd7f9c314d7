"""Schemathesis: requests made from the OpenAPI document, right and wrong ones, over HTTP."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.fuzz.served import Server

# All checks but two. Whether a wrong row is accepted is not one, since values are read as training
# reads them: "1.5" is a number and 7 a text. And which tensors fit a model is not in the document.
_CONFIG = """
[checks]
negative_data_rejection.enabled = false

[[operations]]
include-path-regex = "^/v2"
checks.positive_data_acceptance.enabled = false
"""


def test_every_answer_is_one_that_the_openapi_document_promises(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "schemathesis.toml").write_text(_CONFIG)

    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), "run", f"{server.url}/openapi.json",
            "--phases", "coverage,fuzzing", "--max-examples", "8",
            "--exclude-path-regex", "letters", "--seed", "7", "--request-timeout", "20",
            "--continue-on-failure", "--generation-database", "none", "--no-color",
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    server.is_well()
