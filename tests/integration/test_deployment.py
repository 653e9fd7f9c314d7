"""prefect.yaml on a real server and a real process worker, as a team would use it."""

from __future__ import annotations

import yaml
from deltalake import DeltaTable

from perennial.stores.project import Project
from perennial.stores.registry import Registry
from tests.workplace import Workplace


def test_a_deployment_runs_on_a_worker_and_registers_a_version(flow_project: Workplace) -> None:
    written = flow_project.cli("check", "demand", "--write")
    assert written.returncode == 0, written.stderr
    declared = yaml.safe_load((flow_project.root / "prefect.yaml").read_text())
    assert declared["deployments"][0]["schedules"][0]["cron"] == "0 6 * * 1"

    for _ in range(2):  # declaring the same again changes nothing
        flow_project.deploy()
    inspected = flow_project.ask("deployments/name/continuous-training/demand")
    assert inspected["parameters"] == {"model": "demand"}
    assert [s["parameters"] for s in inspected["schedules"]] == [{"reason": "schedule"}]
    scoring = flow_project.ask("deployments/name/batch-scoring/demand")
    assert scoring["parameters"] == {"model": "demand"}
    assert scoring["schedules"] == []

    with flow_project.worker():
        flow_project.prefect(
            "deployment", "run", "continuous-training/demand",
            "--param", "reason=deployment", "--watch", "--watch-timeout", "240",
        )  # fmt: skip
        flow_project.prefect(
            "deployment", "run", "batch-scoring/demand", "--param",
            "source=data/2024-a.csv", "--param", "output=out", "--watch", "--watch-timeout", "240",
        )  # fmt: skip

    registry = Registry(Project(flow_project.root).registry_url)
    (version,) = registry.versions("demand")
    assert version.links["trigger"] == "deployment"
    assert version.links["prefect_flow_run"]
    scores = DeltaTable(str(flow_project.root / "out"))
    assert len(scores.to_pyarrow_table()) == 3600
    assert scores.history(1)[0]["perennial.version"] == "1"
