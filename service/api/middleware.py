"""What surrounds every request: its id, its metrics and log line, the limits on number and size."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterable, Iterator

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.errors import BodyTooLargeError
from service.api.problems import problem, problem_of
from service.metrics import Metrics

logger = structlog.get_logger("service.access")

CLIENT_GONE = 499
_QUIET = ("/health/live", "/health/ready", "/metrics")
_REQUEST_ID = re.compile(r"[\w.:-]{1,128}")


class Observe:
    """Gives every request an id, counts and times it, and turns what nobody expected into a problem."""

    def __init__(self, app: ASGIApp, metrics: Metrics, max_requests: int) -> None:
        self._app = app
        self._metrics = metrics
        self._max_requests = max_requests
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {}).update(request_id=request_id, started=started)
        code: int | None = None

        async def send_observed(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        self._running += 1
        self._metrics.inflight.set(self._running)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._within_limit(scope, receive, send_observed)
            except Exception:
                logger.exception("request_failed", path=scope["path"])
                if code is None:
                    answer = problem(
                        scope, 500, "Internal error", "the service made a mistake; its log has this request id"
                    )
                    await answer(scope, receive, send_observed)
            finally:
                self._running -= 1
                self._metrics.inflight.set(self._running)
                self._record(scope, code or CLIENT_GONE, time.perf_counter() - started)

    async def _within_limit(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._running > self._max_requests and scope["path"] not in _QUIET:
            self._metrics.shed.labels("requests").inc()
            answer = problem(scope, 503, "Overloaded", "too many requests at once: try again in a second")
            await answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _record(self, scope: Scope, code: int, seconds: float) -> None:
        route = route_of(scope)
        self._metrics.http_requests.labels(route, code).inc()
        self._metrics.http_duration.labels(route, code).observe(seconds)
        log = logger.debug if route in _QUIET else logger.info
        log("request", method=scope["method"], route=route, code=code, duration_ms=round(seconds * 1000, 2))


class LimitBody:
    """Refuses large bodies: at once where their length is announced, else as soon as they grow too long."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        too_large = BodyTooLargeError(self._max_bytes)
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > self._max_bytes:
            await problem_of(scope, too_large)(scope, receive, send)
            return
        size = 0

        async def receive_limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._max_bytes:
                raise too_large
            return message

        await self._app(scope, receive_limited, send)


def route_of(scope: Scope) -> str:
    """The route's path template, so that metrics stay few whatever clients ask for."""
    route = scope.get("route")
    if route is None and "app" in scope:
        # Refused before it was routed.
        found = (each for each in routes_in(scope["app"].routes) if each.matches(scope)[0] is not Match.NONE)
        route = next(found, None)
    return getattr(route, "path_format", "unmatched")


def routes_in(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    """Every route, those of included routers too: FastAPI keeps a router whole. None of ours has a prefix."""
    for route in routes:
        router = getattr(route, "original_router", None)
        if router is None:
            yield route
        else:
            yield from routes_in(router.routes)
