"""``perennial setup`` and ``prefect deploy --all`` on a real Prefect server: twice is once, and
what differs between files and server is told, without a secret in it."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.deployments.steps.core import run_steps
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect_aws import S3Bucket

from deployments.__main__ import main as declare_all
from deployments.pools import KINDS, declare_pools, template
from perennial.stores.project import Project
from tests.contract.s3 import BUCKET, Endpoint, moto
from tests.workplace import Workplace

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "aws-verysecret",
    "PERENNIAL_REGISTRY_URL": "postgresql://me:registry-verysecret@db/registry",
    "PERENNIAL_STUDIES_URL": "postgresql://me:studies-verysecret@db/studies",
}
SETTINGS = {
    "PERENNIAL_STORAGE": f"s3://{BUCKET}/team",
    "PERENNIAL_IMAGE": "registry.example/perennial-pipeline:1",
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "AWS_REGION": "eu-central-1",
    **SECRETS,
}
DEPLOY_YAML = """\
work_pool:
  name: docker
  job_variables: {image: "{{ prefect.variables.perennial_image }}", env: {OWNER: "{{ $OWNER }}"}}
pull:
- prefect_aws.deployments.steps.pull_from_s3:
    bucket: "{{ prefect.variables.perennial_bucket }}"
    folder: "{{ prefect.variables.perennial_code }}"
    credentials: "{{ prefect.blocks.aws-credentials.perennial }}"
flows:
  continuous-training: {work_pool: {job_variables: {mem_limit: 16g}}}
