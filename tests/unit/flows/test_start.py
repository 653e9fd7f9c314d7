"""What a flow imports before it runs, which is what an event waits for."""

from __future__ import annotations

import subprocess
import sys
import weakref

import duckdb
import pytest

from flows.__main__ import let_go


def test_a_training_has_begun_before_it_imports_what_only_its_stages_need() -> None:
    script = "import sys, flows.continuous_training; print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    imported = set(done.stdout.split())
    assert "prefect" in imported
    assert not imported & {"pandas", "numpy", "pyarrow", "deltalake", "xgboost", "optuna"}


def test_an_error_that_prefect_keeps_holds_nothing_of_what_was_at_work() -> None:
    held = []

    def work() -> None:
        connection = duckdb.connect()
        held.append(weakref.ref(connection))
        try:
            raise ValueError("of the engine")
        except ValueError:
            raise LookupError("in words") from None

    with pytest.raises(LookupError) as kept:
        work()
    assert held[0]() is not None

    let_go(kept.value)

    assert held[0]() is None
