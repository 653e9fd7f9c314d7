"""What a process that predicts does without, installed or not.

Feature code that needs it then fails where it is judged, and not in production only. It also makes
the start quick and the process small: libraries load what they find (XGBoost all of scikit-learn).
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from importlib.abc import MetaPathFinder

ABSENT = frozenset(
    {
        "prefect", "prefect_aws", "optuna", "evidently", "wandb", "sklearn", "pandera", "duckdb",
        "deltalake", "matplotlib", "fastapi", "jinja2", "plotly", "tasks", "flows",
        "perennial.learning", "psutil", "threadpoolctl",
    }
)  # fmt: skip


def hide(names: Collection[str]) -> None:
    """From now on these modules can't be imported in this process."""
    sys.meta_path.insert(0, _Hidden(frozenset(names)))


class _Hidden(MetaPathFinder):
    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname in self._names:
            raise ModuleNotFoundError(f"{fullname} is not there when serving", name=fullname)
