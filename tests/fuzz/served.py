"""A server of its own process with two small models, and how the tests talk to it."""

from __future__ import annotations

import io
import os
import select
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import sqlalchemy as sa
import xgboost as xgb

from perennial.bundle.write import BundleContent, write_bundle
from perennial.data.encoding import SchemaBuilder, encode
from perennial.data.features import FeatureProgram
from perennial.learning.matrices import feature_types
from perennial.spec import parse_spec
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from perennial.stores.registry.schema import routes

MODELS = {
    "parcels": ("binary", (1, 2)),
    "letters": ("multiclass", (3,)),
    "prices": ("regression", (4,)),
}
NOW = datetime(2026, 3, 1, 6, tzinfo=UTC)

SPEC = """
name: {name}
objective: {objective}
source: {{kind: csv, uri: data.csv, event_time: sent, entity: [customer]}}
label: {{column: outcome, delay: 1d}}
columns:
  customer: {{type: string}}
  weight_kg: {{type: float, min: 0}}
  items: {{type: integer, nullable: false}}
  insured: {{type: boolean}}
  depot: {{type: category}}
  remark: {{type: string}}
"""

FEATURES = """
import pandas as pd


def weight_per_item(weight_kg: pd.Series, items: pd.Series) -> pd.Series:
    return weight_kg / (items.clip(lower=0) + 1)


def hour(sent: pd.Series) -> pd.Series:
    return sent.dt.hour


def remark_length(remark: pd.Series) -> pd.Series:
    return remark.str.len()
"""

ROW: dict[str, Any] = {
    "sent": "2026-03-01T06:00:00Z",
    "customer": "c-1",
    "weight_kg": 3.5,
    "items": 2,
    "insured": True,
    "depot": "north",
    "remark": "fragile",
}
KINDS = {
    "sent": "datetime",
    "customer": "string",
    "weight_kg": "float",
    "items": "integer",
    "insured": "boolean",
    "depot": "category",
    "remark": "string",
}
OBJECTIVES = {
    "binary": ({"objective": "binary:logistic"}, ("no", "yes")),
    "multiclass": ({"objective": "multi:softprob", "num_class": 3}, ("a", "b", "c")),
    "regression": ({"objective": "reg:squarederror"}, None),
}


def make_project(root: Path) -> None:
    """``parcels``: binary, two versions that share its requests; ``letters``: three classes;
    ``prices``: a number."""
    project = Project(root)
    project.home.mkdir(parents=True)
    registry = Registry(project.registry_url)
    for name, (objective, seeds) in MODELS.items():
        folder = project.models / name
        folder.mkdir(parents=True)
        (folder / "model.yaml").write_text(SPEC.format(name=name, objective=objective))
        (folder / "features.py").write_text(FEATURES)
        versions = [
            registry.register(
                name,
                write_bundle(project.folder("bundles", name), content(name, objective, seed)),
                params={}, metrics={"logloss": 0.5}, judgement={}, links={}, actor="tests",
                reason="passed", now=NOW,
            ).version
            for seed in seeds
        ]  # fmt: skip
        registry.promote(
            name, versions[0], expected_generation=0, actor="tests", reason="better", evidence={},
            cause="first", now=NOW,
        )  # fmt: skip
        if len(versions) > 1:
            arms = [{"version": version, "weight": 50} for version in versions]
            engine = sa.create_engine(project.registry_url)
            with engine.begin() as connection:
                change = routes.update().where(routes.c.model == name)
                connection.execute(change.values(arms=arms, generation=2))
            engine.dispose()
    registry.close()


