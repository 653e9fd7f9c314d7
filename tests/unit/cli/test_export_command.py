"""``perennial export``: what it writes, says, refuses, and leaves as it was."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from perennial import __version__
from tests.fuzz.served import make_project
from tests.workplace import Workplace


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A project where parcels@1 serves with parcels@2 beside it, half of the requests each."""
    root = tmp_path_factory.mktemp("project")
    make_project(root)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PERENNIAL_")}
    return Workplace(root, {**kept, "PERENNIAL_PROJECT": str(root)})


def written(folder: Path) -> dict[str, bytes]:
    """A folder's files, by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("to", ["kserve", "triton", "mlflow"])
def test_every_target_is_written_whole_and_said_file_by_file(
    place: Workplace, tmp_path: Path, to: str
) -> None:
    folder = tmp_path / "deep" / "out"
    done = place.command("export", "parcels@2", "--to", to, "--output", str(folder))
    assert (done.returncode, done.stderr) == (0, "")
    files = written(folder)
    about = json.loads(files.pop(".perennial-export"))
    assert {key: about[key] for key in ("model", "version", "to", "perennial")} == {
        "model": "parcels",
        "version": 2,
        "to": to,
        "perennial": __version__,
    }
    said = [line for line in done.stdout.splitlines() if line.startswith("wrote")]
    assert said == [f"wrote {folder / name}" for name in sorted(files)]
    assert [path.name for path in folder.parent.iterdir()] == ["out"]
    if to == "triton":
        assert "parcels/2/xgboost.ubj" in files
    elif to == "mlflow":
        assert f"bundle/{about['digest']}/manifest.json" in files


def test_the_share_of_requests_is_the_routes_unless_it_is_given(
    place: Workplace, tmp_path: Path
) -> None:
    def share(version: str, *options: str) -> object:
        folder = tmp_path / f"{version}{len(options)}"
        done = place.command(
            "export", version, "--to", "kserve", "--output", str(folder), "--json", *options
        )
        assert (done.returncode, done.stderr) == (0, "")
        manifest = yaml.safe_load((folder / "inferenceservice.yaml").read_text())
        percent = manifest["spec"]["predictor"].get("canaryTrafficPercent")
        assert json.loads(done.stdout)["canary_percent"] == percent
        return percent

    assert share("parcels@2") == 50
    assert share("parcels@1") is None
    assert share("parcels@2", "--canary-percent", "5") == 5
    assert share("parcels@1", "--canary-percent", "0") == 0


def test_the_bundle_is_looked_for_in_the_claim_that_holds_the_project(
    place: Workplace, tmp_path: Path
) -> None:
    def uri(number: int, *options: str) -> str:
        folder = tmp_path / str(number)
        command = ["export", "parcels@2", "--to", "kserve", "--output", str(folder), *options]
        assert place.command(*command).returncode == 0
        manifest = yaml.safe_load((folder / "inferenceservice.yaml").read_text())
        found: str = manifest["spec"]["predictor"]["model"]["storageUri"]
        return found

    claim, below = uri(1).split("://perennial/")
    assert claim == "pvc"
    assert (place.root / ".perennial" / below / "manifest.json").is_file()
    assert uri(2, "--storage-uri", "s3://models/p") == "s3://models/p"


def test_a_folder_with_something_in_it_is_refused_and_stays_as_it_is(
    place: Workplace, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    command = ["export", "parcels@2", "--to", "mlflow", "--output", str(tmp_path)]
    refused = place.command(*command)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        f"{tmp_path}: the folder is not empty (give another --output, or --force to replace a "
        "former export)\n"
    )
    forced = place.command(*command, "--force")
    assert forced.returncode == 2
    assert forced.stderr == (
        f"{tmp_path}: not replaced: the folder has no .perennial-export, so it is no former export "
        "(give another --output, or empty it yourself)\n"
    )
    assert written(tmp_path) == {"mine.txt": b"mine"}


def test_force_replaces_a_former_export_and_all_of_it(place: Workplace, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    command = ["export", "parcels@2", "--output", str(folder), "--to"]
    assert place.command(*command, "triton").returncode == 0
    former = written(folder)
    assert place.command(*command, "mlflow").returncode == 2
    assert written(folder) == former
    assert place.command(*command, "mlflow", "--force").returncode == 0
    assert "MLmodel" in written(folder)
    assert "parcels/config.pbtxt" not in written(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_same_export_twice_gives_the_same_bytes(place: Workplace, tmp_path: Path) -> None:
    for to in ("kserve", "triton", "mlflow"):
        first, second = tmp_path / f"{to}-1", tmp_path / f"{to}-2"
        for folder in (first, second):
            place.command("export", "letters@1", "--to", to, "--output", str(folder))
        assert written(first) == written(second) != {}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["parcels@2", "--to", "tritn"],
            "--to: 'tritn' is not known; did you mean 'triton'? (kserve, triton, mlflow)",
        ),
        (
            ["parcels@2", "--to", "triton", "--image", "a", "--canary-percent", "5"],
            "--canary-percent: means nothing to triton (leave it out)\n"
            "--image: means nothing to triton (leave it out)",
        ),
        (
            ["parcels", "--to", "mlflow"],
            "'parcels' is not NAME@V; write for example flight-delay@3",
        ),
        (
            ["parcels@9", "--to", "mlflow"],
            "registry: 'parcels' has no version 9 (its versions are 1 to 2)",
        ),
    ],
)
def test_a_wrong_request_is_told_and_nothing_is_written(
    place: Workplace, tmp_path: Path, options: list[str], said: str
) -> None:
    done = place.command("export", *options, "--output", str(tmp_path / "out"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(said)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_can_not_be_written_is_told(place: Workplace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for output, what in (("file", "is a file"), ("file/out", "can't be written: ")):
        done = place.command(
            "export", "parcels@2", "--to", "triton", "--output", str(tmp_path / output)
        )
        assert done.returncode == 2
        assert done.stderr.startswith(f"{tmp_path / output}: {what}")
    assert written(tmp_path) == {"file": b""}


def test_a_damaged_bundle_is_not_exported(tmp_path: Path) -> None:
    make_project(tmp_path)
    for state in (tmp_path / ".perennial" / "bundles" / "prices").glob("*/state.json"):
        state.write_text('{"changed": 1}')
    place = Workplace(tmp_path, {**os.environ, "PERENNIAL_PROJECT": str(tmp_path)})
    for to in ("kserve", "triton", "mlflow"):
        done = place.command("export", "prices@1", "--to", to, "--output", str(tmp_path / "out"))
        assert done.returncode == 2
        assert "state.json: " in done.stderr
        assert not (tmp_path / "out").exists()
