"""How long the stack waits for its deployments."""

from __future__ import annotations

from pathlib import Path

import pytest

from perennial.cli.stack import deploying
from perennial.contracts.errors import PerennialError
from perennial.stores.project import Project

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
