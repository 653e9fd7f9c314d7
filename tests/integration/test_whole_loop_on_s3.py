"""A model's life with its storage in a bucket, by settings alone: a flow on a real Prefect server
finds the bucket in a block, is killed, trains again; what the version answered is looked at for
drift, which has it trained again; the next one is served, logged, scored with, and rolled back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from perennial.stores.project import Project
from perennial.stores.registry import Registry
from perennial.stores.storage.delta import delta_options
from tests.contract.s3 import BUCKET, Endpoint, moto
from tests.fuzz.served import serving
from tests.waiting import until
from tests.weeks import DAY, looks, serve
from tests.workplace import Workplace, demand_rows

STORAGE = f"s3://{BUCKET}/team/loop"
SAVE_BLOCKS = """
import sys
from prefect_aws import AwsCredentials, S3Bucket
from prefect_aws.client_parameters import AwsClientParameters
url, key, secret, bucket, folder, name = sys.argv[1:]
credentials = AwsCredentials(
    aws_access_key_id=key, aws_secret_access_key=secret, region_name="us-east-1",
    aws_client_parameters=AwsClientParameters(endpoint_url=url),
)
credentials.save(name, overwrite=True)
S3Bucket(bucket_name=bucket, bucket_folder=folder, credentials=credentials).save(name)
"""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with moto() as running:
        yield running


def save_block(project: Workplace, endpoint: Endpoint, name: str) -> None:
    arguments = [endpoint.url, endpoint.key, endpoint.secret, BUCKET, "team/loop", name]
    project.python("-c", SAVE_BLOCKS, *arguments)


def names(endpoint: Endpoint) -> list[str]:
    """What is below STORAGE. Others may be in the bucket: all of moto's servers in a process have
    the same."""
    paginator = endpoint.client().get_paginator("list_objects_v2")
    pages = paginator.paginate(Bucket=BUCKET, Prefix="team/loop/")
    return [each["Key"] for page in pages for each in page.get("Contents", ())]


def content(endpoint: Endpoint, uri: str) -> bytes:
    found = endpoint.client().get_object(Bucket=BUCKET, Key=uri.removeprefix(f"s3://{BUCKET}/"))
    read: bytes = found["Body"].read()
    return read


def rows(kind: str) -> pa.Table:
    uri = f"{STORAGE}/{kind}"
    return pa.table(DeltaTable(uri, storage_options=delta_options(uri)).to_pyarrow_table())


def test_the_whole_life_of_a_model_whose_storage_is_a_bucket(
    flow_project: Workplace, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, home = flow_project, flow_project.root / ".perennial"
    for name in [name for name in project.environment if name.startswith("AWS_")]:
        del project.environment[name]
    for name, value in endpoint.environment("team/loop").items():
        monkeypatch.setenv(name, value)  # of this process, and not of flows
    project.environment["PERENNIAL_STORAGE_BLOCK"] = "loop-on-s3"
    project.edit("  - {beats: champion, metric: logloss, first_version: passed}\n", "")
    project.edit("retrain:", "drift: {window: 35d}\nretrain:")
    project.edit('{schedule: "0 6 * * 1"}', "{on: [drift], cooldown: 1s}")
    registry = Registry(Project(project.root).registry_url)
    without = project.start("continuous_training", model="demand")
    _, said = without.communicate(timeout=600)
    assert (without.returncode == 0, "loop-on-s3" in said) == (False, True), said

    save_block(project, endpoint, "loop-on-s3")
    killed = project.start("continuous_training", model="demand")
    while not list((home / "runs").glob("*/train.json")):
        assert killed.poll() is None, killed.communicate()[1]
        time.sleep(0.005)
    killed.kill()
    killed.communicate()
    first = project.run()
    assert first["bundle_uri"] == f"{STORAGE}/bundles/demand/{first['bundle_digest']}"
    assert first["report_uri"].startswith(f"{STORAGE}/reports/demand/")

    # A server finds out by itself that a run was killed, but late.
    [lost] = registry.retrainings.started("demand")
    crashed = {"state": {"type": "CRASHED"}, "force": True}
    project.ask(f"flow_runs/{lost.started_run}/set_state", crashed)
    now = datetime.now(UTC)
    monday = datetime(now.year, now.month, now.day, tzinfo=UTC) - now.weekday() * DAY
    serve(project, monday - 28 * DAY, seed=3, temperature=lambda t: 13.3 + t / 10)
    assert rows("predictions/demand").num_rows == rows("labels/demand").num_rows == 840
    [look] = looks(project, None)
    assert (look["finding"], look["rows"]) == ("harmful drift", 840), look["reason"]
    reports = look["reports"]
    place = reports["html_uri"].removesuffix("/drift.html")
    assert place.startswith(f"{STORAGE}/drift/demand/")
    assert len(reports["evidently"]) == 2
    for page in (reports["html_uri"], *reports["evidently"].values()):
        assert content(endpoint, page).lstrip().lower().startswith(b"<!doctype html>")
    assert json.loads(content(endpoint, reports["json_uri"])) == look
    assert look["trigger"]["evidence"]["report"] == reports["html_uri"]
    assert not {"predictions", "labels", "drift"} & {path.name for path in home.iterdir()}

    again = project.run(force=True, trigger=look["trigger"])
    assert again["bundle_digest"] == first["bundle_digest"]
    [asked] = [r for r in registry.retrainings.last("demand") if r.trigger.kind == "drift"]
    assert (asked.state, asked.outcome) == ("finished", "unchanged"), asked.current.reason
    assert asked.trigger.evidence["report"] == reports["html_uri"]
    assert rows("tables/demand").num_rows == 90 * 8 * 5
    kinds = {name.split("/")[2] for name in names(endpoint)}
    assert {"tables", "bundles", "reports", "predictions", "labels", "drift"} <= kinds
    assert any(kind.startswith("train-") for kind in kinds), "Prefect's results"
    assert not {"tables", "bundles", "reports", "results"} & {path.name for path in home.iterdir()}

    project.edit("rounds: 60", "rounds: 40")
    second = project.run(as_of="2024-03-29T00:00:00Z")
    assert second["decision"]["action"] == "promoted"
    assert registry.version("demand", 2).ref.uri == second["bundle_uri"]

    # From here on no Prefect: who serves finds the same in the environment.
    project.environment.update(endpoint.environment("team/loop"))
    shown = project.command("show", "demand@2", "--json")
    assert json.loads(shown.stdout)["lineage"]["dataset"]["uri"] == f"{STORAGE}/tables/demand"
    row = demand_rows("2024-04-01", 1).drop(columns="busy").to_dict("records")[0]
    with serving(project.root, wait_for=("demand",)) as server:

        def answered() -> dict[str, Any]:
            reply = server.client.post("/models/demand/predict", json={"rows": [row]})
            assert reply.status_code == 200, reply.text
            found: dict[str, Any] = reply.json()
            return found

        assert answered()["predictions"][0]["version"] == 2
        back = project.command("rollback", "demand", "--reason", "to see it")
        assert back.returncode == 0, back.stderr
        until(lambda: answered()["predictions"][0]["version"] == 1)
        until(lambda: rows("predictions/demand").num_rows > 840)
    answers = rows("predictions/demand").select(["_version", "_time"]).to_pylist()
    assert {1, 2} == {row["_version"] for row in answers if row["_time"] > now}

    project.write_rows("next.csv", demand_rows("2024-04-01", 10, seed=2).drop(columns="busy"))
    out = f"s3://{BUCKET}/team/scored"
    for changed in (True, False):
        done = project.cli("score", "demand", "--input", "data/next.csv", "--output", out, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["scores"]["changed"] is changed
    table = DeltaTable(out, storage_options=delta_options(out)).to_pyarrow_table()
    assert (table.num_rows, set(table["_version"].to_pylist())) == (400, {1})
    assert endpoint.secret not in "".join(
        path.read_text(errors="replace") for path in home.rglob("*.json")
    )
