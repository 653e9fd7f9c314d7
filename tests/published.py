"""A model whose versions have real bundles, to be published, and an MLflow server to publish to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from perennial.bundle.read import Bundle, open_bundle
from perennial.bundle.write import BundleContent, write_bundle
from perennial.cli.prefect_server import free_port
from perennial.contracts.refs import VersionRef
from perennial.contracts.routes import Arm
from perennial.learning.studies import StudyStore, TrialRecord
from perennial.spec.schema import Range
from perennial.stores.project import Project
from perennial.stores.registry import Registry

MODEL = "parcels"
NOW = datetime(2026, 3, 1, 6, tzinfo=UTC)
CURVE = {10: 0.7, 20: 0.5, 40: 0.45}
_GOLDEN = Path(__file__).parent / "golden" / "bundles" / "1"


@dataclass(frozen=True)
class Shelf:
    """A project with one model, of which versions are registered one by one."""

    project: Project
    registry: Registry

    def add(self, number: int) -> VersionRef:
        """Register a version; its bundle differs from the others' in its lineage."""
        bundle = golden()
        content = BundleContent(
            spec=bundle.spec,
            schema=bundle.schema,
            booster=bundle.booster,
            features_source=bundle.features_source,
            state=bundle.state,
            reference=bundle.contents["reference.parquet"],
            profile=bundle.profile,
            metrics=bundle.metrics,
            lineage={**bundle.lineage, "dataset": {"version": number, "content_digest": "d0"}},
        )
        ref = write_bundle(self.project.home / "bundles" / MODEL, content)
        links = {
            "prefect_flow_run": f"run-{number}",
            "prefect_flow_run_url": f"http://prefect/runs/{number}",
            "study": "study",
            "wandb_group": "study",
        }
        return self.registry.register(
            MODEL, ref, params={"max_depth": 4, "learning_rate": 0.1},
            metrics={"logloss": 0.4 + number / 100, "roc_auc": None},
            judgement={"reason": f"version {number} passed"}, links=links,
            actor="t", reason="", now=NOW + timedelta(hours=number),
        )  # fmt: skip

    def route(
        self, champion: int, challenger: int | None = None, shadow: int | None = None
    ) -> None:
        """Give the champion all requests, or all but the challenger's five per cent."""
        generation = self.registry.route(MODEL).generation
        arms = (Arm(version=champion, weight=100),)
        if challenger is not None:
            arms = (Arm(version=champion, weight=95), Arm(version=challenger, weight=5))
        self.registry.change_route(
            MODEL, champion=champion, arms=arms, shadow=() if shadow is None else (shadow,),
            action="promoted", version=champion, expected_generation=generation, actor="t",
            reason="", evidence={}, cause=f"change {generation}", now=NOW,
        )  # fmt: skip


def golden() -> Bundle:
    (path,) = (path for path in _GOLDEN.iterdir() if path.is_dir())
    return open_bundle(path, path.name)


@contextmanager
def shelf(root: Path) -> Iterator[Shelf]:
    """A project without versions, and the study that they came of."""
    project = Project(root)
    record = TrialRecord(
        0, "search", {"max_depth": 4}, "complete", 0.45, 40, CURVE, "", "", {}, 0.1
    )
    space: dict[str, Range] = {"max_depth": Range(low=2, high=6)}
    with StudyStore.open(project.studies_url, "study", space, greater_is_better=False) as store:
        store.add(record)
    registry = Registry(project.registry_url)
    try:
        yield Shelf(project, registry)
    finally:
        registry.close()


@contextmanager
def mlflow_server(folder: Path, port: int | None = None) -> Iterator[str]:
    """A real MLflow server over SQLite, with artefacts in a folder; yields its address."""
    port = port or free_port()
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")},
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = [
        sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1",
        "--port", str(port), "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait(server, f"http://127.0.0.1:{port}/health", folder / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(60)


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + 240
    while time.monotonic() < until:
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            with urlopen(url, timeout=10):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise TimeoutError(log.read_text()[-2000:])
