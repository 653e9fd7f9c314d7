"""What pip calls Perennial. On PyPI the name ``perennial`` is another project's."""

from __future__ import annotations

DISTRIBUTION = "perennial-ml"


def pip_install(*extras: str) -> str:
    """The command that adds the libraries of some extras to an installed Perennial."""
    return f"pip install '{DISTRIBUTION}[{','.join(extras)}]'"
