"""Where runs keep what lasts: blocks and Prefect variables, from the environment of the setup.

The same variables that a command line without Prefect follows (``PERENNIAL_STORAGE``, AWS's own)
become what flows find on the server, wherever they run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from prefect.blocks.core import Block
from prefect.blocks.system import Secret
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound
from prefect_aws import AwsCredentials, S3Bucket
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr

from perennial.contracts.errors import InputError, Problem
from perennial.stores.storage.places import STORAGE_VARIABLE, bucket_of, is_remote, storage_place

NAME = "perennial"
"""Of the blocks; runs in containers are told it by PERENNIAL_STORAGE_BLOCK."""
IMAGE = "PERENNIAL_IMAGE"
DATABASES = {
    "PERENNIAL_REGISTRY_URL": "perennial-registry-url",
    "PERENNIAL_STUDIES_URL": "perennial-studies-url",
}
"""Secret blocks by the environment variables that they are of."""

_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_FORM = "write s3://BUCKET/PREFIX"


def blocks(environment: Mapping[str, str], pools: Iterable[str]) -> dict[str, Block]:
    """The blocks that the environment asks for, by name and in the order of their making: a bucket
    with its credentials, and for a pool of kind ``docker``, which has no secrets of its own, the
    addresses of the databases.

    Temporary keys are left out: they would be of no use in an hour, and Prefect shows a session's
    token. Whoever runs has a role then, or keys of his own. Raises InputError.
    """
    found: dict[str, Block] = {}
    place = _place(environment)
    if place is not None:
        bucket, prefix = place
        credentials = _credentials(environment)
        found[f"aws-credentials/{NAME}"] = credentials
        found[f"s3-bucket/{NAME}"] = S3Bucket(
            bucket_name=bucket, bucket_folder=prefix, credentials=credentials
        )
    if "docker" in pools:
        for variable, name in DATABASES.items():
            if url := environment.get(variable, "").strip():
                found[f"secret/{name}"] = Secret(value=SecretStr(url))
    return found


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Prefect variables, for deploy.yaml: where the project's files are (``perennial_bucket``,
    ``perennial_code``) and which image runs (``perennial_image``). Raises InputError."""
    found = {}
    place = _place(environment)
    if place is not None:
        bucket, prefix = place
        found["perennial_bucket"] = bucket
        found["perennial_code"] = f"{prefix}/code" if prefix else "code"
    if image := environment.get(IMAGE, "").strip():
        found["perennial_image"] = image
    return found


def check_needs(
    client: SyncPrefectClient, pools: Iterable[str], declared: Mapping[str, Block]
) -> None:
    """Raises InputError when what containers can't do without is neither declared nor there: what
    they write to their own disk is gone with them."""
    kinds = set(pools) - {"process"}
    needed = {f"s3-bucket/{NAME}": STORAGE_VARIABLE} if kinds else {}
    if "docker" in kinds:
        needed |= {f"secret/{name}": variable for variable, name in DATABASES.items()}
    problems = []
    for title, variable in needed.items():
        if title not in declared and not _there(client, title):
            what = f"needed for pools of containers, and there is no block {title} yet"
            fix = (
                _FORM
                if variable == STORAGE_VARIABLE
                else "write postgresql://USER:PASSWORD@HOST/DATABASE"
            )
            problems.append(Problem(variable, what, fix))
    if problems:
        raise InputError(problems)


def _there(client: SyncPrefectClient, title: str) -> bool:
    slug, _, name = title.partition("/")
    try:
        client.read_block_document_by_name(name, slug, include_secrets=False)
    except ObjectNotFound:
        return False
    return True


def _place(environment: Mapping[str, str]) -> tuple[str, str] | None:
    """Bucket and prefix; None where the storage is a folder."""
    setting = environment.get(STORAGE_VARIABLE, "").strip()
    place = storage_place(setting, Path(), Path())
    return bucket_of(place) if is_remote(place) else None


def _credentials(environment: Mapping[str, str]) -> AwsCredentials:
    def said(*names: str) -> str | None:
        return next((environment[name].strip() for name in names if environment.get(name)), None)

    key, secret = (said(name) for name in _KEYS)
    if (key is None) != (secret is None):
        missing = _KEYS[key is not None]
        raise InputError(Problem(missing, "one of the two is set, and not the other"))
    if said("AWS_SESSION_TOKEN"):
        key = secret = None
    return AwsCredentials(
        aws_access_key_id=key,
        aws_secret_access_key=None if secret is None else SecretStr(secret),
        region_name=said("AWS_REGION", "AWS_DEFAULT_REGION"),
        aws_client_parameters=AwsClientParameters(
            endpoint_url=said("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
        ),
    )
