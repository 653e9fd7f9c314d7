"""Logs as JSON lines on standard error: the service's, uvicorn's and every library's alike.

A line has ``time`` (UTC), ``level``, ``event``, ``part`` (which process), ``logger``, and the
fields that go with the event: ``request_id``, ``model``, ``version`` and the like, given to the
standard library's loggers as ``extra``. The request's id is handed on, not kept in a context: a
batch is computed for many requests at once.

Values of rows never get into a line: of an exception that a request met, its type and the places
it passed through are told, not its text. Neither do credentials.
"""

from __future__ import annotations

import logging
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from traceback import StackSummary, walk_tb
from typing import Any, TextIO

import msgspec

from perennial.contracts.errors import FeatureError, InputError, Problem

LEVELS = ("debug", "info", "warning", "error")

_MOST_PLACES = 12
_MOST_CAUSES = 3
_MOST_CHARACTERS = 2_000  # of an exception's text
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "color_message"}
_SECRET_FIELDS = frozenset({"authorization", "cookie", "token", "password", "secret"})
_SECRET_WORDS = (*_SECRET_FIELDS, "bearer", "://")  # a line without any of them hides nothing
_SECRETS = (
    re.compile(r"(?i)(authorization(?:\W|b['\"]){1,8})(?:\w+\s+)?[^\s\"',)]+"),
    re.compile(r"(?i)(bearer\s+)[^\s\"',)]+"),
    re.compile(r"(://[^\s/:@\"]*:)[^\s/@\"]+(?=@)"),
)
_encode = msgspec.json.Encoder(enc_hook=str).encode
_requests = logging.getLogger("perennial.requests")


def configure(level: str = "info", part: str = "server", stream: TextIO | None = None) -> None:
    """Send the whole process's logs to ``stream`` (standard error) as JSON lines.

    ``level`` (one of LEVELS) is for the service and for uvicorn, which must be started with
    ``log_config=None, access_log=False``; libraries are heard from warnings on. Raises InputError.
    """
    if level not in LEVELS:
        what = f"{level[:40]!r} is not a level of detail"
        raise InputError(Problem("log level", what, f"use one of {', '.join(LEVELS)}"))
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(part))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    for name in ("perennial", "uvicorn", "uvicorn.error"):
        logging.getLogger(name).setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error"):  # whatever another configuration made of them
        logger = logging.getLogger(name)
        logger.disabled, logger.propagate = False, True
        logger.handlers.clear()


class JsonLines(logging.Formatter):
    """A record as one line of JSON. Never raises: what is no JSON is told as text."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self._part = part

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "part": self._part,
            "logger": record.name,
            **{name: value for name, value in vars(record).items() if name not in _STANDARD},
        }
        if record.exc_info and record.exc_info[1]:
            # An exception that a request met may quote its rows.
            of_request = "request_id" in line or record.name.startswith("uvicorn")
            line["error"] = told(record.exc_info[1], text=not of_request)
        try:
            encoded = _encode(line)
        except Exception:  # a lone surrogate, an odd key, an object whose text can't be had
            encoded = _encode({name: _plain(value) for name, value in line.items()})
        text = encoded.decode()
        lower = text.lower()
        if any(word in lower for word in _SECRET_WORDS):
            text = _encode(hide_secrets(msgspec.json.decode(encoded))).decode()
        return text


def hide_secrets(value: Any) -> Any:
    """A JSON value with stars for tokens, Authorization headers and the passwords of addresses."""
    if isinstance(value, str):
        for secret in _SECRETS:
            value = secret.sub(r"\1***", value)
        return value
    if isinstance(value, list):
        return [hide_secrets(item) for item in value]
    if isinstance(value, dict):
        return {
            key: "***" if key.lower() in _SECRET_FIELDS else hide_secrets(item)
            for key, item in value.items()
        }
    return value


def told(error: BaseException, *, text: bool) -> dict[str, Any]:
    """An exception as fields: its type, where it passed through (innermost last, bounded), where
    feature code failed, what caused it, and its text if ``text``."""
    found: dict[str, Any] = {"type": type(error).__name__}
    if text:
        found["text"] = str(error)[:_MOST_CHARACTERS]
    if isinstance(error, FeatureError):
        found["features"] = [problem.where for problem in error.problems[:_MOST_PLACES]]
    frames = StackSummary.extract(walk_tb(error.__traceback__), lookup_lines=False)
    found["at"] = [
        f"{'/'.join(Path(frame.filename).parts[-3:])}:{frame.lineno} {frame.name}"
        for frame in frames[-_MOST_PLACES:]
    ]
    causes: list[str] = []
    cause = error
    while len(causes) < _MOST_CAUSES:
        following = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
        if following is None:
            break
        cause = following
        causes.append(f"{type(cause).__name__}: {cause}" if text else type(cause).__name__)
    if causes:
        found["causes"] = [one[:_MOST_CHARACTERS] for one in causes]
    return found


def refused(
    request_id: str, endpoint: str, status: int, code: str, model: str = "", version: int = 0
) -> None:
    """A request got an error: the sender's mistake (4xx) is info, the service's (5xx) an error."""
    level = logging.INFO if status < 500 else logging.ERROR
    if _requests.isEnabledFor(level):
        fields = {"endpoint": endpoint, "status": status, "code": code}
        _requests.log(level, "request refused", extra=fields | _about(request_id, model, version))


def failed(
    request_id: str, endpoint: str, error: BaseException, model: str = "", version: int = 0
) -> None:
    """A request met an error that nobody foresaw, and was answered with 500."""
    fields = {"endpoint": endpoint, "status": 500, "error": told(error, text=False)}
    _requests.error("request failed", extra=fields | _about(request_id, model, version))


def answered(
    request_id: str, endpoint: str, status: int, seconds: float, model: str = "", version: int = 0
) -> None:
    """The access line of a request that got what it asked for. Only when access lines are set: it
    costs more than the answer's bytes."""
    fields = {"endpoint": endpoint, "status": status, "duration_ms": round(1e3 * seconds, 3)}
    _requests.info("request answered", extra=fields | _about(request_id, model, version))


def _about(request_id: str, model: str, version: int) -> dict[str, Any]:
    fields: dict[str, Any] = {"request_id": request_id}
    if model:
        fields["model"] = model
    if version:
        fields["version"] = version
    return fields


def _plain(value: object) -> str:
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception:
        text = object.__repr__(value)
    return text.encode("utf-8", "backslashreplace").decode()


def _utc(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return moment.removesuffix("+00:00") + "Z"
