"""Connections bounded in number, size and time: what uvicorn's settings do not reach."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, ClassVar
from urllib.parse import unquote

import httptools
from pydantic import BaseModel
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.api.cors import answer_headers
from service.api.pressure import Pressure
from service.api.request_ids import request_id_of
from service.api.routes import QUIET

KEPT_FILES = 128
"""Descriptors that are not for clients: the store, files, the LLM's processes."""
GRACE_SECONDS = 1.0
"""The application answers a slow body itself; this much later the connection goes."""
RETRY_SECONDS = 1
QUIET_URLS = frozenset(path.encode() for path in QUIET)
"""What is answered whatever the pressure: whoever operates the service must see it."""
LINGER_SECONDS = 2.0
"""So long what a client still sends is read and dropped after its answer; else the kernel would drop that answer."""
MOST_PIPELINED = 8
"""So many requests are read behind the one that is being answered."""
LEAST_READ_BYTES = 65_536
"""What a client must take of an answer that waits for it, in the time that it has to send a request."""


class Bounds(BaseModel, frozen=True):
    """What one connection, and all together, may take; see the settings of the same names."""

    max_connections: int = 2048
    max_header_bytes: int = 32_768
    max_body_bytes: int = 1 << 20
    read_timeout_seconds: float = 10.0
    keep_alive_seconds: int = 75
    cors_origins: tuple[str, ...] = ()


class Parser:
    """httptools' parser of requests, which stays with HTTP/1.1: no other protocol is spoken here.

    That parser takes nothing more for HTTP once a client offers an upgrade, as Java's and curl's do (`Upgrade: h2c`),
    and loses the body. A server may ignore the offer (RFC 9110, section 7.8), so what came without it is parsed again.
    """

    def __init__(self, protocol: BoundedProtocol) -> None:
        self._protocol = protocol
        self._parser = self._fresh()

    @property
    def offers_upgrade(self) -> bool:
        """Whether what is parsed now wants another protocol, and is parsed again without that."""
        return bool(self._parser.should_upgrade() and self._parser.get_method() != b"CONNECT")

    def feed_data(self, data: bytes) -> None:
        """See httptools."""
        rest = memoryview(data)
        while True:
            try:
                self._parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                if not self.offers_upgrade:
                    return
                head, rest = self._head(), rest[upgrade.args[0] :]
                self._parser = self._fresh()  # this one may take the connection for closed
                self._parser.feed_data(head)
            else:
                return

    def should_upgrade(self) -> bool:
        """Never, to uvicorn."""
        return False

    def should_keep_alive(self) -> bool:
        """See httptools."""
        return bool(self._parser.should_keep_alive())

    def get_method(self) -> bytes:
        """See httptools."""
        return bytes(self._parser.get_method())

    def get_http_version(self) -> str:
        """See httptools."""
        return str(self._parser.get_http_version())

    def _fresh(self) -> Any:
        parser = httptools.HttpRequestParser(self._protocol)
        # As uvicorn has it: a pipelined request behind one that wants the connection closed is dropped.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def _head(self) -> bytes:
        """Of the request that offers an upgrade, without the offer."""
        lines = [b"%b %b HTTP/%b" % (self.get_method(), self._protocol.url, self.get_http_version().encode())]
        for name, value in self._protocol.headers:
            if name == b"connection":
                kept = (token.strip() for token in value.split(b","))
                value = b", ".join(token for token in kept if token.lower() != b"upgrade")  # noqa: PLW2901
            if name != b"upgrade":
                lines.append(name + b": " + value)
        return b"\r\n".join([*lines, b"", b""])