def content(name: str, objective: str, seed: int, features_source: str = FEATURES) -> BundleContent:
    """A small version of a model: another one for each seed."""
    random = np.random.default_rng(seed)
    count = 200
    rows = pd.DataFrame(
        {
            "sent": pd.Timestamp("2026-01-01", tz="UTC").as_unit("us")
            + pd.to_timedelta(random.integers(0, 10**6, count), unit="s"),
            "customer": pd.Series([f"c-{i}" for i in range(count)], dtype="str"),
            "weight_kg": random.gamma(2.0, 3.0, count),
            "items": random.integers(1, 9, count),
            "insured": random.choice([1.0, 0.0, np.nan], count),
            "depot": pd.Series(random.choice(["north", "south", "west"], count), dtype="str"),
            "remark": pd.Series(random.choice(["", "fragile", "heavy load"], count), dtype="str"),
        }
    )
    spec = parse_spec(SPEC.format(name=name, objective=objective))
    program = FeatureProgram.load(features_source, spec)
    state = program.fit(rows)
    features = program.columns(rows, state)
    parameters, classes = OBJECTIVES[objective]
    builder = SchemaBuilder(program, spec)
    builder.add(features)
    schema = builder.schema(classes)
    matrix, _ = encode(features, schema)
    data = xgb.QuantileDMatrix(
        matrix,
        label=random.integers(0, len(classes or (0, 1)), count),
        feature_types=feature_types(schema),
    )
    booster = xgb.train({**parameters, "seed": seed, "nthread": 1}, data, num_boost_round=3)
    reference = io.BytesIO()
    rows.head(20).to_parquet(reference)
    return BundleContent(
        spec=spec, schema=schema, booster=bytes(booster.save_raw("ubj")),
        features_source=features_source, state=state, reference=reference.getvalue(),
        profile={"rows": count}, metrics={"logloss": 0.5}, lineage={"seed": seed},
    )  # fmt: skip


@dataclass(frozen=True)
class Server:
    """A running server. ``log`` is all that it and its children have said."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]
    client: httpx.Client

    def checked(self, response: httpx.Response) -> httpx.Response:
        """The response, when it is one that any request may get: an answer, or an error as JSON
        with the request's id; never a failure of the server."""
        request = response.request
        body = getattr(request, "_content", b"")  # a streamed one is gone
        what = f"{request.method} {request.url.path} {body[:300]!r}"
        assert response.status_code < 500 or response.status_code == 503, (what, response.text)
        identity = response.headers["x-request-id"]
        assert "server" not in response.headers
        if response.status_code >= 400 and request.method != "HEAD":
            error = response.json()["error"]
            assert identity in (error if isinstance(error, str) else error["request_id"]), what
            assert len(response.content) < 50_000, what
            assert response.headers["content-type"] == "application/json"
            for secret in ("Traceback", ".py", str(self.log.parent)):
                assert secret not in response.text, (what, response.text)
        return response

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        return self.checked(self.client.request(method, path, **request))

    def is_well(self) -> None:
        """Assert that the server still answers, and rightly."""
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        answer = self.ask("POST", "/models/parcels/predict", json=ROW)
        assert answer.status_code == 200, answer.text
        assert 0 <= answer.json()["probability"] <= 1


@contextmanager
def serving(
    root: Path,
    *options: str,
    headers: Sequence[tuple[str, str]] = (),
    wait_for: Sequence[str] = MODELS,
    python: Path | None = None,
    verify: ssl.SSLContext | bool = True,
) -> Iterator[Server]:
    """Serve the project in ``root`` with ``perennial serve``; stop it in the end. ``verify`` is
    what the client knows of certificates."""
    log = root / "server.log"
    start = [str(python or sys.executable), "-c", "from perennial.cli import main; main()"]
    command = [*start, "--project", str(root), "serve", "--port", "0"]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, *options],
            stdout=subprocess.PIPE,
            stderr=file,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        url = _address(process, log)
        with httpx.Client(base_url=url, timeout=20, headers=list(headers), verify=verify) as client:
            _until_ready(client, wait_for, log)
            yield Server(url, log, process, client)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 60)[0], log.read_text()
    line = process.stdout.readline().decode()
    assert line.startswith("listening at "), line + log.read_text()
    return line.removeprefix("listening at ").strip()


def _until_ready(client: httpx.Client, models: Sequence[str], log: Path) -> None:
    deadline = time.monotonic() + 240
    while not all(_ready(client, name) for name in models):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def _ready(client: httpx.Client, model: str) -> bool:
    """The address is told when the port is taken; on a busy machine nobody listens at it yet."""
    try:
        return client.get(f"/v2/models/{model}/ready").status_code == 200
    except httpx.TransportError:
        return False
