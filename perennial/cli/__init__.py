"""The command line. Exit codes: 0 done, 1 the work failed or a gate said no, 2 wrong input."""

from perennial.cli.app import main

__all__ = ["main"]
