"""How long the stack waits for its deployments."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from perennial.cli.stack import deploying
from perennial.contracts.errors import PerennialError
from perennial.stores.project import Project
from tests.workplace import Workplace

PORTS = {"server": 1, "serving": 2}


@pytest.mark.parametrize(("count", "seconds"), [(0, 1), (20, 11)])
def test_many_deployments_have_more_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, seconds: int
) -> None:
    """A hundred models have five hundred deployments, which take minutes."""
    waited: list[float] = []

    def never_done(*_: object, timeout: float, **__: object) -> None:
        waited.append(timeout)
        raise deploying.subprocess.TimeoutExpired("prefect", timeout)

    monkeypatch.setattr(deploying, "_SECONDS", 1.0)
    monkeypatch.setattr(deploying, "_EACH_SECONDS", 0.5)
    monkeypatch.setattr(deploying.subprocess, "run", never_done)
    listed = "\n".join(
        "- {name: m, entrypoint: flows.drift_watch.drift_watch}" for _ in range(count)
    )
    (tmp_path / "prefect.yaml").write_text(f"name: perennial\ndeployments:\n{listed}\n")
    with pytest.raises(PerennialError, match=f"was not done within {seconds} s"):
        deploying.deploy(Project(tmp_path), PORTS)
    assert waited == [seconds]
    assert not deploying.deployed(Project(tmp_path))


def test_a_project_that_is_deployed_elsewhere_runs_on_the_stacks_own_worker(
    project: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.root / "deploy.yaml").write_text("work_pool: {name: ecs}\npull: []\n")
    assert project.command("check", "demand", "--write").returncode == 0
    text = (project.root / "prefect.yaml").read_text()
    assert "name: ecs" in text
    commands: list[list[str]] = []

    def done(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(deploying.subprocess, "run", done)
    deploying.deploy(Project(project.root), PORTS)
    (command,) = commands
    deployed = yaml.safe_load(Path(command[command.index("--prefect-file") + 1]).read_text())
    pools = {one["work_pool"]["name"] for one in deployed["deployments"]}
    assert (pools, len(deployed["deployments"])) == ({"perennial"}, 5)
    assert not any("pull" in one for one in deployed["deployments"])
    assert (project.root / "prefect.yaml").read_text() == text

    # Somebody's own is deployed as it is.
    (project.root / "prefect.yaml").write_text("name: mine\ndeployments: []\n")
    deploying.deploy(Project(project.root), PORTS)
    assert "--prefect-file" not in commands[-1]