"""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with moto() as running:
        yield running


@pytest.fixture(scope="module")
def prefect_server(own_prefect_server: str) -> str:
    return own_prefect_server


@pytest.fixture
def client(flow_project: Workplace, endpoint: Endpoint) -> Iterator[SyncPrefectClient]:
    """Of a server with nothing on it, before and after."""
    settings = {**SETTINGS, "AWS_ENDPOINT_URL": endpoint.url, "OWNER": "team"}
    flow_project.environment.update(settings)
    with (
        temporary_settings({PREFECT_API_URL: flow_project.environment["PREFECT_API_URL"]}),
        get_client(sync_client=True) as client,
    ):
        _clear(client)
        yield client
        _clear(client)


def _clear(client: SyncPrefectClient) -> None:
    for deployment in client.read_deployments():
        client.delete_deployment(deployment.id)
    for automation in client.read_automations():
        client.delete_automation(automation.id)
    # A block that others refer to can go after them only.
    blocks = client.read_block_documents(include_secrets=False)
    for block in sorted(blocks, key=lambda one: not one.block_document_references):
        client.delete_block_document(block.id)
    for variable in client.read_variables():
        client.delete_variable_by_name(variable.name)
    for pool in client.read_work_pools():
        client.delete_work_pool(pool.name)


def setup(project: Workplace, *flags: str) -> tuple[int, list[str]]:
    """What ``perennial setup`` starts as a process, in this one: quicker."""
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, project.environment, clear=True),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        code = declare_all(flags)
    told = out.getvalue() + err.getvalue()
    assert "verysecret" not in told
    return code, told.splitlines()


def deploy(project: Workplace) -> None:
    assert "verysecret" not in project.prefect("deploy", "--all")


def on_server(client: SyncPrefectClient) -> dict[str, Any]:
    """Everything, but for when it was changed. prefect deploy makes schedules and triggers anew
    each time, the same but for their ids."""
    forgotten = {"updated", "created", "last_polled", "status"}
    return {
        "deployments": {
            str(one.id): one.model_dump(mode="json", exclude=forgotten | {"schedules", "version"})
            | {"schedules": [(str(s.schedule), s.active, s.parameters) for s in one.schedules]}
            for one in client.read_deployments()
        },
        "automations": {
            one.name: one.model_dump(exclude=forgotten | {"id"})  # sets have no order as JSON
            for one in client.read_automations()
        },
        "blocks": {str(one.id): (one.name, one.data) for one in client.read_block_documents()},
        "pools": {
            one.name: (str(one.id), one.type, one.base_job_template)
            for one in client.read_work_pools()
        },
        "variables": {one.name: one.value for one in client.read_variables()},
    }


def differing(lines: list[str]) -> list[str]:
    return [line for line in lines if ": " in line and ": as declared" not in line]


def test_a_project_is_set_up_and_deployed_twice_and_each_difference_is_told(
    flow_project: Workplace,
    client: SyncPrefectClient,
    endpoint: Endpoint,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (flow_project.root / "deploy.yaml").write_text(DEPLOY_YAML)
    assert flow_project.command("check", "demand", "--write").returncode == 0

    code, lines = setup(flow_project, "--check", "--pool", "docker")
    things = [
        "block aws-credentials/perennial",
        "block s3-bucket/perennial",
        "block secret/perennial-registry-url",
        "block secret/perennial-studies-url",
        "variable perennial_bucket",
        "variable perennial_code",
        "variable perennial_image",
    ]
    flows = ("continuous-training", "drift-watch", "rollout", "batch-scoring", "backtest")
    assert code == 1
    assert [*things, *lines[len(things) :]] == [
        *things,
        "work pool docker: would be created (docker)",
        "automation Perennial: runs that died: would be created",
        *(f"deployment {flow}/demand: not deployed" for flow in flows),
        "prefect --no-prompt deploy --all deploys what prefect.yaml declares",
        "alerts go nowhere yet: docs/alerts.md says where they can go",
    ]
    assert on_server(client)["blocks"] == {}

    done = flow_project.cli("setup", "--pool", "docker")
    assert done.returncode == 0, done.stderr
    assert "verysecret" not in done.stdout + done.stderr
    deploy(flow_project)
    once = on_server(client)
    code, lines = setup(flow_project)  # without --pool: what was made here before is known
    assert (code, differing(lines)) == (0, [lines[-1]])
    deploy(flow_project)
    assert on_server(client) == once
    code, lines = setup(flow_project, "--check")
    assert (code, differing(lines)) == (0, [lines[-1]])
    assert len(lines) == len(things) + 1 + 1 + len(flows) + 1

    training = client.read_deployment_by_name("continuous-training/demand")
    assert training.job_variables == {
        "env": {"PREFECT_LOCAL_STORAGE_PATH": ".perennial/results", "OWNER": "team"},
        "image": "registry.example/perennial-pipeline:1",
        "mem_limit": "16g",
    }
    # No secret is in what everybody may read: the pull step and the pool only name blocks.
    shown = str([once["deployments"], once["pools"], once["automations"], once["variables"]])
    assert "verysecret" not in shown
    assert "{{ prefect.blocks.aws-credentials.perennial }}" in shown
    bucket = S3Bucket.load("perennial")
    assert (bucket.bucket_name, bucket.bucket_folder) == (BUCKET, "team")
    assert bucket.credentials.aws_client_parameters.endpoint_url == endpoint.url
    # What a run does first, in a container that knows nothing but the server.
    key = "team/code/models/demand/model.yaml"
    endpoint.client().upload_file(str(flow_project.model / "model.yaml"), BUCKET, key)
    monkeypatch.chdir(tmp_path_factory.mktemp("container"))
    assert training.pull_steps
    pulled = asyncio.run(run_steps(training.pull_steps))
    assert pulled["directory"] == str(Path.cwd())
    assert Project(Path.cwd()).model_names() == ["demand"]

    # What was changed on the server, in the files, in the environment.
    client.update_deployment(training.id, DeploymentUpdate(job_variables={"image": "mine"}))
    watch = client.read_deployment_by_name("drift-watch/demand")
    client.delete_deployment_schedule(watch.id, watch.schedules[0].id)
    for automation in client.read_automations():
        if automation.name == "rollout/demand: died":
            client.delete_automation(automation.id)
    scoring = client.read_deployment_by_name("batch-scoring/demand")
    client.delete_deployment(scoring.id)
    flow_project.edit('retrain: {schedule: "0 6 * * 1"}', "retrain: {on: [drift]}")
    assert flow_project.command("check", "demand", "--write").returncode == 0
    text = (flow_project.root / "prefect.yaml").read_text()
    (flow_project.root / "prefect.yaml").write_text(
        text.replace("flows.backtest.backtest", "flows.replay.replay")
    )
    flow_project.environment["AWS_SECRET_ACCESS_KEY"] = "another-verysecret"
    flow_project.environment["PERENNIAL_IMAGE"] = "registry.example/perennial-pipeline:2"
    code, lines = setup(flow_project, "--check")
    assert code == 1
    assert differing(lines)[:-1] == [
        "block aws-credentials/perennial: would be changed (aws_secret_access_key)",
        "variable perennial_image: would be changed (was registry.example/perennial-pipeline:1)",
        "deployment continuous-training/demand: differs (schedules, triggers, "
        "work_pool.job_variables.env, work_pool.job_variables.image, "
        "work_pool.job_variables.mem_limit)",
        "deployment drift-watch/demand: differs (schedules)",
        "deployment rollout/demand: differs (triggers)",
        "deployment batch-scoring/demand: not deployed",
        "deployment replay/demand: not deployed",
        "deployment backtest/demand: not declared",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_takes_each_template_and_refuses_what_a_run_may_not_be_given(
    flow_project: Workplace, client: SyncPrefectClient, kind: str
) -> None:
    given = {
        "process": {"working_dir": "/project"},
        "docker": {"image": "perennial-pipeline:1", "mem_limit": "8g"},
        "kubernetes": {"image": "perennial-pipeline:1", "cpu": "2", "memory": "8Gi"},
        "ecs": {
            "image": "perennial-pipeline:1",
            "cpu": 4096,
            "memory": 16384,
            "task_role_arn": "arn:aws:iam::123456789012:role/perennial-flow",
            "execution_role_arn": "arn:aws:iam::123456789012:role/perennial-execution",
            "registry_url_secret_arn": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:r",
            "studies_url_secret_arn": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:s",
        },
    }[kind]
    wrong = {
        "process": {"stream_output": "perhaps"},
        "docker": {"image": ""},
        "kubernetes": {"memory": "a lot"},
        "ecs": {"cpu": 1000},
    }[kind]
    flow_id = client.create_flow_from_name("continuous-training")
    name = f"pool-{kind}"
    list(declare_pools(client, {name: kind}, check=False))
    assert client.read_work_pool(name).base_job_template == template(kind)
    deployment = client.create_deployment(
        flow_id=flow_id, name="demand", work_pool_name=name, job_variables=given
    )
    run = client.create_flow_run_from_deployment(deployment, job_variables={"env": {"A": "b"}})
    assert run.work_pool_name == name
    with pytest.raises(PrefectHTTPStatusError):
        client.create_flow_run_from_deployment(deployment, job_variables=wrong)
    if kind != "process":
        bare = client.create_deployment(
            flow_id=flow_id, name="bare", work_pool_name=name, job_variables={}
        )
        with pytest.raises(PrefectHTTPStatusError):  # no image
            client.create_flow_run_from_deployment(bare)


def test_what_containers_need_is_asked_for_before_anything_is_done(
    flow_project: Workplace, client: SyncPrefectClient
) -> None:
    for name in ("PERENNIAL_STORAGE", "PERENNIAL_STUDIES_URL"):
        del flow_project.environment[name]
    code, lines = setup(flow_project, "--pool", "docker")
    assert (code, lines[-2:]) == (
        2,
        [
            "PERENNIAL_STORAGE: needed for pools of containers, and there is no block "
            "s3-bucket/perennial yet (write s3://BUCKET/PREFIX)",
            "PERENNIAL_STUDIES_URL: needed for pools of containers, and there is no block "
            "secret/perennial-studies-url yet "
            "(write postgresql://USER:PASSWORD@HOST/DATABASE)",
        ],
    )
    assert on_server(client)["pools"] == {}
    assert setup(flow_project, "--pool", "process=small")[0] == 0
    code, lines = setup(flow_project, "--pool", "ecs=small")
    assert (code, lines) == (
        2,
        [
            "PERENNIAL_STORAGE: needed for pools of containers, and there is no block "
            "s3-bucket/perennial yet (write s3://BUCKET/PREFIX)"
        ],
    )
    flow_project.environment["PERENNIAL_STORAGE"] = SETTINGS["PERENNIAL_STORAGE"]
    code, lines = setup(flow_project, "--pool", "ecs=small")
    assert (code, lines) == (
        2,
        [
            "--pool: the pool 'small' is there, of the type process "
            "(take another name: --pool ecs=NAME)"
        ],
    )
    assert on_server(client)["blocks"] == {}
