"""Asking the Prefect server of PREFECT_API_URL, and saying what is wrong when it can't be asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import PREFECT_API_URL

from perennial.contracts.errors import InputError, PerennialError, Problem, UnavailableError

_START = "perennial up starts one; else export PREFECT_API_URL=http://HOST:4200/api"
_LOGIN = "PREFECT_API_KEY is for Prefect Cloud, PREFECT_API_AUTH_STRING for a server of your own"


@contextmanager
def asking() -> Iterator[SyncPrefectClient]:
    """A client. What goes wrong with the server within is raised as InputError (no address, a wrong
    one, a refused login), UnavailableError (no answer, others who change the same) or
    PerennialError; no message has what was sent."""
    url = PREFECT_API_URL.value()
    if not url:  # a client would start a server of its own, and declare everything there
        raise InputError(Problem("PREFECT_API_URL", "not set, and no Prefect server known", _START))
    where = _address(url)
    try:
        with get_client(sync_client=True) as client:
            yield client
    except httpx.HTTPStatusError as error:
        raise _refused(where, error.response) from None
    except httpx.TransportError as error:
        raise _unavailable(where, error) from None
    except json.JSONDecodeError:
        raise _no_api(where) from None
    except (ObjectAlreadyExists, ObjectNotFound):  # it was not so a moment ago
        what = "somebody else sets it up at the same time; call perennial setup again"
        raise UnavailableError(f"{where}: {what}") from None
    except RuntimeError as error:  # so says a client that is just about to begin
        cause = error.__cause__
        if isinstance(cause, httpx.HTTPStatusError):
            raise _refused(where, cause.response) from None
        if isinstance(cause, httpx.TransportError):
            raise _unavailable(where, cause) from None
        if cause is not None and "Failed to reach API" in str(error):
            raise _no_api(where) from None
        if "incompatible versions" in str(error):
            raise PerennialError(f"{where}: {error}") from None
        raise


def _address(url: str) -> str:
    """The URL as it may be shown. Raises InputError for what is none."""
    try:
        parts = urlsplit(url)
        host = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host:
        raise InputError(Problem("PREFECT_API_URL", "not an address", _START))
    return f"{parts.scheme}://{host}{parts.path}"


def _refused(where: str, answer: httpx.Response) -> PerennialError:
    status = answer.status_code
    if status in (401, 403):
        return InputError(Problem(where, f"the login is refused ({status})", _LOGIN))
    if status == 404:
        return _no_api(where)
    if status >= 500:
        return UnavailableError(f"{where}: the Prefect server fails ({status}); look at its log")
    request = answer.request
    return PerennialError(f"{where}: {request.method} {request.url.path} is refused ({status})")


def _no_api(where: str) -> InputError:
    return InputError(Problem(where, "no Prefect API here", "PREFECT_API_URL usually ends in /api"))


def _unavailable(where: str, error: httpx.TransportError) -> UnavailableError:
    what = (
        "does not answer in time"
        if isinstance(error, httpx.TimeoutException)
        else "does not answer"
    )
    return UnavailableError(f"{where}: the Prefect server {what} (start it, or name another)")
