"""Policies of the roles: they allow all that flows and serving ask of S3, and little else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from deltalake import DeltaTable, write_deltalake
from prefect_aws.deployments.steps import pull_from_s3

from perennial.stores.storage.cache import fetch
from perennial.stores.storage.delta import delta_options
from perennial.stores.storage.objects import Objects
from perennial.stores.storage.publishing import publish
from tests.contract.s3 import BUCKET, Endpoint, moto
from tests.fuzz.served import ROW, make_project, serving
from tests.policies import Asked, asked, granted, granting, policy, recording
from tests.waiting import until

ABORT = "s3:AbortMultipartUpload"
"""Asked for only when sending a large file failed in the middle, so that nothing is paid for."""


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    with moto() as running:
        for name, value in running.environment("team/a").items():
            monkeypatch.setenv(name, value)
        yield running


def check(name: str, requests: set[Asked]) -> None:
    statements = policy(name, BUCKET, "team/a")
    assert requests
    refused = {one for one in requests if not granting(statements, one)}
    assert not refused
    needed = set.union(*(granting(statements, one) for one in requests))
    assert {one for one in granted(statements) - needed if one[0] != ABORT} == set()


def test_a_flow_may_do_what_it_does_and_nothing_beyond_its_prefix(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"s3://{BUCKET}/team/a"
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "large").write_bytes(b"x" * (17 << 20))  # in parts
    (folder / "manifest.json").write_text("{}")
    endpoint.client().put_object(Bucket=BUCKET, Key="team/a/code/models/a.yaml", Body=b"name: a")
    with recording() as requests:
        there = publish(folder, f"{uri}/bundles/a", "manifest.json")
        fetch(there, tmp_path / "cache", lambda place: list(place.iterdir()))
        place = Objects(uri)
        assert place.create("claims/a", b"1")
        assert not place.create("claims/a", b"2")
        assert place.read("claims/b") is None
        place.remove(["claims/a", "claims/b"])
        table, options = f"{uri}/tables/a", delta_options(uri)
        for number in range(3):
            rows = pd.DataFrame({"a": [number]})
            write_deltalake(table, rows, mode="append", storage_options=options)
        delta = DeltaTable(table, storage_options=options)
        delta.optimize.compact()
        delta.create_checkpoint()
        delta.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
        assert len(DeltaTable(table, storage_options=options).to_pyarrow_table()) == 3
        monkeypatch.chdir(tmp_path)
        pull_from_s3(BUCKET, "team/a/code", client_parameters={"endpoint_url": endpoint.url})
    assert (tmp_path / "models" / "a.yaml").read_text() == "name: a"
    check("flow-role.json", requests)
    statements = policy("flow-role.json", BUCKET, "team/a")
    for method, target in (("PUT", f"/{BUCKET}/team/b/x"), ("GET", "/another/team/a/x")):
        assert not granting(statements, asked(method, target))


def test_serving_may_do_what_it_does_and_changes_no_bundle(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    make_project(tmp_path)
    kinds = [f"s3://{BUCKET}/team/a/{kind}/parcels" for kind in ("predictions", "labels")]
    with recording() as requests:
        with serving(tmp_path) as server:
            answer = server.ask("POST", "/models/parcels/predict", json=ROW)
            label = {"prediction_id": answer.json()["id"], "label": "yes"}
            assert server.ask("POST", "/models/parcels/labels", json=label).status_code < 300
            until(lambda: all(Objects(uri).sizes("_delta_log") for uri in kinds))
        uri = f"s3://{BUCKET}/team/a/failures/parcels"  # as the other two are written and tidied
        write_deltalake(uri, pd.DataFrame({"a": [1]}), storage_options=delta_options(uri))
        for each in (*kinds, uri):
            Objects(each).remove(["old.parquet"])
            assert DeltaTable(each, storage_options=delta_options(each)).file_uris()
    check("serving-role.json", requests)
    statements = policy("serving-role.json", BUCKET, "team/a")
    for target in (f"/{BUCKET}/team/a/bundles/a/x", f"/{BUCKET}/team/a/tables/a/x"):
        assert not granting(statements, asked("PUT", target))
        assert granting(statements, asked("GET", target))
