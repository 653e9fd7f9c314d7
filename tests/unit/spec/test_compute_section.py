"""Where the work runs, as a person writes it."""

from __future__ import annotations

from typing import Any

import pytest

from perennial.spec import parse_spec, spec_text


@pytest.mark.parametrize(
    ("written", "read"),
    [("2GiB", 2 << 30), ("512MiB", 512 << 20), ("1.5 GiB", 3 << 29), ("0.5TiB", 1 << 39)],
)
def test_a_size_has_a_unit_and_is_written_back_the_same(spec: Any, written: str, read: int) -> None:
    found = spec(compute={"memory": written})
    assert found.compute.memory == read
    assert parse_spec(spec_text(found)).compute == found.compute


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (
            {"kind": "dusk"},
            "kind: 'dusk' is not one of local, dask; did you mean 'dask'?",
        ),
        (
            {"address": "tcp://scheduler:8786"},
            "address: only a dask cluster has an address; write kind: dask",
        ),
        (
            {"kind": "dask", "address": "scheduler:8786"},
            "address: 'scheduler:8786' is not a scheduler's address; write tcp://host:8786, or "
            "tls://",
        ),
        (
            {"kind": "dask", "address": "tcp://name:secret@scheduler:8786"},
            "address: 'tcp://name:secret@scheduler:8786' is not a scheduler's address; write "
            "tcp://host:8786, or tls://",
        ),
        (
            {"memory": "2GB"},
            "memory: '2GB' is not a size; write a number and a unit: 512MiB, 2GiB",
        ),
        (
            {"memory": "0GiB"},
            "memory: '0GiB' is not a size; write a number and a unit: 512MiB, 2GiB",
        ),
    ],
)
def test_what_is_wrong_is_said(mistakes: Any, section: dict[str, str], said: str) -> None:
    assert mistakes({"compute": section}) == [f"compute.{said}"]
