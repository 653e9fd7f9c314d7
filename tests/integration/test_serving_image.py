"""The serving image, as far as it goes without an engine: the wheel and what its lock says in an
environment of their own, and the Dockerfile's command, run by nobody in particular in a project
that can't be written to."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from collections.abc import Callable, Iterator
from importlib.metadata import distribution, requires
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from perennial.cli.prefect_server import free_port
from tests.fuzz.served import ROW, make_project

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deployments" / "docker" / "serving.Dockerfile").read_text()
TRAINING_ONLY = (
    "prefect", "prefect_aws", "optuna", "evidently", "wandb", "sklearn", "duckdb", "pandera",
    "matplotlib", "dask", "mlflow", "pip",
)  # fmt: skip
NOBODY = 1000


def locked(lock: str) -> set[str]:
    """The distributions that a lock has for this Python and machine."""
    text = re.sub(r"\\\n\s+--hash=\S+", "", (ROOT / lock).read_text()).replace("\\\n", "")
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    found = (Requirement(line) for line in lines if line)
    return {one.name for one in found if one.marker is None or one.marker.evaluate()}


def needed(*extras: str) -> set[str]:
    """The distributions that ``pip install perennial-ml[…]`` would bring, by pyproject.toml."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    own = [declared["optional-dependencies"][extra] for extra in extras]
    found: set[str] = set()
    waiting = [(text, "") for text in sum(own, declared["dependencies"])]
    while waiting:
        text, extra = waiting.pop()
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        new = {"", *requirement.extras} if name not in found else requirement.extras
        found.add(name)
        waiting += [(inner, one) for one in new for inner in requires(name) or ()]
    return found


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """What the image has in /opt/perennial, where anybody may look."""
    place = Path(tempfile.mkdtemp(prefix="perennial-image-"))
    place.chmod(0o755)
    home = place / "opt"
    venv.create(home, with_pip=False)
    release = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = home / "lib" / release / "site-packages"
    for name in locked("requirements-serving.lock"):
        for file in distribution(name).files or ():
            if file.parts[0] != "..":
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                _link(Path(str(file.locate())).resolve(), site / file)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=240)
    (wheel,) = place.glob("*.whl")
    install = [sys.executable, "-m", "uv", "pip", "install", "--no-index", "--no-deps", "--quiet"]
    subprocess.run([*install, "--python", home / "bin" / "python", wheel], check=True, timeout=240)
    yield home
    shutil.rmtree(place)


def _link(there: Path, here: Path) -> None:
    if not here.exists():
        try:
            os.link(there, here)
        except OSError:  # another disk
            shutil.copy2(there, here)


def test_a_lock_has_what_is_needed_and_the_serving_one_nothing_that_trains() -> None:
    serving, pipeline = locked("requirements-serving.lock"), locked("requirements-pipeline.lock")
    unused = {"nvidia-nccl-cu12", "nvidia-nccl-cu13"}  # of training on several machines with GPUs
    extras = ("postgres", "otel", "signing")
    assert needed("serving", *extras) - unused == serving
    assert needed("pipeline", "dask", "mlflow", *extras) - unused == pipeline
    assert not serving & set(TRAINING_ONLY)
    pins = set(re.findall(r"^\S+==\S+", (ROOT / "requirements.lock").read_text(), re.M))
    for lock in ("build", "serving", "pipeline"):
        text = (ROOT / f"requirements-{lock}.lock").read_text()
        assert set(re.findall(r"^\S+==\S+", text, re.M)) <= pins
        assert len(re.findall(r"^\S+==", text, re.M)) == len(
            re.findall(r"^\S+==.*\n +--hash", text, re.M)
        )


def test_the_image_answers_and_keeps_what_it_answered(image: Path, tmp_path: Path) -> None:
    finding = f"import importlib.util as u; print([n for n in {TRAINING_ONLY} if u.find_spec(n)])"
    found = subprocess.run(
        [image / "bin" / "python", "-I", "-c", finding], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"

    project = image.parent / "project"
    make_project(project)
    tokens = image.parent / "tokens.yaml"
    made = subprocess.run(
        [image / "bin" / "perennial", "tokens", "add", "gateway", "--role", "predict",
         "--file", tokens],
        capture_output=True, text=True, check=True, env={"PERENNIAL_PROJECT": str(project)},
    )  # fmt: skip
    token = re.findall(r"\S{20,}", made.stdout)[-1]
    for path in (tokens, project, *project.rglob("*")):
        if (project / ".perennial") in (path, *path.parents) or path == tokens:
            if os.geteuid() == 0:
                os.chown(path, NOBODY, NOBODY)
        else:
            path.chmod(0o555 if path.is_dir() else 0o444)

    port = free_port()
    stage = DOCKERFILE.rpartition("FROM ")[2]
    entrypoint, arguments = (
        json.loads(re.findall(rf"^{word} (\[.*\])$", stage, re.M)[0])
        for word in ("ENTRYPOINT", "CMD")
    )
    told = {"8080": str(port), "/etc/perennial/tokens.yaml": str(tokens)}
    command = [told.get(word, word) for word in (*entrypoint, *arguments)]
    assert "USER 1000:1000" in stage
    variables = dict(re.findall(r"^(?:ENV| {3}) (\w+)=(\S+)", stage, re.M))
    assert set(variables) == {"PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
    environment = {**variables, "PATH": f"{image / 'bin'}:/usr/bin:/bin", "HOME": "/tmp"}
    written = project / ".perennial" / "predictions" / "parcels" / "_delta_log"
    log = tmp_path / "log"
    with log.open("wb") as file:
        served = subprocess.Popen(
            [*_as_nobody(), *command],
            cwd=project, env=environment, stdout=file, stderr=file,
        )  # fmt: skip
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {token}"}
        ) as client:
            _until(lambda: _ready(client), served, log)
            answer = client.post("/models/parcels/predict", json=ROW)
            assert answer.status_code == 200, answer.text
            _until(written.is_dir, served, log)
    finally:
        served.terminate()
        served.wait(240)
    assert served.returncode == 0, log.read_text()
    if os.geteuid() == 0:
        assert {path.stat().st_uid for path in written.iterdir()} == {NOBODY}


def _as_nobody() -> list[str]:
    """Another user's hands, with the eyes to find a Python that is in root's folder."""
    if os.geteuid() != 0:
        return []
    caps = "-all,+dac_read_search"
    ids = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return ["setpriv", *ids, f"--inh-caps={caps}", f"--ambient-caps={caps}", "--no-new-privs"]


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/v2/health/ready").status_code == 200
    except httpx.TransportError:
        return False


def _until(true: Callable[[], bool], served: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 240
    while not true():
        assert served.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
