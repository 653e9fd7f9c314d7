from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import duckdb
import pytest

from flows.__main__ import let_go
from perennial.stores import engine, lake


def connections() -> int:
    return sum(type(one) is duckdb.DuckDBPyConnection for one in gc.get_objects())


def test_an_error_that_is_kept_with_closures_of_its_frames_keeps_no_connection(
    tmp_path: Path,
) -> None:
    """DuckDB counts what outlives it and complains line by line, after the error's own message."""

    def work() -> None:
        with engine.connect(tmp_path) as connection:
            lake.until_committed("table", lambda: attempt(connection))

    def attempt(connection: Any) -> None:
        rows = connection.sql("SELECT 1 AS x").to_arrow_reader(10)
        raise LookupError(rows.schema.names)

    before = connections()
    with pytest.raises(LookupError) as kept:
        work()
    let_go(kept.value)
    assert connections() == before
