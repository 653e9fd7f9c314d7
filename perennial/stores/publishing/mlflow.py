"""Versions in an MLflow server: a run each, a registered model with a version each, aliases.

Runs and versions are found again by their tag ``perennial.digest``, which is set in the call that
makes them. MLflow has no lock: of versions that two publishers made at once the first counts, with
the run it points at, and whoever sees others removes them.
"""

from __future__ import annotations

import os
import re
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from perennial.bundle.exports.mlflow import model_folder
from perennial.bundle.read import Bundle
from perennial.contracts.distribution import pip_install
from perennial.contracts.errors import InputError, PerennialError, Problem, UnavailableError
from perennial.contracts.publishing import Destination
from perennial.decisions.publishing import ALIASES
from perennial.learning.studies import best_curve
from perennial.stores.project import Project
from perennial.stores.registry import Version

URI_VARIABLE = "PERENNIAL_MLFLOW_URI"
_DIGEST = "perennial.digest"
_BRIEFLY = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""MLflow's own settings, where the user has none: by its defaults a server that is away would be
waited for for minutes, and addresses are printed."""
_MOST_TEXT = 500  # characters of a parameter, or of an error
_NO_SERVER = ("/", ".", "~", "file:", "databricks", "uc:")
"""How addresses begin that MLflow knows without a ``://``; others are folders to it."""
_REFUSED = re.compile(r"[^/\w.\- ]")  # in its name, by any server: one on Windows has no colon


class MlflowServer:
    """The server that ``PERENNIAL_MLFLOW_URI`` names."""

    name: Destination = "mlflow"

    def __init__(self, uri: str, project: Project) -> None:
        self.project = project
        self._uri = uri
        scheme, mark, rest = uri.partition("://") if "://" in uri else ("", "", uri)
        # To the last @, whatever a password holds; and no address is too wrong to be shown.
        self._login, _, where = rest.rpartition("@")
        self.place = f"{scheme}{mark}{where}"

    @classmethod
    def named(cls, project: Project) -> MlflowServer | None:
        uri = os.environ.get(URI_VARIABLE)
        return cls(uri, project) if uri else None

    @contextmanager
    def open(self, model: str) -> Iterator[MlflowModel]:
        """A model there, made if need be. Whatever MLflow raises within is an UnavailableError."""
        if "://" not in self._uri and not self._uri.startswith(_NO_SERVER):
            fix = f"write http://{self.place} or https://{self.place}"
            raise InputError(Problem(URI_VARIABLE, f"{self.place!r} is no address", fix))
        for name, value in _BRIEFLY.items():
            os.environ.setdefault(name, value)
        try:
            from mlflow import MlflowClient
        except ModuleNotFoundError:
            what = f"{URI_VARIABLE} is set, and MLflow's client is not installed"
            raise InputError(f"{what} ({pip_install('mlflow')})") from None
        try:
            client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
            yield MlflowModel(client, model, self.project.studies_url)
        except PerennialError:
            raise
        except Exception as error:  # its own, those of requests, of databases and of addresses
            cause = str(_system_error(error) or error) or type(error).__name__
            if self._login:
                cause = cause.replace(f"{self._login}@", "")
            cause = textwrap.shorten(cause, _MOST_TEXT, placeholder=" …")
            raise UnavailableError(f"MLflow at {self.place} failed: {cause}") from None


