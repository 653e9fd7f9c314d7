"""ECS: task definitions and policies that AWS's own models take, and what a run is started as."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import botocore.session
import pytest
from botocore.validate import ParamValidator
from moto import mock_aws
from prefect.client.schemas.objects import FlowRun
from prefect.utilities.templating import apply_values
from prefect_aws.workers.ecs_worker import ECSJobConfiguration, ECSVariables, ECSWorker

from deployments.pools import template

FOLDER = Path(__file__).parents[3] / "deployments" / "ecs"
POLICIES = sorted(path.name for path in FOLDER.glob("*-role.json"))
GIVEN: dict[str, Any] = {
    "image": "123456789012.dkr.ecr.eu-central-1.amazonaws.com/perennial-pipeline:1",
    "cluster": "ml",
    "cpu": 4096,
    "memory": 16384,
    "task_role_arn": "arn:aws:iam::123456789012:role/perennial-flow",
    "execution_role_arn": "arn:aws:iam::123456789012:role/perennial-execution",
    "registry_url_secret_arn": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:p/r",
    "studies_url_secret_arn": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:p/s",
    "env": {"OWNER": "team"},
}


def check(operation: str, parameters: dict[str, Any]) -> None:
    """Against the request's shape in AWS's own description of ECS."""
    service = botocore.session.get_session().get_service_model("ecs")
    shape = service.operation_model(operation).input_shape
    report = ParamValidator().validate(parameters, shape)
    assert not report.has_errors(), report.generate_report()


def document(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())


def test_a_run_is_started_by_requests_that_ecs_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = template("ecs")
    assert set(pool["job_configuration"]) <= set(ECSJobConfiguration.model_fields)
    known = set(ECSVariables.model_fields)
    own = {"registry_url_secret_arn", "studies_url_secret_arn", "scratch_gib", "log_group"}
    assert set(pool["variables"]["properties"]) - known == own
    properties = pool["variables"]["properties"]
    defaults = {name: one["default"] for name, one in properties.items() if "default" in one}
    values = {**defaults, **GIVEN, "env": {**defaults["env"], **GIVEN["env"]}}
    filled = apply_values(pool["job_configuration"], values)
    configuration = ECSJobConfiguration.model_validate(filled)
    run = FlowRun(id=uuid4(), flow_id=uuid4(), name="happy-run")
    configuration.prepare_for_flow_run(run)
    worker = ECSWorker(work_pool_name="ecs")
    # What Prefect sends follows from these two of its own steps; it has no public way to ask.
    task = worker._prepare_task_definition(configuration, region="eu-central-1", flow_run=run)
    check("RegisterTaskDefinition", task)
    (container,) = task["containerDefinitions"]
    assert (container["image"], container["user"]) == (GIVEN["image"], "1000")
    assert [one["name"] for one in container["secrets"]] == [
        "PERENNIAL_REGISTRY_URL",
        "PERENNIAL_STUDIES_URL",
    ]
    assert container["logConfiguration"]["options"]["awslogs-group"] == "/perennial/flows"
    assert (task["cpu"], task["memory"], task["networkMode"]) == ("4096", "16384", "awsvpc")
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "tests")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with mock_aws():  # it looks for the account's network
        request = worker._prepare_task_run_request(
            configuration,
            task,
            "arn:aws:ecs:eu-central-1:1:task-definition/a:1",
            True,
        )
    check("RunTask", request)
    overrides = request["overrides"]
    assert overrides["taskRoleArn"] == GIVEN["task_role_arn"]
    environment = {
        one["name"]: one["value"] for one in overrides["containerOverrides"][0]["environment"]
    }
    assert environment["OWNER"] == "team"
    assert environment["PERENNIAL_STORAGE_BLOCK"] == "perennial"
    assert not any(name.endswith("_URL") and name.startswith("PERENNIAL") for name in environment)


@pytest.mark.parametrize("name", ["serving.task.json", "worker.task.json"])
def test_task_definitions_are_taken_and_run_nothing_as_root(name: str) -> None:
    task = document(name)
    check("RegisterTaskDefinition", task)
    volumes = {one["name"] for one in task.get("volumes", [])}
    for container in task["containerDefinitions"]:
        assert container["user"] == "1000"
        assert {one["sourceVolume"] for one in container.get("mountPoints", [])} <= volumes
        told = (
            {one["name"] for one in container["environment"]}
            if "environment" in container
            else set()
        )
        assert not {n for n in told if re.search("KEY|SECRET|PASSWORD|REGISTRY_URL|STUDIES_URL", n)}


def statements(name: str) -> list[dict[str, Any]]:
    found = document(name)
    assert set(found) == {"Version", "Statement"}
    assert found["Version"] == "2012-10-17"
    return list(found["Statement"])


@pytest.mark.parametrize("name", POLICIES)
def test_policies_name_actions_that_there_are_and_what_they_are_for(name: str) -> None:
    models = botocore.session.get_session()
    # Actions that have another name than their operation, by AWS's own reference.
    named = {"s3:ListBucket": "ListObjectsV2", "iam:PassRole": "GetRole"}
    sids = [one["Sid"] for one in statements(name)]
    assert len(set(sids)) == len(sids)
    for statement in statements(name):
        assert set(statement) <= {"Sid", "Effect", "Action", "Resource", "Condition"}
        assert statement["Effect"] == "Allow"
        assert re.fullmatch("[A-Za-z]+", statement["Sid"])
        assert statement["Action"] == sorted(statement["Action"])
        for action in statement["Action"]:
            service, _, operation = action.partition(":")
            operation = named.get(action, operation)
            assert operation in models.get_service_model(service).operation_names
        resources = statement["Resource"]
        if resources == "*":  # of these AWS can't tell resources apart
            assert {one.partition(":")[2] for one in statement["Action"]} <= {
                "GetAuthorizationToken", "RegisterTaskDefinition", "DeregisterTaskDefinition",
                "DescribeTaskDefinition", "DescribeSubnets", "DescribeVpcs",
            }  # fmt: skip
        else:
            for resource in [resources] if isinstance(resources, str) else resources:
                assert re.fullmatch(r"arn:aws:[a-z0-9]+:(REGION|):(ACCOUNT|):\S+", resource)


def test_only_tasks_of_the_account_take_the_roles() -> None:
    (statement,) = document("trust.json")["Statement"]
    assert statement["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": "ACCOUNT"}}


def test_what_tasks_name_is_what_their_roles_allow() -> None:
    (secrets,) = [s for s in statements("execution-role.json") if s["Sid"] == "Secrets"]
    allowed = secrets["Resource"].removesuffix("*")
    for name in ("serving.task.json", "worker.task.json"):
        for container in document(name)["containerDefinitions"]:
            assert all(one["valueFrom"].startswith(allowed) for one in container["secrets"])
            group = container["logConfiguration"]["options"]["awslogs-group"]
            assert group.startswith("/perennial/")
    (handed,) = [s for s in statements("worker-role.json") if s["Action"] == ["iam:PassRole"]]
    assert handed["Resource"] == [
        "arn:aws:iam::ACCOUNT:role/perennial-flow",
        "arn:aws:iam::ACCOUNT:role/perennial-execution",
    ]
    worker = document("worker.task.json")["containerDefinitions"][0]
    (queue,) = [
        one["value"] for one in worker["environment"] if one["name"].endswith("SQS_QUEUE_NAME")
    ]
    assert any(str(s["Resource"]).endswith(f":{queue}") for s in statements("worker-role.json"))
