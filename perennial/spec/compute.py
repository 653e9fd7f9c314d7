"""The section of model.yaml that says where the work runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema

from perennial.spec.values import Mistake, Section, shown

_BYTES = {"MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE = re.compile(r"^([0-9]+(?:\.[0-9]+)?) ?(MiB|GiB|TiB)$")
_SIZE_SCHEMA: dict[str, Any] = {
    "type": "string",
    "pattern": _SIZE.pattern,
    "examples": ["512MiB", "2GiB", "1.5TiB"],
}
_ADDRESS = re.compile(r"^(tcp|tls|ucx|ws|wss)://[^\s/:@]+:[0-9]{1,5}$")


def _parse_size(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None or not float(match[1]):
        raise ValueError(f"{shown(value)} is not a size; write a number and a unit: 512MiB, 2GiB")
    return round(float(match[1]) * _BYTES[match[2]])


def format_size(value: int) -> str:
    """Bytes as model.yaml has them: ``2GiB``; whole bytes that are no round number of MiB are
    rounded up."""
    unit = next((u for u in ("TiB", "GiB") if value % _BYTES[u] == 0), "MiB")
    return f"{-(-value // _BYTES[unit])}{unit}"


def check_address(value: str) -> str:
    """A scheduler's address itself. Raises ValueError with the rule when it is none."""
    if not _ADDRESS.fullmatch(value):
        raise ValueError(
            f"{shown(value)} is not a scheduler's address; write tcp://host:8786, or tls://"
        )
    return value


Size = Annotated[
    int,
    PlainValidator(_parse_size),
    PlainSerializer(format_size),
    WithJsonSchema(_SIZE_SCHEMA),
]
"""Bytes, written with a unit of 1024s."""


def _of_its_kind(compute: Compute) -> Iterator[Mistake]:
    if compute.kind == "local" and compute.address is not None:
        yield "address", "only a dask cluster has an address; write kind: dask"


class Compute(Section):
    """Where rows are checked, features computed, drift counted and boosters trained."""

    kind: Literal["local", "dask"] = "local"
    """`local`: in the flow's process, with all its cores. `dask`: on the workers of a Dask
    cluster."""
    address: (
        Annotated[
            str,
            AfterValidator(check_address),
            Field(json_schema_extra={"pattern": _ADDRESS.pattern}),
        ]
        | None
    ) = None
    """Of the cluster's scheduler, such as `tcp://scheduler:8786`. PERENNIAL_DASK_ADDRESS takes its
    place where it is set."""
    memory: Size | None = None
    """A matrix that is larger is trained on in pages from disk (XGBoost's external memory), with
    the same result to the byte. By default half of what the process may use."""

    rules = (_of_its_kind,)
