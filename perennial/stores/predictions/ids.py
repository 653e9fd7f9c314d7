"""Ids of predictions: what names the request, a point, and the row's number in it.

Which rows came in one request is told by their ids alone: what a client calls its requests
(``X-Request-ID``) may be the same for a thousand of them.
"""

from __future__ import annotations

_POINT = "."


def ids_of(request: str, rows: int) -> list[str]:
    """The ids of a request's predictions. ``request`` has no point, and no other request has it."""
    return [f"{request}{_POINT}{row}" for row in range(rows)]


def request_of(prediction: str, named: str) -> str:
    """What tells a row's request from others of the same moment. Ids of older servers don't tell:
    there it is what the request was called."""
    request, point, _ = prediction.partition(_POINT)
    return request if point else named


REQUEST = (
    f"(CASE WHEN contains(_id, '{_POINT}') THEN split_part(_id, '{_POINT}', 1) "
    "ELSE concat_ws(chr(31), _request_id, epoch_us(_time)) END)"
)
"""What tells a row's request from all others, in SQL. Rows of older servers: those with one name
that were predicted in the same microsecond are one request."""
