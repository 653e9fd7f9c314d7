"""``python -m flows NAME PARAMETERS``: run one flow in this process. The command line calls this.

PARAMETERS is a JSON object. The result is printed as JSON on standard output, errors as their
message on standard error; the exit code is the error's (see perennial.contracts.errors).
"""

from __future__ import annotations

import importlib
import json
import sys

from prefect import Flow, tags
from pydantic import BaseModel

from perennial.contracts.errors import PerennialError


def main(name: str, parameters: str) -> int:
    flow = getattr(importlib.import_module(f"flows.{name}"), name)
    assert isinstance(flow, Flow)
    values = json.loads(parameters)
    labels = [f"{key}:{values[key]}" for key in ("model", "reason") if key in values]
    try:
        with tags(*labels):
            result: BaseModel = flow(**values)
    except PerennialError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    print(result.model_dump_json())
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
