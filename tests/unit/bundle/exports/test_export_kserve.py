"""Exported KServe manifests: valid, with the route's share, and a command that there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer.main
import yaml

from perennial.bundle.exports.kserve import canary_percent, manifests
from perennial.cli.app import app
from perennial.contracts.refs import VersionRef
from perennial.contracts.routes import Arm, Route

SCHEMA = yaml.safe_load(Path(__file__).with_name("kserve.schema.yaml").read_text(encoding="utf-8"))
DIGEST = "8c7b9c64" * 8


def exported(
    name: str = "parcels", percent: int | None = 5, uri: str = "s3://bucket/bundle"
) -> dict[str, Any]:
    """The manifests by kind, each valid."""
    ref = VersionRef(model=name, version=12, digest=DIGEST, uri="/bundles/12")
    files = manifests(ref, storage_uri=uri, canary_percent=percent, image="registry/perennial:1")
    documents = [yaml.safe_load(content) for content in files.values()]
    for document in documents:
        jsonschema.validate(document, SCHEMA)
    return {document["kind"]: document for document in documents}


def route(champion: int | None, arms: dict[int, int], shadow: tuple[int, ...] = ()) -> Route:
    weights = tuple(Arm(version=version, weight=weight) for version, weight in arms.items())
    return Route(
        model="parcels", champion=champion, arms=weights, shadow=shadow, generation=3,
        updated_at=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("route", "version", "percent"),
    [
        (route(1, {1: 100}), 1, None),
        (route(1, {1: 95, 2: 5}), 2, 5),
        (route(1, {1: 95, 2: 5}), 1, None),
        (route(1, {1: 0, 2: 100}), 2, 100),
        (route(1, {1: 100}, shadow=(2,)), 2, 0),
        (route(1, {1: 100}), 7, 0),
        (route(None, {}), 1, 0),
    ],
    ids=["champion", "challenger", "champion beside one", "blue-green", "shadow", "none", "first"],
)
def test_a_version_gets_the_share_that_the_route_gives_it(
    route: Route, version: int, percent: int | None
) -> None:
    assert canary_percent(route, version) == percent


def test_an_inference_service_asks_for_one_bundle_by_the_v2_protocol() -> None:
    predictor = exported()["InferenceService"]["spec"]["predictor"]
    assert predictor["canaryTrafficPercent"] == 5
    assert predictor["model"] == {
        "modelFormat": {"name": "perennial"},
        "protocolVersion": "v2",
        "storageUri": "s3://bucket/bundle",
        "args": ["--version", "12", "--digest", DIGEST],
    }


def test_a_champion_has_no_share_to_measure() -> None:
    predictor = exported(percent=None)["InferenceService"]["spec"]["predictor"]
    assert "canaryTrafficPercent" not in predictor


def test_the_runtime_is_chosen_by_the_format_that_the_service_names() -> None:
    both = exported()
    wanted = both["InferenceService"]["spec"]["predictor"]["model"]
    runtime = both["ServingRuntime"]["spec"]
    assert runtime["supportedModelFormats"] == [{**wanted["modelFormat"], "autoSelect": True}]
    assert runtime["protocolVersions"] == [wanted["protocolVersion"]]
    assert runtime["containers"][0]["image"] == "registry/perennial:1"


def test_the_container_runs_a_command_that_there_is() -> None:
    both = exported()
    container = both["ServingRuntime"]["spec"]["containers"][0]
    own = both["InferenceService"]["spec"]["predictor"]["model"]["args"]
    program, project, home, name = container["command"]
    assert (program, project, name) == ("perennial", "--project", "serve")
    group: Any = typer.main.get_command(app)
    command = group.commands[name]
    given = [*container["args"], *own]
    at = given.index("--bundle") + 1
    assert given[at] == "/mnt/models"  # where KServe puts what storageUri names
    given[at] = str(Path(__file__).parent)
    parsed = command.make_context(name, given).params
    assert {key: parsed[key] for key in ("host", "port", "version", "digest")} == {
        "host": "0.0.0.0",
        "port": container["ports"][0]["containerPort"],
        "version": 12,
        "digest": DIGEST,
    }
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in both["ServingRuntime"]["spec"]["volumes"]}
    assert "emptyDir" in volumes[mounts[home]]
    tokens = volumes[mounts[str(parsed["tokens"].parent)]]
    assert tokens["secret"] == {"secretName": "perennial-tokens"}


def test_a_model_whose_name_begins_with_a_digit_gets_a_name_that_kserve_takes() -> None:
    assert exported("2nd-hand")["InferenceService"]["metadata"]["name"] == "model-2nd-hand"
    assert exported("parcels")["InferenceService"]["metadata"]["name"] == "parcels"


def test_a_field_that_kserve_does_not_know_would_be_found() -> None:
    document = exported()["InferenceService"]
    document["spec"]["predictor"]["canaryPercent"] = 5
    with pytest.raises(jsonschema.ValidationError, match="canaryPercent"):
        jsonschema.Draft202012Validator(
            {"$ref": "#/$defs/InferenceService", "$defs": SCHEMA["$defs"]}
        ).validate(document)
