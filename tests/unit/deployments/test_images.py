"""Dockerfiles and the compose file: linted, valid, pinned, and in step with each other."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deployments" / "docker"
DOCKERFILES = sorted(path.name for path in FOLDER.glob("*.Dockerfile"))


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_dockerfile_passes_the_linter_and_installs_by_hashes_only(name: str) -> None:
    run(Path(sys.executable).with_name("hadolint"), FOLDER / name)
    text = (FOLDER / name).read_text()
    installs = re.findall(r"pip install (.*)", text)
    assert len(installs) == 3
    for flags in installs:
        assert "--no-deps" in flags
        assert "--require-hashes" in flags or "--no-index" in flags
    assert re.findall(r"^USER (.*)$", text, re.M) == ["1000:1000"]
    assert "apt-get" not in text
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.M)
        for source in line.split()[:-1]
    }
    assert all((ROOT / source).exists() for source in copied)
    kept = (FOLDER / f"{name}.dockerignore").read_text().splitlines()
    patterns = [line[1:] for line in kept if line.startswith("!")]
    assert "*" in kept
    assert all(any(Path(source).match(pattern) for pattern in patterns) for source in copied)


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    return found


def test_the_compose_file_is_valid_and_exposes_nothing_beyond_this_machine() -> None:
    checker = Path(sys.executable).with_name("check-jsonschema")
    run(checker, "--builtin-schema", "vendor.compose-spec", FOLDER / "compose.yaml")
    services = compose()["services"]
    assert set(services) == {
        "postgres", "store", "owners", "prefect", "setup", "worker", "serving",
    }  # fmt: skip
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert not service.get("privileged"), name
        assert not service["image"].endswith(":latest"), name
        assert set(service.get("depends_on", [])) <= services.keys()
        for needed, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[needed], (name, needed)
    volumes = {
        volume.partition(":")[0]
        for service in services.values()
        for volume in service.get("volumes", [])
        if not volume.startswith("$")
    }
    assert volumes == compose()["volumes"].keys()


def test_no_password_stands_in_the_compose_file() -> None:
    """Each is asked for, and one that is not given is an error before anything is started."""
    text = (FOLDER / "compose.yaml").read_text()
    for name in ("POSTGRES_PASSWORD", "S3_PASSWORD", "PREFECT_AUTH"):
        assert f"${{{name}:?" in text
    for service in compose()["services"].values():
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|AUTH", key):
                assert re.fullmatch(r"\$\{\w+(:\?.*)?\}", value), key
            if "://" in str(value) and "@" in str(value):
                assert re.search(r"://\w+:\$\{POSTGRES_PASSWORD(:\?[^}]*)?\}@postgres/", value), key


def test_serving_in_compose_knows_nothing_that_only_training_needs() -> None:
    services = compose()["services"]
    given = services["serving"]["environment"].keys()
    assert given < services["worker"]["environment"].keys()
    assert not [key for key in given if key.startswith("PREFECT_") or "STUDIES" in key]


def test_the_database_in_compose_is_not_taken_for_ready_while_it_is_being_made() -> None:
    """The image's own server for that answers at a socket, and is then started anew."""
    test = compose()["services"]["postgres"]["healthcheck"]["test"]
    assert test[test.index("--host") + 1] == "127.0.0.1"


def test_serving_in_compose_can_write_to_its_volume_only() -> None:
    serving = compose()["services"]["serving"]
    assert serving["read_only"]
    assert "command" not in serving  # the image's own, whose tokens are mounted where it looks
    dockerfile = (FOLDER / "serving.Dockerfile").read_text()
    (arguments,) = re.findall(r"^CMD (\[.*\])$", dockerfile, re.M)
    assert serving["secrets"][0]["target"] in json.loads(arguments)
    written = [volume for volume in serving["volumes"] if not volume.endswith(":ro")]
    assert written == ["serving:/project/.perennial"]
