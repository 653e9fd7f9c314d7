"""What a flow imports before it runs, which is what an event waits for."""

from __future__ import annotations

import subprocess
import sys


def test_a_training_has_begun_before_it_imports_what_only_its_stages_need() -> None:
    script = "import sys, flows.continuous_training; print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    imported = set(done.stdout.split())
    assert "prefect" in imported
    assert not imported & {"pandas", "numpy", "pyarrow", "deltalake", "xgboost", "optuna"}
