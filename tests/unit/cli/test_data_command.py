"""``perennial data``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from perennial.cli.app import app
from perennial.contracts.errors import InputError
from perennial.contracts.refs import BundleRef
from perennial.stores import sources, staging, tables
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from tests.workplace import Workplace, demand_rows


@pytest.fixture
def place(project: Workplace) -> Project:
    """A project whose model has a table of two versions, and a version trained on the first."""
    found = Project(project.root)
    _, spec = found.load_model("demand")
    table, bad = found.uri("tables", "demand"), found.uri("quarantine", "demand")
    for days in (10, 12):
        project.write_rows("2024-a.csv", demand_rows("2024-01-01", days))
        source = sources.inspect(spec, found.root, tables.watermark(spec, table), None, False)
        staged = staging.stage(spec, found.root, source, found.folder("staging", "demand"))
        tables.publish(spec, staged, table, bad)
    bundle = Path(found.uri("bundles", "demand")) / ("a" * 64)
    bundle.mkdir(parents=True)
    trained_on = {"uri": str(Path(table).relative_to(found.root)), "version": 0}
    (bundle / "lineage.json").write_text(json.dumps({"dataset": trained_on}))
    registry = Registry(found.registry_url)
    registry.register(
        "demand", BundleRef(uri=str(bundle), digest="a" * 64), params={}, metrics={}, judgement={},
        links={"prefect_flow_run": "0123456789"}, actor="t", reason="", now=datetime.now(UTC),
    )  # fmt: skip
    registry.close()
    return found


def data(place: Project, *arguments: str) -> Result:
    done = CliRunner().invoke(app, ["--project", str(place.root), "data", "demand", *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_versions_are_told_compared_and_put_back(place: Project, tmp_path: Path) -> None:
    newest, first = json.loads(data(place, "log", "--json").stdout)
    assert (newest["rows"], first["rows"]) == (480, 400)
    assert first["trained"] == [{"version": 1, "run": "0123456789", "run_url": ""}]
    assert data(place, "log").stdout.splitlines()[2].endswith("@1 (run 01234567)")

    found = json.loads(data(place, "diff", "0", "1", "--json").stdout)
    assert (found["by"], found["added"], found["removed"]) == (["at", "shop"], 80, 0)
    told = data(place, "diff", "1", "0").stdout.splitlines()
    assert told[:2] == ["version 1: 480 rows", "version 0: 400 rows"]
    assert told[2] == "rows, by at, shop"
    assert f"  0 added, 80 removed, {found['changed']} changed" == told[3]

    assert data(place, "restore", "0").stdout == (
        "demand: version 2 holds the 400 rows of version 0\n"
    )
    assert data(place, "restore", "0").stdout == (
        "demand: version 2 is the rows of version 0 already\n"
    )
    assert "version 0 restored" in data(place, "log", "--limit", "1").stdout

    exports = [
        json.loads(data(place, "export", "--output", str(tmp_path / name), *of, "--json").stdout)
        for name, of in (("a", ("--version", "0")), ("b", ()))
    ]
    assert [one["version"] for one in exports] == [0, 2]
    assert exports[0]["digest"] == exports[1]["digest"]


def test_a_model_that_is_not_there_is_told(place: Project) -> None:
    with pytest.raises(InputError, match="no model 'demnd'; did you mean 'demand'"):
        CliRunner().invoke(
            app, ["--project", str(place.root), "data", "demnd", "log"], catch_exceptions=False
        )
