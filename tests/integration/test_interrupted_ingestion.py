"""Ingestion that is killed, or that meets another: nothing is lost, nothing is there twice."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from perennial.contracts.refs import StagedRef
from perennial.spec import parse_spec
from perennial.stores import quarantine, sources, staging, tables

MODEL = """
name: m
objective: regression
source: {kind: csv, uri: rows.csv, event_time: at, entity: [id]}
label: {column: y}
columns:
  id: {type: category}
  x: {type: float, max: 100}
  y: {type: float}
quarantine: {max_share: 0.2}
"""
# Says when it is past its imports, so that a kill falls into the work.
INGEST = """
import sys
from pathlib import Path
import deltalake, duckdb, pandera.pandas
from perennial.spec import load_spec
from perennial.stores import sources, staging, tables

root = Path(sys.argv[1])
spec = load_spec(root / "model.yaml")
table, bad = str(root / "tables" / "m"), str(root / "quarantine" / "m")
print("ready", flush=True)
sys.stdin.readline()
look = sources.inspect(spec, root, None, None)
staged = staging.stage(spec, root, look, root / "staging")
tables.publish(spec, staged, table, bad)
"""
SPEC = parse_spec(MODEL)


def rows(first: int, count: int, y: float) -> str:
    lines = []
    for i in range(first, first + count):
        x = 1000 if i % 50 == 7 else i % 90
        lines.append(f"2024-01-01T{i // 3600:02}:{i // 60 % 60:02}:{i % 60:02}Z,c{i},{x},{y}\n")
    return "at,id,x,y\n" + "".join(lines)


def start(root: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", INGEST, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors


def end_state(root: Path) -> tuple[pd.DataFrame, list[str], list[str]]:
    """The table, the quarantined rows, and the temporary folders that are left."""
    table, bad = str(root / "tables" / "m"), str(root / "quarantine" / "m")
    frames = tables.scan(tables.dataset(SPEC, table, None), SPEC)
    kept = sorted(str(row.row) for row in quarantine.rows(bad, limit=10_000))
    left = [path.name for path in root.rglob(".writing-*")]
    return pd.concat(frames, ignore_index=True), kept, left


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "model.yaml").write_text(MODEL)
    return tmp_path


@pytest.mark.parametrize("most", [100, 80])
def test_killed_at_any_moment_and_run_again_ingestion_comes_to_the_same_end(
    root: Path, most: int
) -> None:
    """By the rules of before, or by stricter ones that rows of the table break as well."""
    before, after = rows(0, 3000, 1.0), rows(0, 3000, 1.0).replace(",5,1.0", ",5,2.0")
    after += rows(3000, 3000, 1.0).partition("\n")[2]
    (root / "rows.csv").write_text(before)
    undisturbed = start(root)
    began = time.monotonic()
    go(undisturbed)
    finish(undisturbed)
    length = time.monotonic() - began
    (root / "rows.csv").write_text(after)
    (root / "model.yaml").write_text(MODEL.replace("max: 100", f"max: {most}"))
    moments = random.Random(11)
    killed = 0
    for _ in range(6):
        process = start(root)
        go(process)
        try:
            process.wait(moments.uniform(0.0, 1.1) * length)
        except subprocess.TimeoutExpired:
            process.kill()
            killed += 1
        process.communicate()
    assert killed > 0
    final = start(root)
    go(final)
    finish(final)
    table, kept, left = end_state(root)
    bad = sum(float(line.split(",")[2]) > most for line in after.splitlines()[1:])
    assert len(table) == 6000 - bad
    assert table["id"].is_unique
    assert table["x"].max() <= most
    assert (table["y"] == 2.0).sum() == sum(",5,2.0" in line for line in after.splitlines()) > 0
    assert len(kept) == bad
    assert left == []


def _publish_together(barrier: threading.Barrier, table: str, bad: str, batch: StagedRef) -> None:
    barrier.wait()
    tables.publish(SPEC, batch, table, bad)


def test_writers_at_once_neither_lose_nor_double_a_row(root: Path) -> None:
    """Batches that overlap, one changing rows of the others, published at the same moment."""
    batches = [rows(0, 200, 1.0), rows(100, 200, 1.0), rows(200, 200, 1.0), rows(150, 100, 2.0)]
    batches.append(rows(0, 400, 3.0))
    staged = []
    for text in batches:
        (root / "rows.csv").write_text(text)
        look = sources.inspect(SPEC, root, None, None)
        staged.append(staging.stage(SPEC, root, look, root / "staging"))
    *staged, later = staged
    met = 0
    for number in range(6):
        place = root / str(number)
        table, bad = str(place / "tables" / "m"), str(place / "quarantine" / "m")
        barrier = threading.Barrier(len(staged))

        publish = partial(_publish_together, barrier, table, bad)
        with ThreadPoolExecutor(len(staged)) as pool:
            list(pool.map(publish, staged))
        found, kept, left = end_state(place)
        assert found["id"].tolist() == sorted(found["id"], key=lambda name: int(name[1:]))
        assert len(found) == found["id"].nunique() == 400 - 8
        assert set(found["y"]) <= {1.0, 2.0}
        # Of 157 and 207 there are two texts, of which none need be the last while writers meet.
        assert 8 <= len(kept) == len(set(kept)) <= 8 + 2
        assert len({row.partition("'y'")[0] for row in kept}) == 8
        assert left == []
        met += tables.dataset(SPEC, table, None).version
        done = tables.publish(SPEC, staged[3], table, bad)
        assert tables.publish(SPEC, staged[3], table, bad) == done
        tables.publish(SPEC, later, table, bad)
        found, kept, _ = end_state(place)
        assert len(found) == 400 - 8
        assert set(found["y"]) == {3.0}
        assert len(kept) == sum("'y': '3.0'" in row for row in kept) == 8
    assert met > 0
