"""Connections bounded in number, size and time: what uvicorn's settings do not reach."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, ClassVar
from urllib.parse import unquote

import httptools
from pydantic import BaseModel
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.pressure import Pressure
from service.api.request_ids import request_id_of

KEPT_FILES = 128
"""Descriptors that are not for clients: the store, files, the LLM's processes."""
GRACE_SECONDS = 1.0
"""The application answers a slow body itself; this much later the connection goes."""
RETRY_SECONDS = 1
QUIET = (b"/health/", b"/metrics")
"""What is answered whatever the pressure: whoever operates the service must see it."""
LEAST_READ_BYTES = 65_536
"""What a client must take of an answer that waits for it, in the time that it has to send a request."""


class Bounds(BaseModel, frozen=True):
    """What one connection, and all together, may take; see the settings of the same names."""

    max_connections: int = 2048
    max_header_bytes: int = 32_768
    max_body_bytes: int = 1 << 20
    read_timeout_seconds: float = 10.0
    keep_alive_seconds: int = 75


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 by httptools, within `bounds`, under `pressure`.

    A request's headers and body must be there within a time of their first byte, headers within a size. A client that
    hardly reads what it asked for, so that it cannot be sent, is cut off. When there are too many connections, the one
    that has been silent or unfinished for longest makes room; if all are being answered, the newcomer goes. Requests
    that the event loop has no time for are answered by 503 here, before anything is made of them.
    """

    bounds: ClassVar[Bounds] = Bounds()
    pressure: ClassVar[Pressure] = Pressure()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        super().connection_made(transport)
        self._since = time.monotonic()
        self._reading = False
        self._too_large = self._refused = False
        self._head_bytes: int | None = 0
        self._unread = 0
        self.url = b""
        self._timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._watch()
        if len(self.connections) > self.bounds.max_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._unwatch()
        self._watch_reader(False)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self.transport.is_closing():
            return
        if not self._reading:
            self._reading, self._since = True, time.monotonic()
            self._watch()
        super().data_received(data)
        if self._head_bytes is not None and self._reading:
            self._head_bytes += len(data)
            if self._head_bytes > self.bounds.max_header_bytes and not self.transport.is_closing():
                self._refuse(431)

    def on_headers_complete(self) -> None:
        """See httptools."""
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self.bounds.max_header_bytes:
            self._too_large = True
            raise ValueError("the headers are too large")  # caught as a broken request is
        self._head_bytes, self._unread = None, 0
        free = (self.cycle is None or self.cycle.response_complete) and not self.expect_100_continue
        asked = free and not self.url.startswith(QUIET)
        self._refused = asked and not self.pressure.admits()
        if asked and not self._refused:
            self.loop.call_soon(self.pressure.begun, self.pressure.entered())  # just before its task
        elif not asked:
            self.pressure.passed()
        if not self._refused:
            super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """See uvicorn: a problem instead of plain text."""
        self._refuse(431 if self._too_large else 400, msg)

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        if not self._refused:
            super().on_body(body)
        self._unread += len(body)
        if self._unread <= self.bounds.max_body_bytes or self.transport.is_closing():
            return
        if self._refused:
            self._refuse_under_pressure(keep=False)
        elif self.cycle.response_complete:
            self.transport.close()  # it was told already

    def on_message_complete(self) -> None:
        """See httptools."""
        self.scope.setdefault("state", {})["received"] = time.perf_counter()
        self._reading, self._head_bytes, self._since = False, 0, time.monotonic()
        self._unwatch()
        if self._refused:
            self._refused = False
            if not self.transport.is_closing():
                self._refuse_under_pressure(self.parser.should_keep_alive())
                self.on_response_complete()
        else:
            super().on_message_complete()
        self.url, self.headers = b"", []  # what comes next is not about this one

    def on_response_complete(self) -> None:
        """See uvicorn."""
        self._since = time.monotonic()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """See asyncio."""
        super().pause_writing()
        self._watch_reader(True)

    def resume_writing(self) -> None:
        """See asyncio."""
        super().resume_writing()
        self._watch_reader(False)

    def on_refusal(self, status: int) -> None:
        """Is told of each answer that is given here."""

    @property
    def idle(self) -> bool:
        """Whether nothing is being answered: silent, or with a request that is not there yet."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def _watch(self) -> None:
        self._unwatch()
        seconds = self.bounds.read_timeout_seconds + GRACE_SECONDS
        self._timer = self.loop.call_later(seconds, self._too_slow)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        """Tell who sent half of a request, where the application does not, and hang up."""
        if self.transport.is_closing():
            return
        if self._refused:
            self._refuse_under_pressure(keep=False)
        elif self._reading and self._head_bytes is not None:
            self._refuse(408, f"a request must be there within {self.bounds.read_timeout_seconds:g} seconds")
        else:
            self.transport.close()

    def _watch_reader(self, watch: bool) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None
        if watch:
            left = self.transport.get_write_buffer_size()
            self._unread_timer = self.loop.call_later(self.bounds.read_timeout_seconds, self._unless_read, left)

    def _unless_read(self, before: int) -> None:
        """Cut off a client that took next to nothing of what waits for it."""
        if before - self.transport.get_write_buffer_size() < LEAST_READ_BYTES:
            self.transport.abort()
        else:
            self._watch_reader(True)

    def _make_room(self) -> None:
        idle = [other for other in self.connections if isinstance(other, BoundedProtocol) and other.idle]
        slowest = min((other for other in idle if other is not self), key=lambda other: other._since, default=None)
        if slowest is None:
            self._refuse(503)
        else:
            slowest.transport.abort()
            self.connections.discard(slowest)

    def _refuse_under_pressure(self, keep: bool) -> None:
        self._refuse(503, "too many requests at once: try again in a second", "Overloaded", keep)

    def _refuse(self, status: int, detail: str = "", title: str = "", keep: bool = False) -> None:
        """Answer by a problem, unless another answer is under way on this connection: then it ends as it is."""
        if self._answering():
            self.transport.close()
            return
        self.on_refusal(status)
        phrase = HTTPStatus(status).phrase
        title = title or phrase
        given = next((value for name, value in self.headers or () if name == b"x-request-id"), b"")
        request_id = request_id_of(given.decode("latin-1"))
        problem = {"type": "about:blank", "title": title, "status": status, "detail": detail or title, "errors": []}
        content = json.dumps({**problem, "instance": self._path(), "request_id": request_id})
        later = f"retry-after: {RETRY_SECONDS}\r\n" if status == HTTPStatus.SERVICE_UNAVAILABLE else ""
        head = (
            f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/problem+json\r\n{later}"
            f"x-request-id: {request_id}\r\n"
            f"connection: {'keep-alive' if keep else 'close'}\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        bare = keep and self.parser.get_method() == b"HEAD"
        self.transport.write((head if bare else head + content).encode())
        if not keep:
            self.transport.close()

    def _answering(self) -> bool:
        if self.cycle is None or self.cycle.response_complete:
            return False
        return bool(self.cycle.response_started or self.pipeline or not self.cycle.more_body)

    def _path(self) -> str:
        """Of the request, as far as it is there and can be read."""
        try:
            return unquote(httptools.parse_url(self.url).path.decode("ascii")) if self.url else ""
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError, AttributeError):
            return ""


def protocol(bounds: Bounds, pressure: Pressure, on_refusal: Callable[[int], None]) -> type[BoundedProtocol]:
    """The protocol under this pressure, with these bounds: fewer connections where fewer files may be open."""
    allowed = raise_file_limit() - KEPT_FILES
    most = max(16, min(bounds.max_connections, allowed))
    kept = bounds.model_copy(update={"max_connections": most})

    class Protocol(BoundedProtocol):
        def on_refusal(self, status: int) -> None:
            on_refusal(status)

    Protocol.bounds, Protocol.pressure = kept, pressure
    return Protocol


def raise_file_limit() -> int:
    """How many files this process may have open, after asking for as many as it can get."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return soft if soft != resource.RLIM_INFINITY else 1 << 20
    wanted = min(hard, 65_536) if hard != resource.RLIM_INFINITY else 65_536
    if wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft


def server_options(bounds: Bounds, pressure: Pressure, on_refusal: Callable[[int], None]) -> dict[str, Any]:
    """What uvicorn is told of them."""
    http = protocol(bounds, pressure, on_refusal)
    return {"http": http, "ws": "none", "timeout_keep_alive": bounds.keep_alive_seconds}
