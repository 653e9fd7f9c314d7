"""Throw-away S3 endpoints for tests: moto's server, and Ceph's gateway where it is installed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

BUCKET = "perennial-tests"


@dataclass(frozen=True)
class Endpoint:
    """An S3 endpoint with a bucket, and who may use it."""

    url: str
    key: str = "tests"
    secret: str = "not-a-secret-of-anybody"

    def environment(self, prefix: str) -> dict[str, str]:
        """The settings of a project whose storage is a prefix of the bucket."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": "us-east-1",
            "PERENNIAL_STORAGE": f"s3://{BUCKET}/{prefix}",
        }

    def client(self) -> Any:
        """boto3's client: a view of the store that shares nothing with our code."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )


@contextmanager
def moto() -> Iterator[Endpoint]:
    """moto's server in this process, over HTTP, with an empty bucket."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = Endpoint(f"http://{host}:{port}")
        endpoint.client().create_bucket(Bucket=BUCKET)
        yield endpoint
    finally:
        server.stop()
