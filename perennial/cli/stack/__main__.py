"""``python -m perennial.cli.stack PROJECT PORTS``: a supervisor in the background.

PORTS is a JSON object of the ports that were asked for, by part. Errors end it with their message
and exit code.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from perennial.cli.stack.supervisor import Supervisor, say
from perennial.contracts.errors import PerennialError
from perennial.stores.project import Project


def main(root: str, ports: str) -> int:
    try:
        Supervisor(Project(Path(root)), json.loads(ports)).run(lambda _: None)
    except PerennialError as error:
        say(error.message)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
