"""What the event loop has no time for is refused before anything is made of it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from service.api.pressure import INTERVAL_SECONDS, Pressure
from service.api.schemas.problem import Problem
from tests.service.api.hosting import on_a_socket
from tests.service.world import World, fake_engine


class Loop:
    """An event loop in a time of its own: a round takes up what came during the round before.

    Args:
        capacity: requests a second that it can answer.
        refusals: requests a second that it can refuse.
    """

    def __init__(self, capacity: float, refusals: float = 4000) -> None:
        self._answer, self._refuse = 1 / capacity, 1 / refusals
        self._round = INTERVAL_SECONDS
        self.pressure = Pressure()

    def run(self, offered: float, seconds: float) -> tuple[float, np.ndarray]:
        """Admitted requests a second, and for each request of all how long the round took in which it came."""
        rng, admitted, waits, passed = np.random.default_rng(0), 0, [np.zeros(0)], 0.0
        while passed < seconds:
            came = rng.poisson(offered * self._round)
            let_in = sum(self.pressure.admits() for _ in range(came))
            waits.append(np.full(came, self._round))
            work = let_in * self._answer + (came - let_in) * self._refuse
            admitted += let_in
            self._round = max(INTERVAL_SECONDS, work)
            self.pressure.looked(self._round - INTERVAL_SECONDS)
            passed += self._round
        return admitted / passed, np.concatenate(waits)


def test_nobody_is_refused_while_the_loop_is_on_time() -> None:
    loop = Loop(capacity=200)
    assert loop.run(offered=100, seconds=10)[0] == pytest.approx(100, rel=0.1)
    assert loop.pressure.share == 0


def test_a_burst_is_let_in() -> None:
    """Two seconds' worth at once; those who come after it, too, once it is done."""
    loop = Loop(capacity=200)
    assert all(loop.pressure.admits() for _ in range(400))
    loop.pressure.looked(2.0)
    loop.pressure.looked(0.0)
    assert all(loop.pressure.admits() for _ in range(100))


@pytest.mark.parametrize("stall", [0.05, 0.3, 0.4, 0.6, 1.0, 5.0])
def test_a_single_stall_costs_nobody_an_answer(stall: float) -> None:
    pressure = Pressure()
    for lag in (0.0, stall, 0.0):
        pressure.looked(lag)
    assert pressure.share < 0.01


@pytest.mark.parametrize("times", [1.2, 2, 5, 10])
def test_beyond_its_capacity_the_loop_is_kept_busy_and_nearly_on_time(times: float) -> None:
    """RFC 8033 asks for no more: some tens of milliseconds in the middle, bounded at the end. What refusing takes is
    not there for answers.
    """
    loop = Loop(capacity=200)
    offered = 200 * times
    loop.run(offered, seconds=20)
    admitted, waits = loop.run(offered, seconds=20)
    possible = (1 - offered / 4000) / (1 / 200 - 1 / 4000)
    assert 0.9 * possible <= admitted <= 1.05 * possible
    assert np.percentile(waits, 50) <= 0.06
    assert np.percentile(waits, 99) <= 0.15


def test_what_was_refused_under_pressure_is_let_in_soon_after() -> None:
    loop = Loop(capacity=200)
    loop.run(offered=3000, seconds=10)
    assert loop.pressure.share > 0.9
    loop.run(offered=100, seconds=8)
    assert loop.run(offered=100, seconds=10)[0] == pytest.approx(100, rel=0.1)
    assert loop.pressure.share < 0.001


def test_every_refusal_is_told() -> None:
    refused: list[None] = []
    pressure = Pressure(lambda: refused.append(None))
    for _ in range(10):
        pressure.looked(1.0)
    assert refused == [None] * sum(not pressure.admits() for _ in range(50))
    assert refused


@pytest.fixture(scope="module")
def served(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Pressure]]:
    """Port of a service, and its pressure."""
    settings = world.settings_for(tmp_path_factory.mktemp("pressed"))
    with on_a_socket(settings, fake_engine(world)) as (port, server):
        yield port, server.pressure


BODY = {"user_id": "u0"}


def test_who_is_refused_keeps_the_connection(served: tuple[int, Pressure], monkeypatch: pytest.MonkeyPatch) -> None:
    """A problem with `Retry-After`, whatever was sent; then all is as before on the same connection."""
    port, pressure = served
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        assert client.post("/recommend", json=BODY).status_code == 200
        monkeypatch.setattr(pressure, "admits", lambda: False)
        for _ in range(3):
            for answer in (client.post("/recommend", json=BODY), client.get("/users/u0")):
                assert answer.status_code == 503
                assert answer.headers["retry-after"] == "1"
                assert answer.headers["content-type"] == "application/problem+json"
                assert Problem.model_validate(answer.json()).title == "Overloaded"
            assert client.head("/users/u0").status_code == 503
            assert client.post("/feedback", content=iter([b"{", b"}"])).status_code == 503
        assert client.get("/health/ready").status_code == 200
        assert client.get("/metrics").status_code == 200
        monkeypatch.undo()
        assert client.post("/recommend", json=BODY).status_code == 200


def test_who_wants_to_hang_up_is_hung_up_on(served: tuple[int, Pressure], monkeypatch: pytest.MonkeyPatch) -> None:
    port, pressure = served
    monkeypatch.setattr(pressure, "admits", lambda: False)
    answer = httpx.get(f"http://127.0.0.1:{port}/users/u0", headers={"connection": "close"})
    assert answer.status_code == 503
    assert answer.headers["connection"] == "close"


def test_a_large_body_is_refused_in_words(served: tuple[int, Pressure], monkeypatch: pytest.MonkeyPatch) -> None:
    """Before all of it is there."""
    port, pressure = served
    monkeypatch.setattr(pressure, "admits", lambda: False)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n")
        with contextlib.suppress(OSError):
            client.sendall(b" " * 2_000_000)
        received = client.recv(65_536)
    assert received.startswith(b"HTTP/1.1 503 ")


def test_pipelined_requests_are_answered_in_their_order(
    served: tuple[int, Pressure], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is refused does not overtake what is being answered."""
    port, pressure = served
    answers = iter([True, False, False])
    monkeypatch.setattr(pressure, "admits", lambda: next(answers, True))
    request = b"GET /users/u0 HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(request + request.replace(b"Host: x", b"Connection: close\r\nHost: x"))
        received = b""
        while part := client.recv(65_536):
            received += part
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.count(b"HTTP/1.1 ") == 2


def test_refusals_are_counted(served: tuple[int, Pressure], monkeypatch: pytest.MonkeyPatch) -> None:
    """As work that was turned away, and as an answer by 503."""
    port, pressure = served

    def counted(name: str) -> float:
        lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    shed, refused = 'allmrec_shed_total{reason="requests"}', 'allmrec_http_requests_total{code="503",route="refused"}'
    before = counted(shed), counted(refused)
    monkeypatch.setattr(pressure, "looked", lambda _: None)
    monkeypatch.setattr(pressure, "share", 1.0)
    assert httpx.get(f"http://127.0.0.1:{port}/users/u0").status_code == 503
    assert (counted(shed), counted(refused)) == (before[0] + 1, before[1] + 1)
