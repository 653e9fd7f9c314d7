"""What the how-tos tell a person to write is taken: each deploy.yaml, by the pool it is for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from prefect.utilities.schema_tools import validate
from prefect_aws.deployments.steps import pull_from_s3

from deployments.pools import template
from perennial.spec.places import FLOWS, Deploy, Flow

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize(
    ("page", "kind"), [("work-pools", "docker"), ("kubernetes", "kubernetes"), ("ecs", "ecs")]
)
def test_a_deploy_yaml_of_the_docs_fits_its_pool(page: str, kind: str) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.S)
    (text,) = [block for block in blocks if block.startswith("work_pool:")]
    deploy = Deploy.model_validate(yaml.safe_load(text))
    flow: Flow
    for flow in FLOWS:  # type: ignore[assignment]
        found = deploy.of("flight-delay", flow)
        variables = found["work_pool"]["job_variables"]
        schema = template(kind)["variables"]
        validate(variables, schema, raise_on_error=True, preprocess=True)
        assert set(variables) <= set(schema["properties"])
        for step in found.get("pull", []):
            ((name, inputs),) = step.items()
            assert name == f"{pull_from_s3.__module__}.{pull_from_s3.__name__}"
            assert set(inputs) <= {"bucket", "folder", "credentials"}


def test_the_docs_name_every_job_variable_that_a_team_sets() -> None:
    for page, kind in (("docker", "docker"), ("kubernetes", "kubernetes"), ("ecs", "ecs")):
        text = (DOCS / f"{page}.md").read_text()
        usual = {"name", "command", "labels", "stream_output"}
        for variable in set(template(kind)["variables"]["properties"]) - usual:
            assert re.search(rf"\b{variable}\b", text), (page, variable)
