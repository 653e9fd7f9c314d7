"""The ASGI application: which path leads where, and how every request ends in an answer."""

from __future__ import annotations

from asyncio import timeout as deadline
from collections.abc import Awaitable, Callable
from time import perf_counter

from starlette.exceptions import HTTPException
from starlette.routing import Route, Router

from perennial.serving import logs
from perennial.serving.endpoints import PlainEndpoints
from perennial.serving.hardening import incoming
from perennial.serving.open_inference import OpenInferenceEndpoints
from perennial.serving.pages import Pages
from perennial.serving.replies import (
    Receive,
    Refusal,
    Reply,
    Request,
    Scope,
    Send,
    error_reply,
    error_reply_v2,
    overloaded,
)
from perennial.serving.requests import Budget, ClientGoneError, read_body
from perennial.serving.service import Service
from perennial.serving.tracing import Tracing

Handler = Callable[[Request], Awaitable[Reply]]
Refuse = Callable[[Refusal, str], Reply]


class Application:
    """All endpoints of a service, behind a Guard. Raises Refusal for what is none of them."""

    def __init__(self, service: Service, tracing: Tracing | None) -> None:
        self._router = Router(_routes(service, tracing), redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self  # so that the router raises instead of answering by itself
        try:
            await self._router(scope, receive, send)
        except HTTPException as error:
            if error.status_code == 405:
                what = f"{scope['method'][:20]} is not for this path"
                allow = ((b"allow", (error.headers or {})["Allow"].encode("ascii")),)
                raise Refusal(405, "method_not_allowed", what, headers=allow) from None
            raise Refusal(404, "not_found", "no such path; /docs lists all") from None


def _routes(service: Service, tracing: Tracing | None) -> list[Route]:
    budget = Budget(service.settings.max_waiting_bytes)
    plain, open_inference = PlainEndpoints(service), OpenInferenceEndpoints(service)
    pages = Pages(service)

    def route(path: str, handler: Handler, method: str, refuse: Refuse = error_reply) -> Route:
        endpoint = _Endpoint(service, tracing, budget, path, handler, refuse)
        return Route(path, endpoint, methods=[method])

    v2 = "/v2/models/{name}"
    pinned = "/versions/{version}"
    return [
        route("/models/{name}/predict", plain.predict, "POST"),
        route(f"{v2}/infer", open_inference.infer, "POST", error_reply_v2),
        route("/models/{name}" + pinned + "/predict", plain.predict, "POST"),
        route(f"{v2}{pinned}/infer", open_inference.infer, "POST", error_reply_v2),
        route("/models/{name}/labels", plain.labels, "POST"),
        route("/models", plain.models, "GET"),
        route("/models/{name}", plain.one_model, "GET"),
        route("/v2", open_inference.server, "GET", error_reply_v2),
        route("/v2/health/live", open_inference.live, "GET", error_reply_v2),
        route("/v2/health/ready", open_inference.ready, "GET", error_reply_v2),
        route(v2, open_inference.model, "GET", error_reply_v2),
        route(f"{v2}/ready", open_inference.model_ready, "GET", error_reply_v2),
        route(f"{v2}{pinned}", open_inference.model, "GET", error_reply_v2),
        route(f"{v2}{pinned}/ready", open_inference.model_ready, "GET", error_reply_v2),
        route("/metrics", pages.metrics, "GET"),
        route("/openapi.json", pages.openapi, "GET"),
        route("/docs", pages.docs, "GET"),
        route("/", pages.status, "GET"),
    ]


class _Endpoint:
    """One path and method. Whatever happens to a request, it gets one answer, in the form of the
    protocol, with its id."""

    def __init__(
        self,
        service: Service,
        tracing: Tracing | None,
        budget: Budget,
        path: str,
        handler: Handler,
        refuse: Refuse,
    ) -> None:
        self._service = service
        self._tracing = tracing
        self._budget = budget
        self._path = path
        self._handler = handler
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        arrived, received = incoming(scope), perf_counter()
        request = Request(arrived.id, arrived.headers, scope["path_params"], b"", received)
        if self._tracing is not None:
            request.span = self._tracing.request(
                scope["method"], self._path, arrived.headers, received
            )
        try:
            reply = await self._reply(request, receive)
            if self._service.settings.access_log:
                self._write_access_line(request, reply)
        except ClientGoneError:
            return
        except Refusal as refusal:
            version = self._count(request, refusal.status)
            logs.refused(
                request.id, self._path, refusal.status, refusal.code, request.model, version
            )
            reply = self._refuse(refusal, request.id)
        except Exception as error:
            version = self._count(request, 500)
            logs.failed(request.id, self._path, error, request.model, version)
            what = "an error of the server; its log has the details under this request's id"
            reply = self._refuse(Refusal(500, "internal", what), request.id)
        if self._tracing is not None:
            self._tracing.end(
                request.span, reply.status, request.id, request.model, request.answered
            )
        await reply.send(send, request.id)

    async def _reply(self, request: Request, receive: Receive) -> Reply:
        service, settings = self._service, self._service.settings
        full = service.waiting_requests >= settings.max_waiting_requests
        if full and not self._path.startswith("/v2/health/"):  # busy is not dead
            raise overloaded("too many requests are waiting for an answer")
        service.waiting_requests += 1
        try:
            request.body = await read_body(
                receive,
                request.headers,
                limit=settings.max_body_bytes,
                timeout=settings.timeout_seconds,
                budget=self._budget,
            )
            async with deadline(settings.timeout_seconds):
                return await self._handler(request)
        except TimeoutError:
            what = f"no prediction within {settings.timeout_seconds:g} seconds"
            raise Refusal(503, "timeout", what, retry_after=1) from None
        finally:
            service.waiting_requests -= 1
            self._budget.release(len(request.body))

    def _count(self, request: Request, status: int) -> int:
        """Count an error against the version that met it, if one had been chosen. Returns it."""
        version = request.answered[0][0] if request.answered else 0
        self._service.metrics.refused(self._path, status, request.model, version)
        return version

    def _write_access_line(self, request: Request, reply: Reply) -> None:
        version = request.answered[0][0] if request.answered else 0
        seconds = perf_counter() - request.received
        logs.answered(request.id, self._path, reply.status, seconds, request.model, version)
