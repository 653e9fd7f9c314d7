"""Secrets in the environment, hostile names in the data: what a run leaves behind holds neither a
secret, nor a pickle, nor a page that runs what a column is called."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.workplace import MODEL_YAML, Workplace

SECRETS = {
    "WANDB_API_KEY": "5ecre7" * 6 + "aaaa",
    "AWS_ACCESS_KEY_ID": "AKIA5ecre7access7777",
    "AWS_SECRET_ACCESS_KEY": "5ecre7-of-aws",
    "AWS_SESSION_TOKEN": "5ecre7-of-a-session",
    "PERENNIAL_HASH_KEY": "5ecre7-of-hashes-that-is-long-enough",
    "PREFECT_API_AUTH_STRING": "5ecre7-name:5ecre7-password",
}
MARK = b"5ecre7"
SCRIPT = "<script>alert(1)</script>"
COLUMN = f"tempera\"ture'; DROP TABLE rows; -- {SCRIPT}"
UNREACHABLE = "postgresql+psycopg://me:5ecre7@127.0.0.1:1/x?sslpassword=5ecre7"

# A pickle as it is (protocol 4 and later begin with a frame of less than 4 GiB), at a file's start
# (older ones), and in base64, as Prefect would keep it.
PICKLE = re.compile(rb"\x80[\x04\x05]\x95.{4}\x00{4}", re.DOTALL)
PICKLE_FILE = re.compile(rb"\x80[\x02-\x05]")
PICKLE_TEXT = re.compile(rb"gA[SW]V[A-Za-z0-9+/]{5,6}AAAA")


@pytest.fixture
def server_files(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Prefect server's folder: its database has every log line, run, artifact and event."""
    found = tmp_path_factory.getbasetemp().glob("prefect-server*")
    (home,) = (path for path in found if not path.is_symlink())
    assert list(home.rglob("*.db"))
    return home


def _files(*folders: Path) -> Iterator[tuple[Path, bytes]]:
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                yield path, path.read_bytes()


def _hostile(project: Workplace) -> None:
    """The example with a column, and values of another, that want to be something else."""
    path = project.root / "data" / "2024-a.csv"
    rows = pd.read_csv(path).rename(columns={"temperature": COLUMN})
    rows["shop"] = rows["shop"].replace({"north": SCRIPT, "south": "'; DROP TABLE rows; --"})
    rows.to_csv(path, index=False)
    spec = yaml.safe_load(MODEL_YAML)
    columns = spec["columns"]
    spec["columns"] = {COLUMN: columns.pop("temperature"), **columns}
    spec["gates"].append({"slices": ["shop"], "metric": "logloss", "max_regression": 9.0})
    spec["log"] = {"hash": ["shop"]}
    (project.model / "model.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    (project.model / "features.py").unlink()


def test_what_a_run_leaves_behind_has_no_secret_no_pickle_and_no_script(
    flow_project: Workplace, server_files: Path
) -> None:
    _hostile(flow_project)
    flow_project.track()
    flow_project.environment.update(SECRETS, PREFECT_LOGGING_LEVEL="DEBUG")

    process = flow_project.start("continuous_training", model="demand", reason="secrets")
    out, err = process.communicate(timeout=480)

    assert process.returncode == 0, err[-3000:]
    assert "5ecre7" not in out + err
    kinds = set()
    home = flow_project.root / ".perennial"
    for path, data in _files(flow_project.root, server_files):
        assert MARK not in data, path
        if path.is_relative_to(home):
            kinds.add(path.relative_to(home).parts[0])
            assert not PICKLE_FILE.match(data), path
            assert not PICKLE.search(data), path
            assert not PICKLE_TEXT.search(data), path
        if path.suffix in (".html", ".svg"):
            assert SCRIPT.encode() not in data, path
    assert kinds >= {"bundles", "features", "reports", "results", "splits", "tables", "wandb"}
    assert {path.name for path in flow_project.root.iterdir()} <= {
        ".perennial", "data", "models", "prefect"
    }  # fmt: skip


def test_the_search_for_pickles_finds_them() -> None:
    import base64
    import pickle

    value = {"a": list(range(99)), "b": "text"}
    for protocol in (2, 3, 4, 5):
        assert PICKLE_FILE.match(pickle.dumps(value, protocol))
    for protocol in (4, 5):
        assert PICKLE.search(b"x" + pickle.dumps(value, protocol))
        assert PICKLE_TEXT.search(base64.b64encode(pickle.dumps(value, protocol)))


def test_a_database_that_does_not_answer_is_told_without_its_password(
    flow_project: Workplace, server_files: Path
) -> None:
    """The source's in a run's log, state and message; the registry's on the command line."""
    flow_project.edit("kind: csv, uri: data/*.csv", "kind: sql, uri: 'env:ROWS_URL', query: rows")
    flow_project.environment.update(SECRETS, ROWS_URL=UNREACHABLE, PREFECT_LOGGING_LEVEL="DEBUG")

    process = flow_project.start("continuous_training", model="demand")
    out, err = process.communicate(timeout=480)
    flow_project.environment["PERENNIAL_REGISTRY_URL"] = UNREACHABLE
    status = flow_project.cli("status", "demand")

    assert process.returncode == 1
    assert "postgresql+psycopg://me:***@127.0.0.1:1/x" in err
    assert status.returncode == 1
    assert "127.0.0.1:1" in status.stderr
    assert "5ecre7" not in out + err + status.stdout + status.stderr
    for path, data in _files(flow_project.root, server_files):
        assert MARK not in data, path


def test_a_server_whose_registry_does_not_answer_logs_no_password(project: Workplace) -> None:
    log = project.root / "server.log"
    environment = {**project.environment, **SECRETS, "PERENNIAL_REGISTRY_URL": UNREACHABLE}
    with log.open("wb") as file:
        server = subprocess.Popen(
            [sys.executable, "-c", "from perennial.cli import main; main()", "serve",
             "--port", "0"],
            cwd=project.root, env={**os.environ, **environment}, stdout=file, stderr=file,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 240
        while b"127.0.0.1:1" not in log.read_bytes():
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(240)

    for path, data in _files(project.root):
        assert MARK not in data, path
