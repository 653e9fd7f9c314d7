"""Batch scoring as a user runs it: by the command line, on a real server, killed and run again."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from perennial.bundle.predictor import Predictor
from perennial.bundle.read import open_bundle
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from tests.workplace import Workplace, demand_rows

ROWS = 1_000_000


def content(place: Path) -> pd.DataFrame:
    frame: pd.DataFrame = DeltaTable(str(place)).to_pyarrow_table().to_pandas()
    return frame


def score(project: Workplace, *arguments: str) -> dict[str, Any]:
    done = project.cli("score", "demand", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def many_rows(project: Workplace) -> str:
    few = demand_rows("2024-04-01", 50, seed=3).drop(columns="busy")
    table = pa.Table.from_pandas(few, preserve_index=False)
    repeated = pa.concat_tables([table] * (ROWS // len(few) + 1)).slice(0, ROWS)
    path = project.root / "many.parquet"
    pq.write_table(repeated.append_column("number", pa.array(range(ROWS))), path)
    return str(path)


def test_rows_are_scored_once_by_the_champion_whatever_interrupts_it(
    flow_project: Workplace,
) -> None:
    project, out = flow_project, flow_project.root / "out"
    early = project.cli("score", "demand", "--input", "data/2024-a.csv", "--output", "out")
    assert early.returncode == 2
    assert early.stderr == (
        "registry: 'demand' has no champion: no version was accepted yet (perennial train demand)\n"
    )
    project.run()
    rows = demand_rows("2024-04-01", 30, seed=2).drop(columns="busy")
    written = rows.astype(object)
    written.loc[17, "weekday"] = "Tuesday"
    project.write_rows("next.csv", written)

    first = score(project, "--input", "data/next.csv", "--output", "out")

    assert first["reason"] == "1,199 rows scored by demand@1, 1 could not be"
    assert [stage["stage"] for stage in first["stages"]] == ["score", "publish"]
    ref = Registry(Project(project.root).registry_url).version("demand", 1).ref
    expected = Predictor(open_bundle(Path(ref.uri), ref.digest)).predict(rows).values
    found = content(out)
    assert list(found) == ["at", "shop", "_version", "_prediction"]
    kept = np.arange(len(rows)) != 17
    of_row = found.set_index(["at", "shop"])["_prediction"]
    keys = zip(pd.to_datetime(rows["at"]).dt.as_unit("us"), rows["shop"], strict=True)
    wanted = pd.Series(expected.astype(float), list(keys))[kept]
    assert np.array_equal(of_row.loc[list(wanted.index)], wanted)
    (bad,) = content(project.root / "out_quarantine").to_dict("records")
    assert bad["place"] == "next.csv row 19"
    assert bad["reason"] == "column weekday: 'Tuesday' is not a whole number"
    assert "1,199 rows scored by demand@1" in project.artifact("demand-scoring")

    again = project.cli("score", "demand", "--input", "data/next.csv", "--output", "out")
    assert again.stdout.splitlines() == [
        "nothing to do: 1,199 rows are scored by demand@1 already",
        f"  predictions  {out} (version 0)",
        f"  not scored   {out}_quarantine",
    ]

    many = many_rows(project)
    parameters = {"source": many, "output": str(out), "columns": ["number"]}
    scores = project.root / ".perennial" / "scores" / "demand"
    killed = project.start("batch_scoring", model="demand", **parameters)
    try:
        until = time.monotonic() + 240
        while not any(scores.glob(".writing-*/good/00001.parquet")):
            assert killed.poll() is None, killed.communicate()
            assert time.monotonic() < until
            time.sleep(0.01)
    finally:
        killed.kill()
        killed.communicate()
    assert len(content(out)) == 1199  # as if nothing had happened

    second = project.start("batch_scoring", model="demand", **parameters)
    until = time.monotonic() + 240
    while not _writes(out) and second.poll() is None:  # killed while it writes the table, if it can
        assert time.monotonic() < until
    second.kill()
    second.communicate()

    done = score(project, "--input", many, "--output", "out", "--column", "number")

    assert done["scores"]["rows"] == ROWS
    assert sorted(content(out)["number"]) == list(range(ROWS))
    assert DeltaTable(str(out)).version() == 1
    assert not list(scores.glob(".writing-*"))


def _writes(out: Path) -> bool:
    """Whether a second version's files are there, and perhaps not yet its commit."""
    return len(list(out.glob("part-*.parquet"))) > 1
