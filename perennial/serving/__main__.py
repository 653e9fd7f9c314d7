"""``python -m perennial.serving SETTINGS``: one server. ``perennial serve`` becomes this process.

SETTINGS is a JSON object of ``Settings``. Errors end it with their message and exit code.
"""

from __future__ import annotations

import logging
import os
import sys

from perennial.bundle.absent import ABSENT, hide

hide(ABSENT - {"jinja2"})

from perennial.contracts.errors import PerennialError  # noqa: E402
from perennial.serving.run import serve  # noqa: E402
from perennial.serving.settings import Settings  # noqa: E402


def main(settings: str) -> int:
    try:
        serve(
            Settings.model_validate_json(settings),
            lambda address: print(f"listening at {address}", flush=True),
        )
    except PerennialError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1])
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)  # Python would wait for threads, and a version may compute for ever
