"""``python -m flows NAME PARAMETERS``: run one flow in this process. The command line calls this.

PARAMETERS is a JSON object. The result is printed as JSON on standard output, errors as their
message on standard error; the exit code is the error's (see perennial.contracts.errors).
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback

import httpx
from prefect import Flow
from prefect.settings import PREFECT_API_URL
from pydantic import BaseModel

from perennial.contracts.errors import PerennialError
from tasks._storage import connect_storage


def main(name: str, parameters: str) -> int:
    flow = getattr(importlib.import_module(f"flows.{name}"), name)
    assert isinstance(flow, Flow)
    values = json.loads(parameters)
    if not PREFECT_API_URL.value():  # Prefect starts a server for the run
        from flows._server import end_with_this_process  # its modules take a while to import

        end_with_this_process()
    try:
        connect_storage()  # Prefect loads the block before the flow's body can say what it lacks
        result: BaseModel = flow(**values)
    except (Exception, KeyboardInterrupt) as error:
        code = tell(error)
        let_go(error)
        return code
    print(result.model_dump_json())
    return 0


def tell(error: BaseException) -> int:
    """Say on standard error what ended a flow; returns the exit code."""
    if isinstance(error, PerennialError):
        print(error.message, file=sys.stderr)
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        print("interrupted; the same command goes on where this stopped", file=sys.stderr)
        return 130
    if isinstance(error, httpx.TransportError) or "Failed to reach API" in str(error):
        fix = "start it, or unset PREFECT_API_URL: Prefect then starts one for the run"
        where = PREFECT_API_URL.value()
        print(f"{where}: the Prefect server does not answer ({fix})", file=sys.stderr)
    else:  # a fault of ours or of the environment; Prefect's own frames tell nothing
        traceback.print_exception(error, limit=-6, chain=False)
    return 1


def let_go(error: BaseException | None) -> None:
    """Empty the frames behind an error. Prefect keeps the error until the process ends, and what
    its frames hold with it: DuckDB counts what outlives it, and complains line by line."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