class MlflowModel:
    """A registered model, and the experiment ``perennial/<model>`` with its runs."""

    def __init__(self, client: Any, model: str, studies_url: str) -> None:
        self._client = client
        self._model = model
        self._studies_url = studies_url
        self._experiment = self._made(
            lambda: client.create_experiment(f"perennial/{model}"),
            lambda: client.get_experiment_by_name(f"perennial/{model}").experiment_id,
        )
        self._made(
            lambda: client.create_registered_model(model, tags={"perennial.model": model}),
            lambda: None,
        )

    def digests(self) -> set[str]:
        return {*self._tidied()}

    def add(self, version: Version, bundle: Bundle) -> None:
        """The run is written whole before the version that points at it is made."""
        from mlflow.exceptions import MlflowException

        run = self._run(version)
        try:
            self._write(run, version, bundle)
            if not self._versions(version.ref.digest):
                self._client.create_model_version(
                    self._model,
                    f"{run.info.artifact_uri}/model",
                    run_id=run.info.run_id,
                    tags=_tags(version, bundle),
                    description=_reason(version),
                    await_creation_for=0,
                )
        except MlflowException:  # another publisher may have been quicker, and removed this run
            if not self._versions(version.ref.digest):
                raise

    def point(self, aliases: Mapping[str, str]) -> list[str]:
        versions = {digest: one.version for digest, one in self._tidied().items()}
        now = self._client.get_registered_model(self._model).aliases
        moved = []
        for alias in ALIASES:
            wanted = str(versions[aliases[alias]]) if alias in aliases else None
            if wanted is None and alias in now:
                self._client.delete_registered_model_alias(self._model, alias)
            elif wanted is not None and str(now.get(alias)) != wanted:
                self._client.set_registered_model_alias(self._model, alias, wanted)
            else:
                continue
            moved.append(alias)
        return moved

    def _versions(self, digest: str = "") -> dict[str, list[Any]]:
        """digest → the versions that have it, oldest first: the first is the one that counts. All
        of ours, or those of one digest."""
        query = f"name = '{self._model}'"
        if digest:
            query += f" AND tags.`{_DIGEST}` = '{digest}'"
        found: dict[str, list[Any]] = {}
        for one in _pages(self._client.search_model_versions, query):
            if digest := one.tags.get(_DIGEST):
                found.setdefault(digest, []).append(one)
        return {
            digest: sorted(several, key=lambda one: int(one.version))
            for digest, several in found.items()
        }

    def _tidied(self) -> dict[str, Any]:
        """digest → the version that counts. Other versions of the same digest are removed, and
        runs of it that the version does not point at."""
        versions = self._versions()
        for _, *others in versions.values():
            for one in others:
                self._gone(partial(self._client.delete_model_version, self._model, one.version))
        kept = {digest: several[0] for digest, several in versions.items()}
        search = partial(self._client.search_runs, [self._experiment])
        for run in _pages(search, ""):
            version = kept.get(run.data.tags.get(_DIGEST, ""))
            if version is not None and version.run_id != run.info.run_id:
                self._gone(partial(self._client.delete_run, run.info.run_id))
        return kept

    def _run(self, version: Version) -> Any:
        """The version's run, found or made."""
        query = f"tags.`{_DIGEST}` = '{version.ref.digest}'"
        runs = self._client.search_runs([self._experiment], query, order_by=["run_id ASC"])
        return (
            runs[0]
            if runs
            else self._client.create_run(
                self._experiment,
                start_time=_millis(version),
                run_name=f"{version.ref.model}@{version.ref.version}",
                tags={_DIGEST: version.ref.digest, "mlflow.user": "perennial"},
            )
        )

    def _write(self, run: Any, version: Version, bundle: Bundle) -> None:
        from mlflow.entities import Metric, Param, RunTag

        at, identity = _millis(version), run.info.run_id
        kind = "" if bundle.weights is None else "weights/"  # a member may be called anything
        params: dict[str, object] = {"objective": bundle.objective}
        params |= {f"{kind}{name}": value for name, value in version.params.items()}
        metrics = [
            Metric(name, value, at, 0)
            for name, value in version.metrics.items()
            if value is not None
        ]
        curve = best_curve(self._studies_url, version.links.get("study", ""))
        metrics += [
            Metric(f"validation/{bundle.spec.metric}", value, at, rounds)
            for rounds, value in curve.items()
        ]
        self._client.log_batch(
            identity,
            metrics=metrics,
            params=[
                Param(_REFUSED.sub("_", name), str(value)[:_MOST_TEXT])
                for name, value in params.items()
            ],
            tags=[RunTag(name, value) for name, value in _tags(version, bundle).items()],
        )
        with tempfile.TemporaryDirectory() as folder:
            for name, content in model_folder(bundle, version.ref, version.created_at).items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self._client.log_artifacts(identity, folder, "model")
        self._client.set_terminated(identity, "FINISHED", end_time=at)

    def _made(self, make: Any, find: Any) -> Any:
        """What ``make`` gives, or what is there already."""
        from mlflow.exceptions import MlflowException

        try:
            return make()
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return find()

    def _gone(self, remove: Any) -> None:
        """Remove what another publisher may be removing too."""
        from mlflow.exceptions import MlflowException

        try:
            remove()
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise


def _system_error(error: BaseException) -> OSError | None:
    """What the system said of a connection: it comes last in a message of three libraries."""
    found, cause = None, error.__cause__ or error.__context__
    while cause is not None:
        if isinstance(cause, TimeoutError) or (isinstance(cause, OSError) and cause.errno):
            found = cause
        cause = cause.__cause__ or cause.__context__
    return found


def _tags(version: Version, bundle: Bundle) -> dict[str, str]:
    """What leads from MLflow back to where the version comes from."""
    ref, data = version.ref, bundle.lineage.get("dataset", {})
    values = {
        _DIGEST: ref.digest,
        "perennial.model": ref.model,
        "perennial.version": str(ref.version),
        "perennial.data_version": str(data.get("version", "")),
        "perennial.data_digest": str(data.get("content_digest", "")),
        **{f"perennial.{name}": value for name, value in version.links.items()},
    }
    return {name: value for name, value in values.items() if value}


def _reason(version: Version) -> str:
    return str(version.judgement.get("reason", "")) or f"bundle {version.ref.digest}"


def _millis(version: Version) -> int:
    return int(version.created_at.timestamp() * 1000)


def _pages(search: Any, query: str) -> Iterator[Any]:
    token = None
    while True:
        page = search(query, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
