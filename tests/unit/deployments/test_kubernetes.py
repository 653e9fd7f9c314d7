"""Kubernetes manifests: valid for every version that is claimed, restricted, and in step with what
they start."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from prefect.utilities.templating import apply_values

from deployments.pools import template
from perennial.spec.places import WORK_POOL

FOLDER = Path(__file__).parents[3] / "deployments" / "kubernetes"
VERSIONS = sorted(
    version
    for version in set(kubernetes_validate.utils.all_versions())
    if tuple(map(int, version.split(".")[:2])) >= (1, 32)
)
"""KServe asks for 1.32, the rest for less."""
VARIANTS = ("plain", "kserve")
# What an InferenceService's predictor may have beside the fields of a pod, of those that we use.
PREDICTOR = {
    "type": "object",
    "required": ["containers", "minReplicas", "maxReplicas"],
    "properties": {
        "minReplicas": {"type": "integer", "minimum": 1},
        "maxReplicas": {"type": "integer", "minimum": 1},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}


def documents(folder: Path) -> Iterator[dict[str, Any]]:
    """Of a kustomization and those that it is made of, each with what it is in."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert kustomization["namespace"] == "perennial"
    for name in kustomization["resources"]:
        if (folder / name).is_dir():
            yield from documents(folder / name)
        else:
            yield from yaml.safe_load_all((folder / name).read_text())


def all_of(variant: str) -> dict[str, dict[str, Any]]:
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in documents(FOLDER / variant)}


