"""A database's address is taken apart, or refused without its password."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perennial.contracts.addresses import database_address
from perennial.contracts.errors import InputError
from perennial.learning.studies import StudyStore
from perennial.stores.registry import Registry
from perennial.stores.sources import database

LIBPQ = "postgresql://u:s3cret@h1:5432,h2:5433/d"
TOLD = (
    "the port in its address is no number "
    "(write two hosts as postgresql://USER@/DATABASE?host=HOST1:PORT1&host=HOST2:PORT2)"
)


def test_two_hosts_are_two_parameters() -> None:
    url = database_address("postgresql://u:s3cret@/d?host=h1:5432&host=h2:5433", "registry")
    assert url is not None
    assert url.query == {"host": ("h1:5432", "h2:5433")}
    assert database_address("registry.db", "registry") is None


def _study() -> Any:
    with StudyStore.open(LIBPQ, "s", {}, greater_is_better=False):
        raise AssertionError("opened")


@pytest.mark.parametrize(
    ("where", "use"),
    [
        ("registry", lambda: Registry(LIBPQ)),
        ("studies", _study),
        ("source.uri", lambda: database._url(LIBPQ, Path())),
    ],
)
def test_libpqs_form_for_two_hosts_is_told_wherever_it_is_given(where: str, use: Any) -> None:
    with pytest.raises(InputError) as refused:
        use()
    assert str(refused.value) == f"{where}: {TOLD}"
