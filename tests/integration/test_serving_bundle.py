"""``perennial serve --bundle``: one bundle with no registry, as a pod of KServe runs it."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from tests.fuzz.served import ROW, make_project, serving
from tests.workplace import Workplace


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of ``parcels``, and nothing else of its project."""
    root = tmp_path_factory.mktemp("made")
    make_project(root)
    [first, _] = sorted((root / ".perennial" / "bundles" / "parcels").glob("[0-9a-f]*"))
    place = tmp_path_factory.mktemp("bundles") / first.name
    shutil.copytree(first, place)
    shutil.rmtree(root)
    return place


def test_a_bundle_is_served_as_its_version_without_registry_and_project(
    bundle: Path, tmp_path: Path
) -> None:
    mounted = tmp_path / "models"  # as KServe does: its name says nothing
    shutil.copytree(bundle, mounted)
    home = tmp_path / "home"
    home.mkdir()
    options = ["--bundle", str(mounted), "--digest", bundle.name, "--version", "12"]
    with serving(home, *options, wait_for=["parcels"]) as server:
        assert server.ask("GET", "/v2/health/ready").status_code == 200
        answer = server.ask("POST", "/models/parcels/predict", json=ROW).json()
        assert (answer["model"], answer["version"], answer["arm"]) == ("parcels", 12, "champion")
        assert server.ask("GET", "/v2/models/parcels").json()["versions"] == ["12"]
        assert server.ask("GET", "/").status_code == 200
        label = {"prediction_id": answer["id"], "label": "yes"}
        refused = server.ask("POST", "/models/parcels/labels", json=label)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "nothing_kept")
    assert not (home / ".perennial" / "registry.db").exists()
    for kept in ("predictions", "labels"):  # no model.yaml says what may be kept
        assert not (home / ".perennial" / kept).exists()


def test_what_is_kept_of_predictions_is_what_the_projects_model_yaml_says(
    bundle: Path, tmp_path: Path
) -> None:
    make_project(tmp_path)
    draft = tmp_path / "models" / "draft" / "model.yaml"
    draft.parent.mkdir()
    draft.write_text("name: draft\n")  # hinders no other model
    table = tmp_path / ".perennial" / "predictions" / "parcels" / "_delta_log"
    with serving(tmp_path, "--bundle", str(bundle), wait_for=["parcels"]) as server:
        assert server.ask("POST", "/models/parcels/predict", json=ROW).status_code == 200
        [served] = server.ask("GET", "/models").json()["models"]
        assert served["name"] == "parcels"
        until = time.monotonic() + 240
        while not table.is_dir():
            assert time.monotonic() < until, server.log.read_text()
            time.sleep(0.1)


def test_a_bundle_that_is_another_is_refused_before_anything_listens(
    bundle: Path, project: Workplace
) -> None:
    command = ["serve", "--port", "0", "--bundle", str(bundle)]
    other = project.command(*command, "--digest", "0" * 64)
    assert (other.returncode, other.stdout) == (2, "")
    assert f"its digest is {bundle.name}, expected {'0' * 64}" in other.stderr
    named = project.command(*command, "demand")
    assert (named.returncode, named.stderr) == (
        2,
        "--bundle: a bundle is served as the model it was made for (leave out demand)\n",
    )
    mounted = project.root / "mounted"
    shutil.copytree(bundle, mounted)
    unnamed = project.command("serve", "--bundle", str(mounted))
    assert (unnamed.returncode, unnamed.stderr) == (
        2,
        f"--digest: {mounted} is not named by the bundle's digest, so nothing says which it must "
        "be (give the digest; perennial show NAME@V --json has it)\n",
    )
    manifest = json.loads((mounted / "manifest.json").read_text())
    assert manifest["digest"] == bundle.name
