"""A flow's storage as a block on the Prefect server says: a bucket, and who may use it.

Where PERENNIAL_STORAGE_BLOCK names an S3Bucket block of prefect-aws, a flow run begins by loading
it, and puts what it says into the environment of its process: our own code, which knows no Prefect,
and all processes that it starts find it there. Prefect keeps its results in the same bucket.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, cast

from perennial.contracts.errors import InputError, Problem
from perennial.stores.storage.places import STORAGE_VARIABLE

if TYPE_CHECKING:
    from prefect_aws import S3Bucket

BLOCK_VARIABLE = "PERENNIAL_STORAGE_BLOCK"
_LASTING = ("explicit", "shared-credentials-file")
"""Credentials that a block holds or names. Those of a machine's role end after hours: whoever needs
them asks the machine."""


def result_storage() -> str | None:
    """Where Prefect keeps a flow's results: the same block; None for Prefect's own default."""
    name = os.environ.get(BLOCK_VARIABLE)
    return f"s3-bucket/{name}" if name else None


def connect_storage(environment: MutableMapping[str, str] = os.environ) -> None:
    """Make the block's storage that of this process, when a block is named; else do nothing.

    Raises InputError when there is no such block, or when PERENNIAL_STORAGE is another place.
    """
    name = environment.get(BLOCK_VARIABLE)
    if not name:
        return
    from prefect_aws import S3Bucket

    try:
        block = cast("S3Bucket", S3Bucket.load(name, _sync=True))  # type: ignore[call-arg]
    except ValueError:
        what = f"the Prefect server has no S3 bucket block {name!r}"
        fix = "perennial setup makes it of PERENNIAL_STORAGE and AWS's variables"
        raise InputError(Problem(BLOCK_VARIABLE, what, fix)) from None
    storage = "s3://" + "/".join(filter(None, (block.bucket_name, block.bucket_folder.strip("/"))))
    given = environment.get(STORAGE_VARIABLE, "").rstrip("/")
    if given not in ("", storage):
        what = f"is {given}, and block {name!r} says {storage}"
        raise InputError(Problem(STORAGE_VARIABLE, what, "unset it, or mend the block"))
    environment[STORAGE_VARIABLE] = storage
    _take_over(block, environment)


def _take_over(block: S3Bucket, environment: MutableMapping[str, str]) -> None:
    credentials = block.credentials
    if credentials.region_name:
        environment["AWS_REGION"] = credentials.region_name
    if endpoint := credentials.aws_client_parameters.endpoint_url:
        environment["AWS_ENDPOINT_URL"] = endpoint
        environment.pop("AWS_ENDPOINT_URL_S3", None)
    found = credentials.get_boto3_session().get_credentials()
    if found is None or found.method not in _LASTING:
        return
    keys = found.get_frozen_credentials()
    environment["AWS_ACCESS_KEY_ID"] = keys.access_key
    environment["AWS_SECRET_ACCESS_KEY"] = keys.secret_key
    if keys.token:
        environment["AWS_SESSION_TOKEN"] = keys.token
    else:  # one of others' keys would spoil these
        environment.pop("AWS_SESSION_TOKEN", None)
