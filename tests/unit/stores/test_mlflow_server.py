"""What is said of an MLflow server that can't be reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from perennial.cli.prefect_server import free_port
from perennial.contracts.errors import InputError, UnavailableError
from perennial.stores.project import Project
from perennial.stores.publishing.mlflow import URI_VARIABLE, MlflowServer


@pytest.mark.parametrize("login", ["", "ann:secret@"])
@pytest.mark.parametrize("place", ["127.0.0.1:5907", "localhost:5907/base", "mlflow.example.com"])
def test_an_address_without_a_scheme_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, login: str
) -> None:
    monkeypatch.setenv(URI_VARIABLE, login + place)
    server = MlflowServer.named(Project(tmp_path))
    assert server is not None
    with pytest.raises(InputError) as refused, server.open("parcels"):
        pass
    assert refused.value.message == (
        f"{URI_VARIABLE}: '{place}' is no address (write http://{place} or https://{place})"
    )


def test_a_refused_connection_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    url = f"http://127.0.0.1:{free_port()}"
    with (
        pytest.raises(UnavailableError) as failed,
        MlflowServer(url, Project(tmp_path)).open("parcels"),
    ):
        pass
    assert failed.value.message == f"MLflow at {url} failed: [Errno 111] Connection refused"


def test_a_long_error_is_cut_between_words(tmp_path: Path) -> None:
    server = MlflowServer(f"sqlite:///{tmp_path}/mlflow.db", Project(tmp_path))
    with pytest.raises(UnavailableError) as failed, server.open("parcels"):
        raise RuntimeError("word " * 200)
    assert failed.value.message.endswith("word word …")