def pods(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each pod's template, as a pod."""
    templates = {
        name: one["spec"]["template"]
        for name, one in found.items()
        if "template" in one.get("spec", {})
    }
    for name, one in found.items():
        if one["kind"] == "InferenceService":
            predictor = one["spec"]["predictor"]
            jsonschema.validate(predictor, PREDICTOR)
            spec = {k: v for k, v in predictor.items() if k not in PREDICTOR["properties"]}
            templates[name] = {"metadata": {"labels": predictor["labels"]}, "spec": spec}
    return {
        name: {
            "apiVersion": "v1",
            "kind": "Pod",
            **one,
            "metadata": {"name": "a", **one["metadata"]},
        }
        for name, one in templates.items()
    }


def flow_job() -> dict[str, Any]:
    """The job of a run, as the pool's template says it."""
    found = template("kubernetes")
    values = {
        name: one["default"]
        for name, one in found["variables"]["properties"].items()
        if one.get("default") is not None
    }
    values |= {"image": "registry.example/perennial-pipeline:1", "name": "a-run", "labels": {}}
    values["env"] = [{"name": name, "value": value} for name, value in values["env"].items()]
    values["command"] = ["prefect", "flow-run", "execute"]
    manifest = found["job_configuration"]["job_manifest"]
    job: dict[str, Any] = apply_values(manifest, values)  # type: ignore[assignment]
    job["metadata"]["name"] = job["metadata"].pop("generateName") + "x"
    return job


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_valid(version: str) -> None:
    found = {"job": flow_job()}
    for variant in VARIANTS:
        found |= all_of(variant)
        found |= {f"pod of {name}": pod for name, pod in pods(all_of(variant)).items()}
    assert len(found) > 15
    for one in found.values():
        if one["kind"] != "InferenceService":  # its pod is looked at
            kubernetes_validate.validate(one, version, strict=True)


def test_a_field_that_kubernetes_does_not_know_would_be_found() -> None:
    job = flow_job()
    job["spec"]["template"]["spec"]["containers"][0]["privilegedEscalation"] = False
    with pytest.raises(kubernetes_validate.ValidationError, match="privilegedEscalation"):
        kubernetes_validate.validate(job, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_pods_have_no_more_rights_than_the_namespace_allows(variant: str) -> None:
    found = all_of(variant)
    labels = found["Namespace/perennial"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    there = pods(found) | {"flow": {"spec": flow_job()["spec"]["template"]["spec"]}}
    assert len(there) == 3
    for pod in there.values():
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"]
        assert context["runAsUser"] == 1000
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["spec"]["containers"]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert not {"privileged", "runAsUser"} & own.keys()
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
    accounts = {name: one for name, one in found.items() if one["kind"] == "ServiceAccount"}
    knows = {n for n, one in accounts.items() if one["automountServiceAccountToken"]}
    assert knows == {"ServiceAccount/perennial-worker"}
    for pod in there.values():
        assert f"ServiceAccount/{pod['spec']['serviceAccountName']}" in accounts


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_manifests_name_is_there(variant: str) -> None:
    found = all_of(variant)
    assert "kind: Secret\n" not in str(found)
    settings = set(found["ConfigMap/perennial"]["data"])
    secrets = {
        "perennial": {
            "PERENNIAL_REGISTRY_URL", "PERENNIAL_STUDIES_URL", "PREFECT_API_KEY",
            "PREFECT_API_AUTH_STRING",
        },
        "perennial-tokens": {"tokens.yaml"},
    }  # fmt: skip
    text = (FOLDER / "base" / "settings.yaml").read_text()
    assert all(key in text for keys in secrets.values() for key in keys)
    for pod in pods(found).values():
        volumes = {one["name"] for one in pod["spec"]["volumes"]}
        for one in found.values():
            for claim in one.get("spec", {}).get("volumeClaimTemplates", []):
                volumes.add(claim["metadata"]["name"])
        for container in pod["spec"]["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            for variable in container.get("env", []):
                told = variable.get("valueFrom", {})
                if "configMapKeyRef" in told:
                    assert told["configMapKeyRef"]["key"] in settings
                if "secretKeyRef" in told:
                    assert told["secretKeyRef"]["key"] in secrets[told["secretKeyRef"]["name"]]
        names = [v.get("secret", {}).get("secretName") for v in pod["spec"]["volumes"]]
        assert {name for name in names if name} <= secrets.keys()
    for name, one in found.items():
        selector = one.get("spec", {}).get("selector")
        if one["kind"] in ("Deployment", "StatefulSet"):
            labels = one["spec"]["template"]["metadata"]["labels"]
            assert selector["matchLabels"].items() <= labels.items(), name
    if variant == "plain":
        labels = found["StatefulSet/perennial-serving"]["spec"]["template"]["metadata"]["labels"]
        assert found["Service/perennial-serving"]["spec"]["selector"].items() <= labels.items()
    binding = found["RoleBinding/perennial-worker"]
    assert f"{binding['roleRef']['kind']}/{binding['roleRef']['name']}" in found
    assert found["Role/perennial-worker"]["rules"] == [
        {
            "apiGroups": ["batch"],
            "resources": ["jobs"],
            "verbs": ["create", "get", "list", "watch", "patch", "delete"],
        },
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    ]


def test_worker_and_serving_are_started_as_they_can_be() -> None:
    from importlib.metadata import version

    (worker,) = pods(all_of("plain"))["Deployment/perennial-worker"]["spec"]["containers"]
    assert f":{version('prefect')}-" in worker["image"]
    at = worker["args"].index("--pool") + 1
    assert worker["args"][at] == WORK_POOL
    namespace = template("kubernetes")["variables"]["properties"]["namespace"]["default"]
    variables = {one["name"]: one.get("value") for one in worker["env"]}
    assert variables["PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_NAMESPACES"] == namespace
    dockerfile = (FOLDER.parent / "docker" / "serving.Dockerfile").read_text()
    (arguments,) = re.findall(r"^CMD (\[.*\])$", dockerfile, re.M)
    given = dict(zip(json.loads(arguments)[::2], json.loads(arguments)[1::2], strict=True))
    for variant, name in (("plain", "StatefulSet"), ("kserve", "InferenceService")):
        pod = pods(all_of(variant))[f"{name}/perennial-serving"]
        (serving,) = pod["spec"]["containers"]
        assert str(serving["ports"][0]["containerPort"]) == given["--port"]
        mounts = {one["mountPath"] for one in serving["volumeMounts"]}
        assert {str(Path(given["--tokens"]).parent), "/project/.perennial", "/tmp"} == mounts
        # longer than the 45 s that serving may take to end
        assert pod["spec"]["terminationGracePeriodSeconds"] > 45


@pytest.mark.parametrize("variant", VARIANTS if shutil.which("kubectl") else ())
def test_kustomize_builds_each_variant_with_the_image_it_names(variant: str) -> None:
    command = ["kubectl", "kustomize", str(FOLDER / variant)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    assert len(built) == len(all_of(variant))
    assert {one["metadata"].get("namespace", "perennial") for one in built} == {"perennial"}
    assert "image: perennial-serving:1\n" in done.stdout
