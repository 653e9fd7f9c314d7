"""The service's log: one JSON object a line, no row's values, no credentials."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import logging
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import uvicorn

from perennial.contracts.errors import InputError
from perennial.serving import logs

_TOUCHED = ("", "perennial", "uvicorn")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What is logged, with the process's own settings put back afterwards."""
    loggers = [logging.getLogger(name) for name in _TOUCHED]
    levels = [logger.level for logger in loggers]
    handlers = loggers[0].handlers[:]
    loggers[0].handlers = []  # so that those of the test runner are not closed
    found = io.StringIO()
    yield found
    logging.captureWarnings(False)
    loggers[0].handlers = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_time_level_event_and_the_fields_given_with_it(stream: io.StringIO) -> None:
    logs.configure(stream=stream, part="keeper")
    logging.getLogger("perennial.serving").info(
        "route %s", "followed", extra={"model": "churn", "generation": 7, "arms": {"3": 90}}
    )

    [line] = lines(stream)

    moment = datetime.fromisoformat(line.pop("time"))
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 60
    assert line == {
        "level": "info",
        "event": "route followed",
        "part": "keeper",
        "logger": "perennial.serving",
        "model": "churn",
        "generation": 7,
        "arms": {"3": 90},
    }


def test_a_mistake_of_the_sender_is_info_and_of_the_service_an_error(stream: io.StringIO) -> None:
    logs.configure(stream=stream)
    logs.refused("r-1", "/models/{name}/predict", 422, "invalid_rows", "churn", 3)
    logs.refused("r-2", "/models/{name}/predict", 503, "overloaded")

    mistake, overload = lines(stream)

    assert (mistake["level"], mistake["model"], mistake["version"]) == ("info", "churn", 3)
    assert (overload["level"], overload["status"], overload["code"]) == ("error", 503, "overloaded")
    assert "model" not in overload


def test_a_failed_request_is_told_by_type_and_place_and_not_by_the_values_it_met(
    stream: io.StringIO,
) -> None:
    logs.configure(stream=stream)
    try:
        try:
            float("Mrs. Jane Doe")
        except ValueError as error:
            raise RuntimeError("row ['Mrs. Jane Doe', 41]") from error
    except RuntimeError as error:
        logs.failed("r-1", "/models/{name}/predict", error, "churn", 3)

    [line] = lines(stream)

    assert "Jane" not in stream.getvalue()
    assert (line["level"], line["status"], line["error"]["type"]) == ("error", 500, "RuntimeError")
    assert line["error"]["causes"] == ["ValueError"]
    assert line["error"]["at"][-1].startswith("unit/serving/test_serving_logs.py:")


def test_an_error_of_the_service_itself_is_told_with_its_text(stream: io.StringIO) -> None:
    logs.configure(stream=stream)
    try:
        raise InputError("registry: the file is damaged")
    except InputError:
        logging.getLogger("perennial.serving").exception("registry not read")

    [line] = lines(stream)

    assert line["error"]["text"] == "registry: the file is damaged"


def test_an_exception_that_is_logged_with_a_request_is_told_without_its_text(
    stream: io.StringIO,
) -> None:
    logs.configure(stream=stream)
    try:
        float("Mrs. Jane Doe")
    except ValueError:
        log = logging.getLogger("perennial.serving")
        log.exception("request failed", extra={"request_id": "r-1"})

    assert lines(stream)[0]["error"]["type"] == "ValueError"
    assert "Jane" not in stream.getvalue()


def test_access_lines_have_the_duration_in_milliseconds(stream: io.StringIO) -> None:
    logs.configure(stream=stream)
    logs.answered("r-1", "/models/{name}/predict", 200, 0.0012345, "churn", 3)

    [line] = lines(stream)

    assert (line["event"], line["duration_ms"]) == ("request answered", 1.234)


def test_below_its_level_the_service_is_silent(stream: io.StringIO) -> None:
    logs.configure("error", stream=stream)
    logs.refused("r-1", "/models/{name}/predict", 422, "invalid_rows")
    logging.getLogger("perennial.serving").warning("slow")
    logs.refused("r-1", "/models/{name}/predict", 500, "internal")

    assert [line["status"] for line in lines(stream)] == [500]


def test_an_unknown_level_names_the_known_ones() -> None:
    with pytest.raises(InputError) as caught:
        logs.configure("chatty")

    assert str(caught.value) == (
        "log level: 'chatty' is not a level of detail (use one of debug, info, warning, error)"
    )


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ("Authorization: Bearer s3cr3t-t0ken", {}),
        ("headers [(b'authorization', b'Basic s3cr3t-t0ken')]", {}),
        ("asked with bearer s3cr3t-t0ken", {}),
        ("asked", {"authorization": "s3cr3t-t0ken"}),
        ("asked", {"seen": [{"Token": "s3cr3t-t0ken"}]}),
        ("asked", {"headers": {"Authorization": "Bearer s3cr3t-t0ken"}}),
        ("postgresql://perennial:s3cr3t-t0ken@db/registry is away", {}),
    ],
)
def test_credentials_are_not_logged(
    stream: io.StringIO, message: str, fields: dict[str, Any]
) -> None:
    logs.configure(stream=stream)
    logging.getLogger("perennial.serving").warning(message, extra=fields)

    assert "s3cr3t" not in stream.getvalue()
    assert "***" in stream.getvalue()
    assert len(lines(stream)) == 1


def test_what_has_no_json_is_logged_all_the_same(stream: io.StringIO) -> None:
    class Silent:
        def __str__(self) -> str:
            raise RuntimeError("no text")

        __repr__ = __str__

    logs.configure(stream=stream)
    log = logging.getLogger("perennial.serving")
    log.warning("lone \udc80 surrogate\nand a line break")
    log.warning("odd", extra={"value": float("nan"), "bytes": b"\xff"})
    log.warning("silent", extra={"value": Silent(), "place": {(1, 2): 3}})

    surrogate, odd, silent = lines(stream)
    assert surrogate["event"] == "lone \\udc80 surrogate\nand a line break"
    assert odd["value"] is None
    assert silent["event"] == "silent"
    assert silent["place"] == "{(1, 2): 3}"


def test_uvicorn_logs_the_same_way_without_values_or_tokens(stream: io.StringIO) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("could not convert 'Mrs. Jane Doe'")

    logs.configure(stream=stream)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        client.request("GET", "/?token=s3cr3t", headers={"Authorization": "Bearer s3cr3t"})
        assert client.getresponse().status == 500
        client.close()
        with socket.create_connection(("127.0.0.1", port), timeout=20) as raw:
            raw.sendall(b"Authorization: Bearer s3cr3t\r\n\r\n")
            assert raw.recv(100).startswith(b"HTTP/1.1 400")
    finally:
        server.should_exit = True
        thread.join(20)

    found = lines(stream)
    [failure] = [line for line in found if "error" in line]
    assert failure["error"]["type"] == "ValueError"
    assert "Jane" not in stream.getvalue()
    assert "s3cr3t" not in stream.getvalue()
    assert "Invalid HTTP request received." in [line["event"] for line in found]
