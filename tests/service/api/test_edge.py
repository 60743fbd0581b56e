"""Connections, headers and bodies that are slow, large, many or odd, on a real socket."""

from __future__ import annotations

import contextlib
import gc
import gzip
import http.client
import json
import logging
import re
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest

from service.api.connections import BoundedProtocol
from service.api.schemas.problem import Problem
from tests.service.api.hosting import on_a_socket
from tests.service.world import FakeEngine, World, fake_engine, serving

KEY = "s3cret"
BODY = b'{"user_id": "u0"}'


@pytest.fixture(scope="module")
def port(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A service that is in a hurry: two seconds to read a request, twenty connections, two requests at a time."""
    settings = world.settings_for(
        tmp_path_factory.mktemp("edge"),
        read_timeout_seconds=1,
        max_connections=20,
        max_requests=2,
        max_header_bytes=8192,
        keep_alive_seconds=3,
        cors_origins=["https://shop.example"],
    )
    with on_a_socket(settings, fake_engine(world)) as (port, _):
        yield port


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def half_sent(port: int) -> socket.socket:
    """Headers, and `{` of a body that never comes."""
    client = connect(port)
    client.sendall(
        b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    )
    return client


def until_closed(client: socket.socket) -> bytes:
    """All that comes until the server hangs up."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while part := client.recv(65_536):
            received += part
    return received


def is_open(port: int, client: socket.socket) -> bool:
    """Whether the server has not hung up, though the client may not see that yet."""
    ends = (port, client.getsockname()[1])
    return any(
        connection.status == psutil.CONN_ESTABLISHED
        and connection.raddr
        and (connection.laddr.port, connection.raddr.port) == ends
        for connection in psutil.net_connections("tcp")
    )


def recommend(port: int, **more: Any) -> httpx.Response:
    headers = {"content-type": "application/json", **more.pop("headers", {})}
    return httpx.post(f"http://127.0.0.1:{port}/recommend", **{"content": BODY, **more, "headers": headers})


def test_half_sent_requests_take_nobodys_place(port: int) -> None:
    """Ten of them where two requests may run at a time: everybody else is answered, and they are told they are slow."""
    clients = [half_sent(port) for _ in range(10)]
    for _ in range(5):
        assert recommend(port).status_code == 200
    for client in clients:
        assert until_closed(client).startswith(b"HTTP/1.1 408 ")
        client.close()


def test_more_connections_than_allowed_push_out_the_slowest(port: int) -> None:
    """Sixty half-sent requests over a limit of twenty connections: the service stays reachable all the time."""
    clients = []
    for _ in range(60):
        clients.append(half_sent(port))
        if len(clients) % 15 == 0:
            assert recommend(port).status_code == 200
    for client in clients:
        client.close()


LARGE = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n"


def slow_reader(port: int) -> socket.socket:
    """A client with little room for what is sent to it."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(30)
    client.connect(("127.0.0.1", port))
    return client


def test_who_does_not_read_its_answers_takes_nobodys_place(port: int) -> None:
    """Two clients that ask for megabytes and read nothing, where two requests may run at a time: they are cut off."""
    clients = [slow_reader(port) for _ in range(2)]
    for client in clients:
        client.sendall(LARGE * 10)
    due = time.monotonic() + 30
    while any(is_open(port, client) for client in clients):
        assert time.monotonic() < due, "they are waited for"
        time.sleep(0.05)
    assert recommend(port).status_code == 200
    for client in clients:
        assert len(until_closed(client)) < 10_000_000
        client.close()


def test_a_slow_reader_has_its_answer(port: int) -> None:
    """Read at leisure, over more time than a request has."""
    received = b""
    with slow_reader(port) as client:
        client.sendall(LARGE.replace(b"Host", b"Connection: close\r\nHost"))
        for pause in (*[0.1] * 15, 0.0):
            time.sleep(pause)
            received += client.recv(65_536)
        received += until_closed(client)
    head, _, body = received.partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head.lower()
    assert len(body) > 1_000_000


def test_a_silent_connection_is_closed(port: int) -> None:
    with connect(port) as client:
        started = time.monotonic()
        assert until_closed(client) == b""
        assert time.monotonic() - started < 5


def test_headers_that_trickle_are_given_up(port: int) -> None:
    with connect(port) as client, contextlib.suppress(ConnectionError):
        client.sendall(b"GET /health/live HTTP/1.1\r\nX-Request-ID: r1\r\nX: y")
        told(until_closed(client), 408, request_id="r1", path="/health/live")
    with connect(port) as client, contextlib.suppress(ConnectionError):
        started = time.monotonic()
        for byte in b"GET /health/live HTTP/1.1\r\nX: " + b"y" * 1000:
            client.sendall(bytes([byte]))
            time.sleep(0.05)
            if time.monotonic() - started > 8:
                break
    assert time.monotonic() - started < 8


@pytest.mark.parametrize("size", [9_000, 50_000_000])
def test_large_headers_are_refused_and_delay_nobody(port: int, size: int) -> None:
    """One header of fifty megabytes is refused after its first chunks."""

    def send() -> None:
        with connect(port) as client, contextlib.suppress(OSError):
            client.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Large: ")
            client.sendall(b"x" * size + b"\r\n\r\n")
            answers.append(until_closed(client))

    answers: list[bytes] = []
    sending = threading.Thread(target=send)
    sending.start()
    started = time.monotonic()
    assert httpx.get(f"http://127.0.0.1:{port}/health/live").status_code == 200
    assert time.monotonic() - started < 2
    sending.join()
    if size < 10_000:
        assert answers[0].startswith(b"HTTP/1.1 431 ")
        assert b"application/problem+json" in answers[0]


def test_many_small_headers_are_large_headers(port: int) -> None:
    with connect(port) as client:
        client.sendall(b"GET /health/live HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(2000)) + b"\r\n")
        assert until_closed(client).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    ("sent", "path"),
    [
        (b"NONSENSE\r\n\r\n", ""),
        (b"GET /items/a%20b?c HTTP/1.1\r\nHost: x\r\nno header\r\n\r\n", "/items/a b"),
        (b"POST /feedback HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n", "/feedback"),
    ],
    ids=["line", "header", "chunk"],
)
def test_a_broken_request_is_a_problem(port: int, sent: bytes, path: str) -> None:
    with connect(port) as client:
        client.sendall(sent)
        told(until_closed(client), 400, path=path)


@pytest.mark.parametrize("before", [1, 3])
def test_what_is_broken_behind_requests_is_told_behind_their_answers(port: int, before: int) -> None:
    """Nobody takes a problem for the answer to what was sent before it, nor is that lost."""
    with connect(port) as client:
        client.sendall(
            b"GET /users/u0 HTTP/1.1\r\nHost: x\r\nX-Request-ID: mine\r\n\r\n" * before + b"NONSENSE\r\n\r\n"
        )
        answer = until_closed(client)
    assert answer.count(b"x-request-id: mine") == before
    told(answer[answer.index(b"HTTP/1.1 400 ") :], 400, path="")
    assert re.findall(rb"HTTP/1.1 (\d+) ", answer) == [b"200"] * before + [b"400"]


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"


@pytest.mark.parametrize("parts", ["whole", "head and body", "bytes", "three at once", "chunks"])
def test_an_offer_of_another_protocol_is_not_heard(port: int, parts: str) -> None:
    """As `curl --http2` and Java's client make it with every request."""
    head = b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + UPGRADE
    whole = head + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    match parts:
        case "head and body":
            sent = [whole[: -len(BODY)], BODY]
        case "bytes":
            sent = [whole[place : place + 1] for place in range(len(whole))]
        case "three at once":
            sent = [whole * 3]
        case "chunks":
            sent = [head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)]
        case _:
            sent = [whole]
    with connect(port) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in sent:
            client.sendall(part)
            time.sleep(0.001)
        answer = until_closed(client)
    count = 3 if parts == "three at once" else 1
    assert re.findall(rb"HTTP/1.1 (\d+) ", answer) == [b"200"] * count
    assert answer.count(b'"ranker":"llm"') >= count


