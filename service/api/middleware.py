"""What surrounds every request: its id, its metrics and log line, its body, the limits on number and size."""

from __future__ import annotations

import asyncio
import time
import zlib
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.errors import BodyTooLargeError, BodyTooSlowError, ClientGoneError, EncodingError
from service.api.problems import problem, problem_of
from service.api.request_ids import request_id_of
from service.api.routes import QUIET, methods_of, route_of
from service.metrics import Metrics
from service.runtime import Runtime

logger = structlog.get_logger("service.access")

CLIENT_GONE = 499
ENCODINGS = ("identity", "gzip", "x-gzip", "")
GZIP = 16 + zlib.MAX_WBITS
MOST_DIGITS = 18
MOST_MEMBERS = 64
"""Of a gzip body: each costs time, and may be empty."""


class Observe:
    """Gives every request an id, counts and times it.

    Once the service is about to end, answers close their connections, so that the next request goes elsewhere.
    """

    def __init__(self, app: ASGIApp, runtime: Runtime) -> None:
        self._app = app
        self._runtime = runtime
        self._metrics = runtime.metrics
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = request_id_of(Headers(scope=scope).get("x-request-id", ""))
        scope.setdefault("state", {}).update(request_id=request_id, started=started)
        code: int | None = None

        async def send_observed(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                if self._runtime.leaving:
                    headers["Connection"] = "close"
            await send(message)

        self._running += 1
        self._metrics.inflight.set(self._running)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_observed)
            finally:
                self._running -= 1
                self._metrics.inflight.set(self._running)
                self._record(scope, code or CLIENT_GONE, time.perf_counter() - started)

    def _record(self, scope: Scope, code: int, seconds: float) -> None:
        route = route_of(scope)
        self._metrics.http_requests.labels(route, code).inc()
        self._metrics.http_duration.labels(route, code).observe(seconds)
        log = logger.debug if route in QUIET else logger.info
        log("request", method=scope["method"], route=route, code=code, duration_ms=round(seconds * 1000, 2))


class Unforeseen:
    """Turns what nobody expected into a problem."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        begun = False

        async def send_noted(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        except Exception:
            if scope["type"] != "http":
                raise
            logger.exception("request_failed", path=scope["path"])
            if not begun:
                answer = problem(
                    scope, 500, "Internal error", "the service made a mistake; its log has this request id"
                )
                await answer(scope, receive, send)


class ReadBody:
    """Reads a request's whole body before anything counts or answers it, within a size and a time; gunzips it."""

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._seconds):
                body = await self._read(Headers(scope=scope), receive)
        except TimeoutError:
            error: Exception = BodyTooSlowError(self._seconds)
        except (BodyTooLargeError, EncodingError, ClientGoneError) as refused:
            error = refused
        else:
            scope["state"].setdefault("received", time.perf_counter())
            await self._app(scope, _given(body, receive), send)
            return
        await closing(problem_of(scope, error), scope, receive, send)

    async def _read(self, headers: Headers, receive: Receive) -> bytes:
        announced = headers.get("content-length", "")
        if announced.isdecimal() and (len(announced) > MOST_DIGITS or int(announced) > self._max_bytes):
            raise BodyTooLargeError(self._max_bytes)
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ENCODINGS:
            raise EncodingError(encoding)
        packed = Gzip() if encoding in ("gzip", "x-gzip") else None
        body, taken = bytearray(), 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError("the client closed the connection")
            part = message.get("body", b"")
            taken += len(part)
            if taken <= self._max_bytes:
                body += part if packed is None else packed.unpack(part, self._max_bytes + 1 - len(body))
            if max(taken, len(body)) > self._max_bytes:
                raise BodyTooLargeError(self._max_bytes)
            if not message.get("more_body", False):
                break
        if packed is not None and not packed.whole:
            raise EncodingError("gzip", "it ends too soon")
        return bytes(body)


class Gzip:
    """A gzip stream: members one after the other (RFC 1952), and nothing else behind them."""

    def __init__(self) -> None:
        self._member: Any = None
        self._members = 0

    @property
    def whole(self) -> bool:
        """Whether it may end here. Nothing at all is whole."""
        return self._member is None

    def unpack(self, part: bytes, most: int) -> bytes:
        """What `part` adds, as far as `most` bytes of it.

        Raises:
            EncodingError: it is no gzip, or has too many members.
        """
        added = bytearray()
        while part and len(added) < most:
            if self._member is None:
                self._member, self._members = zlib.decompressobj(wbits=GZIP), self._members + 1
            if self._members > MOST_MEMBERS:
                raise EncodingError("gzip", f"it has more than {MOST_MEMBERS} members")
            try:
                added += self._member.decompress(part, most - len(added))
            except zlib.error as error:
                raise EncodingError("gzip", str(error)) from error
            part = self._member.unused_data
            if self._member.eof:
                self._member = None
        return bytes(added)


def _given(body: bytes, receive: Receive) -> Receive:
    given = False

    async def receive_given() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_given


class Capacity:
    """Refuses what is too much for the service itself, at once: more requests than it may have in hand.

    A request counts once it is there: who sends half of one takes nobody's place. What the event loop has no time for
    is refused before, by `service.api.connections`.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, max_requests: int) -> None:
        self._app = app
        self._metrics = metrics
        self._max_requests = max_requests
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http" or scope["path"] in QUIET:
            await self._app(scope, receive, send)
            return
        if self._running >= self._max_requests:
            self._metrics.shed.labels("requests").inc()
            answer = problem(scope, 503, "Overloaded", "too many requests at once: try again in a second")
            await answer(scope, receive, send)
            return
        self._running += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._running -= 1


class Methods:
    """HEAD where there is GET, and OPTIONS for every path there is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            await self._head(scope, receive, send)
        elif scope["type"] == "http" and scope["method"] == "OPTIONS" and (methods := methods_of(scope)):
            await Response(status_code=204, headers={"Allow": ", ".join(methods)})(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_head(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self._app({**scope, "method": "GET"}, receive, send_head)


async def closing(answer: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Send `answer` and have the connection closed: what the client still sends is not wanted."""
    answer.headers["Connection"] = "close"
    await answer(scope, receive, send)