class Lingering:
    """A transport that is not closed before the client has read its answer, where it is still sending.

    Args:
        transport: asyncio's, which does all else.
        sending: whether the client is in the middle of a request.
    """

    def __init__(self, transport: asyncio.Transport, sending: Callable[[], bool]) -> None:
        self._transport = transport
        self._sending = sending
        self._timer: asyncio.TimerHandle | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """See asyncio."""
        if self._timer is None:
            self._transport.write(data)

    def is_closing(self) -> bool:
        """See asyncio."""
        return self._timer is not None or self._transport.is_closing()

    def close(self) -> None:
        """See asyncio."""
        if self._timer is not None:
            return
        if self._transport.is_closing() or not self._sending() or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._transport.write_eof()
        self._transport.resume_reading()
        self._timer = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._transport.close)

    def closed(self) -> None:
        """It is, by whichever side."""
        self._sending = lambda: False  # what it knows of its protocol would keep that alive
        if self._timer is not None:
            self._timer.cancel()


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 by httptools, within `bounds`, under `pressure`.

    A request's headers and body must be there within a time of their first byte, headers within a size, and so must
    what stands between the chunks of a body and behind them; trailers are dropped. A client that
    hardly reads what it asked for, so that it cannot be sent, is cut off. When there are too many connections, the one
    that has been silent or unfinished for longest makes room; if all are being answered, the newcomer goes. Requests
    that the event loop has no time for are answered by 503 here, before anything is made of them.
    """

    bounds: ClassVar[Bounds] = Bounds()
    pressure: ClassVar[Pressure] = Pressure()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        super().connection_made(transport)
        self.parser: Any = Parser(self)
        self.transport: Any = Lingering(transport, lambda: self._reading)
        self._since = time.monotonic()
        self._reading = False
        self._too_large = self._refused = False
        self._head_bytes: int | None = 0
        self._between_bytes = self._trailer_bytes = self._unread = 0
        self._answered: RequestResponseCycle | None = None
        self._later: Callable[[], None] | None = None
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
        self._leave()
        super().connection_lost(exc)
        self.transport.closed()
        self.pipeline.clear()
        self._answered = self._later = None

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self._deaf:
            return
        if not self._reading:
            self._reading, self._since = True, time.monotonic()
            self._watch()
        self._between_bytes += len(data)
        super().data_received(data)
        if self._head_bytes is not None and self._reading:
            self._head_bytes += len(data)
        if self._reading and max(self._head_bytes or 0, self._between_bytes) > self.bounds.max_header_bytes:
            self._refuse(431)

    def on_message_begin(self) -> None:
        """See httptools."""
        super().on_message_begin()
        if not self._reading:
            self._reading, self._since = True, time.monotonic()
            self._watch()

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools. What comes behind a body is no header of it (RFC 9110, section 6.5)."""
        if self._head_bytes is not None:
            super().on_header(name, value)
            return
        self._trailer_bytes += len(name) + len(value) + 4
        self._between_bytes = 0
        if self._trailer_bytes > self.bounds.max_header_bytes:
            self._too_large = True
            raise ValueError("the trailers are too large")

    def on_chunk_header(self) -> None:
        """See httptools."""
        self._between_bytes = 0

    def on_headers_complete(self) -> None:
        """See httptools."""
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self.bounds.max_header_bytes:
            self._too_large = True
            raise ValueError("the headers are too large")  # caught as a broken request is
        if self.parser.offers_upgrade or self._deaf:
            return
        self._head_bytes = None
        self._between_bytes = self._trailer_bytes = self._unread = 0
        free = (self.cycle is None or self.cycle.response_complete) and not self.expect_100_continue
        asked = free and self.url.partition(b"?")[0] not in QUIET_URLS
        self._refused = asked and not self.pressure.admits()
        if asked and not self._refused:
            self.loop.call_soon(self.pressure.begun, self.pressure.entered())  # just before its task
        elif not asked:
            self.pressure.passed()
        if not self._refused:
            super().on_headers_complete()
            if len(self.pipeline) <= MOST_PIPELINED:
                self.flow.resume_reading()  # or nobody would notice that the client leaves

    def send_400_response(self, msg: str) -> None:
        """See uvicorn: a problem instead of plain text."""
        self._refuse(431 if self._too_large else 400, msg)

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        if self._deaf:
            return
        if not self._refused:
            super().on_body(body)
        self._between_bytes = 0
        self._unread += len(body)
        if self._unread <= self.bounds.max_body_bytes or self.transport.is_closing():
            return
        if self._refused:
            self._refuse_under_pressure(keep=False)
        elif self.cycle.response_complete:
            self.transport.close()  # it was told already

    def on_message_complete(self) -> None:
        """See httptools."""
        if self.parser.offers_upgrade or self._deaf:
            return
        self.scope.setdefault("state", {})["received"] = time.perf_counter()
        self._reading, self._head_bytes, self._since = False, 0, time.monotonic()
        self._between_bytes = 0
        self._unwatch()
        if self._refused:
            self._refused = False
            if not self.transport.is_closing():
                self._refuse_under_pressure(self.parser.should_keep_alive())
                self.on_response_complete()
        else:
            super().on_message_complete()
            if self.cycle.response_complete and self.timeout_keep_alive_task is None:  # answered before it was there
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )
        self.url, self.headers = b"", []  # what comes next is not about this one

    def on_response_complete(self) -> None:
        """See uvicorn."""
        self._since = time.monotonic()
        super().on_response_complete()
        if self._later is not None and not self._answering() and not self.transport.is_closing():
            later, self._later = self._later, None
            later()

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
        return self._answered is None or self._answered.response_complete or self._answered.more_body

    @property
    def _deaf(self) -> bool:
        """Whether nothing more is taken of the client."""
        return self._later is not None or self.transport.is_closing()

    def _leave(self) -> None:
        """Tell whoever answers that nobody will read it; uvicorn tells the latest request alone."""
        for cycle in (self._answered, self.cycle):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

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
        elif self._answering():
            self._later = self._later or self.transport.close
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
        """Answer by a problem, behind other answers that are under way on this connection."""
        if self._deaf:
            return
        if self._answering():
            self._later = partial(self._refuse, status, detail, title, keep)
            return
        self.on_refusal(status)
        phrase = HTTPStatus(status).phrase
        title = title or phrase
        given = {name: value.decode("latin-1") for name, value in self.headers or ()}
        request_id = request_id_of(given.get(b"x-request-id", ""))
        problem = {"type": "about:blank", "title": title, "status": status, "detail": detail or title, "errors": []}
        content = json.dumps({**problem, "instance": self._path(), "request_id": request_id})
        headers = {
            "content-type": "application/problem+json",
            "x-request-id": request_id,
            "connection": "keep-alive" if keep else "close",
            "content-length": str(len(content)),
            **({"retry-after": str(RETRY_SECONDS)} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}),
            **answer_headers(given.get(b"origin", ""), self.bounds.cors_origins),
        }
        lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
        head = "\r\n".join([*lines, "", ""])
        bare = keep and self.parser.get_method() == b"HEAD"
        self.transport.write((head if bare else head + content).encode())
        if not keep:
            self.transport.close()
            self._leave()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def _answering(self) -> bool:
        cycle = self._answered
        if cycle is None or cycle.response_complete:
            return False
        return bool(cycle.response_started or self.pipeline or not cycle.more_body)

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