def test_what_comes_behind_an_offer_of_another_protocol_is_answered(port: int) -> None:
    get = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
    with connect(port) as client:
        client.sendall(get + UPGRADE + b"\r\n" + get + b"Connection: close\r\n\r\n")
        assert until_closed(client).count(b"HTTP/1.1 200 ") == 2


@pytest.mark.parametrize(
    ("version", "connection"),
    [
        (b"1.0", b"Connection: Upgrade\r\n"),
        (b"1.1", b"Connection: Upgrade, close\r\n"),
        (b"1.1", b"Connection: upgrade\r\nConnection: close\r\n"),
    ],
)
@pytest.mark.parametrize("body", [b"", BODY])
def test_an_offer_from_who_wants_to_leave_is_answered(
    port: int, version: bytes, connection: bytes, body: bytes
) -> None:
    line = b"POST /recommend" if body else b"GET /health/live"
    head = b"%b HTTP/%b\r\nHost: x\r\nUpgrade: h2c\r\n%b" % (line, version, connection)
    if body:
        head += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    with connect(port) as client:
        client.sendall(head + b"\r\n" + body)
        assert re.findall(rb"HTTP/1.1 (\d+) ", until_closed(client)) == [b"200"]


BROKEN_CHUNK = b"Transfer-Encoding: chunked\r\n\r\nZZZ\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"OPTIONS /health/live HTTP/1.1\r\nHost: x\r\n" + BROKEN_CHUNK,
        b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Encoding: br\r\n" + BROKEN_CHUNK,
    ],
)
def test_what_is_refused_is_answered_once(port: int, sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever else would have answered finds that nobody is there, and makes no noise."""
    with connect(port) as client:
        client.sendall(sent)
        assert re.findall(rb"HTTP/1.1 (\d+) ", until_closed(client)) == [b"400"]
        time.sleep(0.2)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_connection_that_was_answered_early_is_not_kept_for_ever(port: int) -> None:
    """A body that nobody asked for comes after the answer."""
    with connect(port) as client:
        client.sendall(b"OPTIONS /health/live HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
        assert client.recv(65_536).startswith(b"HTTP/1.1 204 ")
        client.sendall(b"12345")
        assert until_closed(client) == b""


def test_half_of_the_next_request_has_its_time(port: int) -> None:
    with connect(port) as client:
        client.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\nGET /health/live HTTP/1.1\r\nX: ")
        assert re.findall(rb"HTTP/1.1 (\d+) ", until_closed(client)) == [b"200", b"408"]


def test_closed_connections_leave_nothing_for_the_garbage_collector(port: int) -> None:
    def alive() -> int:
        return sum(issubclass(type(each), BoundedProtocol) for each in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = alive()
        for _ in range(20):
            with connect(port) as client:
                client.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                until_closed(client)
        until(lambda: alive() <= before + 2)
    finally:
        gc.enable()


CHUNKED = b"POST /recommend HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%b\r\n0\r\n" % (len(BODY), BODY)


@pytest.mark.parametrize("trailers", [b"X: " + b"y" * 50_000_000, b"a:b\r\n" * 10_000_000], ids=["long", "many"])
def test_trailers_are_bounded_as_headers_are(port: int, trailers: bytes) -> None:
    """Fifty megabytes of them are refused after the first, and delay nobody."""
    waited = []

    def send() -> None:
        with connect(port) as client:
            with contextlib.suppress(OSError):
                client.sendall(CHUNKED + b"Content-Type: application/json\r\n\r\n" + CHUNKS)
                client.sendall(trailers)
            waited.append(until_closed(client))

    sending = threading.Thread(target=send)
    sending.start()
    started = time.monotonic()
    assert httpx.get(f"http://127.0.0.1:{port}/health/live").status_code == 200
    assert time.monotonic() - started < 2
    sending.join()
    assert waited[0].startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("pause", [0.0, 0.1])
def test_trailers_are_no_headers(port: int, pause: float) -> None:
    """Wherever segments end: they are dropped (RFC 9110, section 6.5)."""
    answers = []
    for head, trailer in ((b"", b"Content-Type: application/json"), (b"Content-Type: application/json\r\n", b"X: y")):
        with connect(port) as client:
            client.sendall(CHUNKED + head + b"\r\n" + CHUNKS)
            time.sleep(pause)
            client.sendall(trailer + b"\r\n\r\n")
            answers.append(client.recv(65_536)[:12])
    assert answers == [b"HTTP/1.1 422", b"HTTP/1.1 200"]


@pytest.mark.parametrize("size", [1_100_000, 5_000_000, 20_000_000])
def test_who_sends_too_much_is_told_though_the_rest_is_not_read(port: int, size: int) -> None:
    """A client that sends it all before it reads has the answer."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    client.request("POST", "/recommend", b" " * size, {"Content-Type": "application/json"})
    answer = client.getresponse()
    assert (answer.status, answer.getheader("content-type")) == (413, "application/problem+json")
    answer.read()
    client.close()


def test_who_asks_for_much_at_once_and_leaves_is_noticed(world: World, tmp_path: Path) -> None:
    """Not only of the latest request: what is being answered ends, and what has not begun never does."""
    engine = fake_engine(world)
    settings = world.settings_for(tmp_path, timeout_ms=30_000)
    body = b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    with on_a_socket(settings, engine) as (port, _):
        engine.seconds = 20.0
        for count in (1, 2, 5):
            engine.calls = engine.cancelled = 0
            with connect(port) as client:
                client.sendall(count * (body % (len(BODY), BODY)))
                until(lambda: engine.calls > 0)
            until(lambda: engine.cancelled == engine.calls)
        until(lambda: _counted(port, 499) == 3)
        assert _counted(port, 200) == 0


def until(true: Callable[[], bool]) -> None:
    due = time.monotonic() + 10
    while not true():
        assert time.monotonic() < due, "it does not come"
        time.sleep(0.02)


def _counted(port: int, code: int) -> float:
    lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
    name = f'allmrec_http_requests_total{{code="{code}",route="/recommend"}}'
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def told(answer: bytes, status: int, path: str, request_id: str = "") -> None:
    """Fails unless this is a whole problem, with the id in its header, too."""
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    headers = dict(line.split(": ") for line in head.decode().split("\r\n")[1:])
    found = Problem.model_validate_json(body)
    assert (headers["content-type"], headers["connection"]) == ("application/problem+json", "close")
    assert (found.status, found.instance) == (status, path)
    assert headers["x-request-id"] == found.request_id == (request_id or found.request_id)
    assert found.request_id


def test_what_is_refused_at_the_connection_is_counted(port: int) -> None:
    def counted(status: int) -> float:
        lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
        name = f'allmrec_http_requests_total{{code="{status}",route="refused"}}'
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    before = {status: counted(status) for status in (400, 431)}
    for sent in (b"NONSENSE\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"y" * 9000 + b"\r\n\r\n"):
        with connect(port) as client:
            client.sendall(sent)
            until_closed(client)
    assert {status: counted(status) for status in before} == {status: count + 1 for status, count in before.items()}


def test_a_connection_is_kept_as_long_as_is_said(port: int) -> None:
    """Two seconds of silence do not end it, three do."""
    with connect(port) as client:
        for pause in (2.0, 0.0):
            client.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(65_536).startswith(b"HTTP/1.1 200 ")
            time.sleep(pause)
        assert until_closed(client) == b""


def test_pipelined_requests_are_answered_in_turn(port: int) -> None:
    request = b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    with connect(port) as client:
        client.sendall(3 * (request % (len(BODY), BODY)))
        assert until_closed(client).count(b"HTTP/1.1 200 ") == 3


def test_head_is_where_get_is(port: int) -> None:
    for path in ("/health/live", "/health/ready", "/about", "/items/i1", "/", "/docs", "/metrics", "/openapi.json"):
        answer = httpx.head(f"http://127.0.0.1:{port}{path}")
        assert (answer.status_code, answer.content) == (200, b""), path
    assert httpx.head(f"http://127.0.0.1:{port}/items/none").status_code == 404
    assert httpx.head(f"http://127.0.0.1:{port}/recommend").status_code == 405


def test_options_names_the_methods(port: int) -> None:
    for path, methods in {"/recommend": "OPTIONS, POST", "/items/i1": "GET, HEAD, OPTIONS"}.items():
        answer = httpx.request("OPTIONS", f"http://127.0.0.1:{port}{path}")
        assert (answer.status_code, answer.headers["allow"]) == (204, methods)
        other = httpx.request("DELETE", f"http://127.0.0.1:{port}{path}")
        assert (other.status_code, other.headers["allow"]) == (405, methods)


def test_nobody_is_sent_elsewhere(port: int) -> None:
    """Least of all to where the client says that it is."""
    for path in ("/recommend/", "/about/", "/health/live/", "/docs/"):
        for method in ("GET", "POST"):
            answer = httpx.request(method, f"http://127.0.0.1:{port}{path}", headers={"Host": "evil.example"})
            assert (answer.status_code, "location" in answer.headers) == (404, False)


def test_pages_of_origins_that_are_allowed_may_ask(port: int) -> None:
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type, content-encoding",
    }
    url = f"http://127.0.0.1:{port}/recommend"
    allowed = httpx.request("OPTIONS", url, headers={**asked, "Origin": "https://shop.example"})
    assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
    other = httpx.request("OPTIONS", url, headers={**asked, "Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers
    answer = recommend(port, headers={"Origin": "https://shop.example"})
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"


@pytest.mark.anyio
async def test_they_may_read_that_the_service_made_a_mistake(
    world: World, engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(world.settings_for(tmp_path, cors_origins=["*"]), engine) as (client, app):
        broken = SimpleNamespace(recommend=lambda *_, **__: 1 / 0)
        services = replace(app.state.runtime.services, recommender=broken)
        monkeypatch.setattr(app.state.runtime, "services", services)
        body = {"user_id": "u0"}
        answer = await client.post("/recommend", json=body, headers={"Origin": "https://any.example"})
        metrics = (await client.get("/metrics")).text
    assert (answer.status_code, answer.json()["title"]) == (500, "Internal error")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["x-request-id"] == answer.json()["request_id"]
    assert 'allmrec_http_requests_total{code="500",route="/recommend"} 1.0' in metrics


@pytest.mark.parametrize("origin", ["https://shop.example", "https://evil.example"])
def test_they_may_read_why_they_are_refused_at_the_connection(port: int, origin: str) -> None:
    """Else a page sees a network error in place of 503 and its `Retry-After`."""
    with connect(port) as client:
        client.sendall(b"GET /items HTTP/1.1\r\nOrigin: " + origin.encode() + b"\r\nX: " + b"y" * 9000 + b"\r\n\r\n")
        head = until_closed(client).partition(b"\r\n\r\n")[0].lower()
    assert b" 431 " in head
    allowed = origin == "https://shop.example"
    assert (b"access-control-allow-origin: " + origin.encode() in head) == allowed
    assert (b"access-control-expose-headers: x-request-id, retry-after" in head) == allowed


def test_gzip_bodies_are_read(port: int) -> None:
    answer = recommend(port, content=gzip.compress(BODY), headers={"content-encoding": "gzip"})
    assert (answer.status_code, answer.json()["ranker"]) == (200, "llm")


@pytest.mark.parametrize("sizes", [(1, 1000), (9, 9), (60, 3)], ids=["bytes", "parts", "members"])
def test_gzip_members_are_read_one_after_the_other(port: int, sizes: tuple[int, int]) -> None:
    """RFC 1952, section 2.2, however it is cut into chunks."""
    packed = b"".join(gzip.compress(BODY[start : start + sizes[1]]) for start in range(0, len(BODY), sizes[1]))
    chunks = (packed[start : start + sizes[0]] for start in range(0, len(packed), sizes[0]))
    answer = recommend(port, content=chunks, headers={"content-encoding": "gzip"})
    assert (answer.status_code, answer.json()["ranker"]) == (200, "llm")


def test_what_is_packed_is_bounded_as_well(port: int) -> None:
    """Bytes that unpack to nothing, for ever, come no further than what may be sent unpacked."""
    endless = b"\x1f\x8b\x08\x00" + bytes(6) + b"\x00\x00\x00\xff\xff" * 300_000  # empty stored blocks
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for start in range(0, len(endless), 50_000):
            sent += 50_000
            yield endless[start : start + 50_000]

    answer = recommend(port, content=chunks(), headers={"content-encoding": "gzip"})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("encoding", "content", "status"),
    [
        ("gzip", gzip.compress(b" " * 50_000_000), 413),
        ("gzip", gzip.compress(BODY) + bytes(20_000), 415),
        ("gzip", b"not gzip", 415),
        ("gzip", gzip.compress(BODY)[:-9], 415),
        ("gzip", gzip.compress(BODY) + b"more", 415),
        ("gzip", gzip.compress(BODY) + gzip.compress(b" ")[:-3], 415),
        ("gzip", gzip.compress(b"") * 65, 415),
        ("br", b"x", 415),
        ("deflate", zlib.compress(BODY), 415),
    ],
    ids=["too large", "zeros behind", "not gzip", "cut short", "more", "second cut short", "many", "brotli", "deflate"],
)
def test_what_cannot_be_unpacked_is_told(port: int, encoding: str, content: bytes, status: int) -> None:
    """Fifty megabytes packed into fifty kilobytes are unpacked as far as the limit goes."""
    answer = recommend(port, content=content, headers={"content-encoding": encoding})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert status != 415 or answer.headers["accept-encoding"] == "gzip"


def test_the_docs_need_nothing_from_elsewhere(port: int) -> None:
    page = httpx.get(f"http://127.0.0.1:{port}/docs")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "//" not in page.text.replace("<!doctype", "")
    for asset in re.findall(r'(?:src|href)="(docs/[^"]+)"', page.text):
        found = httpx.get(f"http://127.0.0.1:{port}/{asset}")
        assert found.status_code == 200
        assert len(found.content) > 50
    assert httpx.get(f"http://127.0.0.1:{port}/redoc").status_code == 404


@pytest.mark.anyio
class TestKeys:
    async def test_broken_json_without_a_key_is_unauthorized(self, world: World, engine: FakeEngine, tmp_path: Path):
        """Nothing of the body is read, nor is it said whether it would do."""
        taken = 0

        async def pieces() -> Any:
            nonlocal taken
            for _ in range(3):
                taken += 1
                yield b"{"

        async with serving(world.settings_for(tmp_path, api_key=KEY), engine) as (client, _):
            answer = await client.post("/recommend", content=pieces(), headers={"content-type": "application/json"})
            assert (answer.status_code, answer.headers["connection"], taken) == (401, "close", 0)

    async def test_wrong_keys_are_limited_and_right_ones_are_not(
        self, world: World, engine: FakeEngine, tmp_path: Path
    ):
        async with serving(world.settings_for(tmp_path, api_key=KEY, max_wrong_keys=5), engine) as (client, _):
            codes = [(await client.get("/about", headers={"X-API-Key": f"wrong{n}"})).status_code for n in range(8)]
            assert codes == [401] * 5 + [429] * 3
            limited = await client.get("/about", headers={"X-API-Key": "wrong"})
            assert (limited.status_code, limited.headers["retry-after"]) == (429, "60")
            assert "Basic" in limited.headers["www-authenticate"]
            assert (await client.get("/about", headers={"X-API-Key": KEY})).status_code == 200
            assert (await client.get("/about", auth=("any", KEY))).status_code == 200
            both = {"X-API-Key": "", "Authorization": f"Bearer {KEY}"}
            assert (await client.get("/about", headers=both)).status_code == 200

    async def test_of_ipv6_a_customer_has_many_addresses(self, world: World, engine: FakeEngine, tmp_path: Path):
        """The first half of one says whose it is; a v4 address in the dress of v6 is one of v4."""
        settings = world.settings_for(tmp_path, api_key=KEY, max_wrong_keys=5)
        async with serving(settings, engine) as (_, app):
            for address, last in (("2001:db8::{}", 429), ("::ffff:10.0.0.{}", 401), ("10.0.1.{}", 401)):
                codes = []
                for n in range(1, 8):
                    transport = httpx.ASGITransport(app, client=(address.format(n), 1))
                    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                        key = {"X-API-Key": f"{address}{n}"}
                        codes.append((await client.get("/about", headers=key)).status_code)
                assert codes == [401] * 5 + [last] * 2

    async def test_no_key_is_no_wrong_key(self, world: World, engine: FakeEngine, tmp_path: Path):
        """A browser that begins without one is asked for it, whoever did so before, and whoever guessed."""
        none = ({}, {"X-API-Key": ""}, {"Authorization": ""}, {"Authorization": "Negotiate abc"})
        async with serving(world.settings_for(tmp_path, api_key=KEY, max_wrong_keys=5), engine) as (client, _):
            for n in range(8):
                for headers in none:
                    answer = await client.get("/", headers=headers)
                    assert (answer.status_code, "Basic" in answer.headers["www-authenticate"]) == (401, True)
                await client.get("/", headers={"X-API-Key": f"wrong{n}"})

    async def test_metrics_can_be_left_open(self, world: World, engine: FakeEngine, tmp_path: Path):
        settings = world.settings_for(tmp_path, api_key=KEY, metrics_without_key=True)
        async with serving(settings, engine) as (client, _):
            assert (await client.get("/metrics")).status_code == 200
            assert (await client.get("/about")).status_code == 401
            metrics = (await client.get("/metrics")).text
            assert 'allmrec_http_requests_total{code="401",route="/about"} 1.0' in metrics


@pytest.mark.anyio
@pytest.mark.parametrize(
    "changes",
    [
        {"num_results": True},
        {"num_results": "5"},
        {"num_results": 5.5},
        {"num_results": 1e300},
        {"timeout_ms": int("9" * 4000)},
        {"timeout_ms": 10**9},
        {"timeout_ms": "100"},
        {"filter": {"exclude_seen": 1}},
        {"filter": {"exclude_seen": "true"}},
        {"candidates": ["x" * 257]},
    ],
)
async def test_types_are_what_they_are(client: httpx.AsyncClient, changes: dict[str, Any]) -> None:
    answer = await client.post("/recommend", content=json.dumps({"user_id": "u0", **changes}), headers=JSON)
    assert answer.status_code == 422


JSON = {"content-type": "application/json"}


@pytest.mark.anyio
@pytest.mark.parametrize("query", ["top_k=3.0", "top_k=+3", "stream=yes", "stream=1", "strem=true", "top_k=٣"])
async def test_query_types_are_what_they_are(client: httpx.AsyncClient, query: str) -> None:
    assert (await client.get(f"/explain/genre?user_id=u0&{query}")).status_code == 422
