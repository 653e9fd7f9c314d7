"""Manifests for KServe: a ServingRuntime that runs ``perennial serve`` with one bundle, and an
InferenceService that asks for it by the bundle's storage address."""

from __future__ import annotations

from typing import Any

import yaml

from perennial.contracts.refs import VersionRef
from perennial.contracts.routes import Route

FORMAT = "perennial"
TOKENS_SECRET = "perennial-tokens"
_PORT = 8080
_HOME = "/var/lib/perennial"
_TOKENS = "/etc/perennial"


def manifests(
    ref: VersionRef, *, storage_uri: str, canary_percent: int | None, image: str
) -> dict[str, bytes]:
    """The manifests' files. ``canary_percent`` None gives the version all requests for good."""
    return {
        "inferenceservice.yaml": _yaml(_inference_service(ref, storage_uri, canary_percent)),
        "servingruntime.yaml": _yaml(_serving_runtime(image)),
    }


def canary_percent(route: Route, version: int) -> int | None:
    """A version's share of requests in percent by the registry's route; None for the champion,
    beside whom KServe measures a canary. 0 for one that answers nobody."""
    if version == route.champion:
        return None
    return next((arm.weight for arm in route.arms if arm.version == version), 0)


def service_name(model: str) -> str:
    """The InferenceService's name: KServe's begin with a letter."""
    return model if model[0].isalpha() else f"model-{model}"


def _inference_service(ref: VersionRef, storage_uri: str, percent: int | None) -> dict[str, Any]:
    share = {} if percent is None else {"canaryTrafficPercent": percent}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": service_name(ref.model),
            "annotations": {
                "perennial/model": ref.model,
                "perennial/version": str(ref.version),
                "perennial/digest": ref.digest,
            },
        },
        "spec": {
            "predictor": {
                **share,
                "minReplicas": 1,
                "model": {
                    "modelFormat": {"name": FORMAT},
                    "protocolVersion": "v2",
                    "storageUri": storage_uri,
                    # These follow the runtime's own: a new version is a new revision.
                    "args": ["--version", str(ref.version), "--digest", ref.digest],
                },
            }
        },
    }


def _serving_runtime(image: str) -> dict[str, Any]:
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": FORMAT},
        "spec": {
            "supportedModelFormats": [{"name": FORMAT, "autoSelect": True}],
            "protocolVersions": ["v2"],
            "containers": [
                {
                    "name": "kserve-container",
                    "image": image,
                    "command": ["perennial", "--project", _HOME, "serve"],
                    "args": [
                        "--bundle", "/mnt/models", "--host", "0.0.0.0", "--port", str(_PORT),
                        "--tokens", f"{_TOKENS}/tokens.yaml",
                    ],
                    "ports": [{"containerPort": _PORT, "protocol": "TCP"}],
                    "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": _PORT}},
                    "livenessProbe": {"httpGet": {"path": "/v2/health/live", "port": _PORT}},
                    "resources": {
                        "requests": {"cpu": "1", "memory": "1Gi"},
                        "limits": {"memory": "2Gi"},
                    },
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                        "runAsNonRoot": True,
                    },
                    "volumeMounts": [
                        {"name": "home", "mountPath": _HOME},
                        {"name": "tokens", "mountPath": _TOKENS, "readOnly": True},
                    ],
                }
            ],
            "volumes": [
                {"name": "home", "emptyDir": {}},
                {"name": "tokens", "secret": {"secretName": TOKENS_SECRET}},
            ],
        },
    }  # fmt: skip


def _yaml(value: object) -> bytes:
    text: str = yaml.safe_dump(value, allow_unicode=True, sort_keys=False, width=1000)
    return text.encode()
