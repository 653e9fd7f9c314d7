"""What people and monitoring read of the service."""

from __future__ import annotations

from typing import Any

from perennial.serving.metrics import CONTENT_TYPE
from perennial.serving.openapi import docs_page, openapi_document
from perennial.serving.replies import Reply
from perennial.serving.service import Service
from perennial.serving.status import render_status

_HTML = b"text/html; charset=utf-8"


class Pages:
    """Handlers of the pages, the OpenAPI document and the metrics."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def status(self, *_: Any) -> Reply:
        page = render_status(self._service.state(), self._service.metrics)
        return Reply(page.encode(), kind=_HTML)

    async def metrics(self, *_: Any) -> Reply:
        service = self._service
        body = service.metrics.render(service.spool.lag(), service.beside().shadows)
        return Reply(body, kind=CONTENT_TYPE.encode())

    async def openapi(self, *_: Any) -> Reply:
        return Reply.json(self._document())

    async def docs(self, *_: Any) -> Reply:
        return Reply(docs_page(self._document()).encode(), kind=_HTML)

    def _document(self) -> dict[str, Any]:
        settings = self._service.settings
        secured = settings.tokens is not None
        return openapi_document(self._service.models, secured=secured, max_rows=settings.max_rows)
