"""``python -m perennial``: the command line, also where no script is installed."""

from perennial.cli import main

main()
