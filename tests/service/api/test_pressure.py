"""What the event loop has no time for is refused before anything is made of it."""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Callable, Iterator

import httpx
import numpy as np
import pytest

from service.api.backlog import backlog_of
from service.api.pressure import INTERVAL_SECONDS, Pressure
from service.api.schemas.problem import Problem
from tests.service.api.hosting import on_a_socket
from tests.service.world import World, fake_engine

PERIOD = 0.1
"""Of a container's quota of processor time, in seconds."""


class Loop:
    """An event loop in a time of its own: a round begins what the round before read, then reads what has come.

    Args:
        capacity: requests a second that it can answer.
        refusals: requests a second that it can refuse.
        stopped: of each tenth of a second, how much the process does not run at all.
        accepted: connections that a round takes at most; the others wait in the kernel.
        chore: seconds of work beside requests, at once, every second.
    """

    def __init__(
        self,
        capacity: float,
        refusals: float = 4000,
        stopped: float = 0.0,
        accepted: int | None = None,
        chore: float = 0.0,
    ) -> None:
        self._chore, self._chore_due = chore, 1000.0 if chore else float("inf")
        self._answer, self._refuse, self._stopped, self._accepted = 1 / capacity, 1 / refusals, stopped, accepted
        self._soon: deque[Callable[[], None]] = deque()
        self.now, self.refused = 1000.0, 0
        self._spent, self._came = 1.0, np.zeros(0)
        self.pressure = Pressure(clock=lambda: self.now, spent=lambda: self._spent)
        self.pressure.backlog = self._waiting_to_be_accepted
        self._due = self.now + INTERVAL_SECONDS

    def run(self, offered: float, seconds: float, stall: float = 0.0) -> tuple[float, np.ndarray]:
        """Admitted requests a second, and how long each of all waited until it was begun or refused; the process may
        stand still at first.
        """
        self._admitted, self._waits = 0, list[float]()
        started, times = self.now, np.random.default_rng(0)
        self._came = self.now + np.cumsum(times.exponential(1 / offered, int(2 * offered * (seconds + stall)) + 50))
        self.now += stall
        while self.now < started + seconds:
            if not self._soon:
                self._sleep(min(self._came[0], self._due, self._chore_due))
            taken = self._here() if self._accepted is None else min(self._accepted, self._here())
            ready, self._came = self._came[:taken], self._came[taken:]
            self._begin()
            for at in ready:
                self._read(at)
            if self.now >= self._due:
                self._soon.append(self._look)
                self._due = float("inf")
            if self.now >= self._chore_due:
                self._soon.append(lambda: self._work(self._chore))
                self._chore_due = self.now + 1
        return self._admitted / (self.now - started), np.array(self._waits)

    def _begin(self) -> None:
        for _ in range(len(self._soon)):
            self._soon.popleft()()

    def _read(self, came: float) -> None:
        if not self.pressure.admits():
            self.refused += 1
            self._work(self._refuse)
            self._waits.append(self.now - came)
            return
        entered = self.pressure.entered()

        def begin() -> None:
            self.pressure.begun(entered)
            self._waits.append(self.now - came)
            self._admitted += 1
            self._work(self._answer)

        self._soon.append(begin)

    def _look(self) -> None:
        self.pressure.look()
        self._due = self.now + INTERVAL_SECONDS

    def _here(self) -> int:
        return int(np.searchsorted(self._came, self.now, side="right"))

    def _waiting_to_be_accepted(self) -> int:
        return 0 if self._accepted is None else self._here()

    def _work(self, seconds: float) -> None:
        """Pass so much time in which the process runs."""
        self._spent += seconds
        self._stand_still()
        while self._stopped and (left := PERIOD - self.now % PERIOD + 1e-9) < seconds:  # past the end, however rounded
            seconds -= left
            self.now += left
            self._stand_still()
        self.now += seconds

    def _sleep(self, until: float) -> None:
        self.now = max(self.now, until)
        self._stand_still()

    def _stand_still(self) -> None:
        self.now += max(0.0, self._stopped - self.now % PERIOD)


@pytest.mark.parametrize("offered", [1, 100, 150])
def test_nobody_is_refused_while_requests_hardly_wait(offered: float) -> None:
    loop = Loop(capacity=200)
    assert len(loop.run(offered, seconds=60)[1])
    assert not loop.refused


ACCEPTED = [None, 1, 16]
"""Requests on connections that are there, and on such as are accepted one or some at a time."""


@pytest.mark.parametrize("accepted", ACCEPTED)
@pytest.mark.parametrize("stopped", [0.06, 0.08])
@pytest.mark.parametrize("offered", [0.1, 2, 20, 30])
def test_a_throttled_process_refuses_nobody_whom_it_has_time_for(
    offered: float, stopped: float, accepted: int | None
) -> None:
    """A container with a fifth of a core stands still for 80 of 100 milliseconds, and could answer eighty a second."""
    loop = Loop(capacity=400, stopped=stopped, accepted=accepted)
    assert len(loop.run(offered, seconds=60)[1])
    assert not loop.refused


@pytest.mark.parametrize("accepted", ACCEPTED)
@pytest.mark.parametrize("chore", [0.1, 0.15])
@pytest.mark.parametrize("offered", [2, 20])
def test_what_the_loop_does_beside_requests_is_not_charged_to_them(
    offered: float, chore: float, accepted: int | None
) -> None:
    """A scrape every second, or explanations, in a throttled process: there is time for all of it."""
    loop = Loop(capacity=200, stopped=0.05, accepted=accepted, chore=chore)
    assert len(loop.run(offered, seconds=60)[1])
    assert not loop.refused


def test_a_request_beside_a_chore_is_not_known_to_be_dear() -> None:
    """Ten who come at once after it are not taken for seconds of work."""
    loop, backlogs = Loop(capacity=200), iter([*[0] * 50, 10, 10])
    loop.pressure.backlog = lambda: next(backlogs)
    for _ in range(52):
        assert loop.pressure.admits()
        loop.pressure.begun(loop.pressure.entered())
        loop._work(0.15)
        loop.pressure.look()
    assert loop.pressure.share == 0


@pytest.mark.parametrize("times", [2, 5])
def test_a_throttled_process_refuses_what_is_beyond_its_capacity(times: float) -> None:
    """And answers what a fifth of a core can, with what refusing leaves."""
    loop, offered = Loop(capacity=400, stopped=0.08), 80 * times
    loop.run(offered, seconds=20)
    refused = loop.refused
    admitted, waits = loop.run(offered, seconds=20)
    possible = (0.2 - offered / 4000) / (1 / 400 - 1 / 4000)
    assert 0.8 * possible <= admitted <= 1.05 * possible
    assert loop.refused - refused >= 0.9 * (offered - possible) * 20
    assert np.percentile(waits, 50) <= 0.2


def test_a_loop_that_is_late_by_itself_refuses_nobody() -> None:
    """Nobody asked anything for an hour of lateness."""
    loop = Loop(capacity=200)
    for _ in range(36_000):
        loop.now += 0.1
        loop.pressure.look()
    assert loop.pressure.share == 0
    assert all(loop.pressure.admits() for _ in range(100))


def test_one_client_after_another_is_never_refused() -> None:
    """However long each takes: nobody waits for anybody."""
    loop = Loop(capacity=0.5)
    for _ in range(1000):
        assert loop.pressure.admits()
        loop.pressure.begun(loop.pressure.entered())
        loop.now += 2.0
        loop.pressure.look()
    assert loop.pressure.share == 0


def test_a_burst_is_let_in() -> None:
    """Two seconds' worth at once; those who come after it, too, once it is done."""
    loop = Loop(capacity=200)
    for _ in range(2):
        assert all(loop.pressure.admits() for _ in range(400))
        entered = [loop.pressure.entered() for _ in range(400)]
        for each in entered:
            loop.pressure.begun(each)
            loop.now += 1 / 200
        for _ in range(2):
            loop.pressure.look()


@pytest.mark.parametrize("stall", [0.05, 0.3, 0.4, 0.6, 1.0, 5.0])
def test_a_single_stall_costs_nobody_an_answer(stall: float) -> None:
    """Many were read just before it."""
    loop = Loop(capacity=200)
    entered = [loop.pressure.entered() for _ in range(50)]
    loop.now += stall
    for each in entered:
        loop.pressure.begun(each)
    for _ in range(2):
        loop.pressure.look()
        loop.now += INTERVAL_SECONDS
    assert loop.pressure.share < 0.01
    assert loop.pressure.waiting == 0


@pytest.mark.parametrize("accepted", [1, 16])
@pytest.mark.parametrize(("offered", "stall"), [(150, 0.3), (150, 0.6), (300, 0.3)])
def test_what_the_kernel_gathers_in_a_single_stall_is_answered(offered: float, stall: float, accepted: int) -> None:
    """There is time for all of it, though it takes longer than a burst may."""
    loop = Loop(capacity=500, accepted=accepted)
    loop.run(offered=1500, seconds=2)
    loop.run(offered, seconds=30)
    refused = loop.refused
    loop.run(offered, seconds=1, stall=stall)
    loop.run(offered, seconds=6)
    assert loop.refused == refused


@pytest.mark.parametrize(("accepted", "busy"), [(None, 0.9), (1, 0.85), (16, 0.9)])
@pytest.mark.parametrize("times", [1.2, 2, 5, 10])
def test_beyond_its_capacity_the_loop_is_kept_busy_and_nearly_on_time(
    times: float, accepted: int | None, busy: float
) -> None:
    """RFC 8033 asks for no more: some tens of milliseconds in the middle, bounded at the end. What refusing takes is
    not there for answers.
    """
    loop = Loop(capacity=200, accepted=accepted)
    offered = 200 * times
    loop.run(offered, seconds=20)
    admitted, waits = loop.run(offered, seconds=20)
    possible = (1 - offered / 4000) / (1 / 200 - 1 / 4000)
    assert busy * possible <= admitted <= 1.05 * possible
    assert np.percentile(waits, 50) <= 0.06
    assert np.percentile(waits, 99) <= 0.15


def test_what_was_refused_under_pressure_is_let_in_soon_after() -> None:
    loop = Loop(capacity=200)
    loop.run(offered=3000, seconds=10)
    assert loop.pressure.share > 0.9
    loop.run(offered=100, seconds=8)
    assert loop.run(offered=100, seconds=10)[0] == pytest.approx(100, rel=0.1)
    assert loop.pressure.share < 0.001


def test_a_storm_is_refused_early() -> None:
    """From the first request on, five times what the loop can answer: nobody waits for seconds."""
    loop = Loop(capacity=200)
    assert loop.run(offered=1000, seconds=4)[1].max() < 2
    assert np.percentile(loop.run(offered=1000, seconds=4)[1], 99) < 0.15


@pytest.mark.parametrize("accepted", [1, 16])
def test_a_storm_of_new_connections_stands_no_longer_than_a_burst_may(accepted: int) -> None:
    """What the kernel has gathered meanwhile is refused at once, so that hardly anybody waits for long."""
    waits = Loop(capacity=500, accepted=accepted).run(offered=1266, seconds=6)[1]
    assert np.mean(waits > 0.05) <= 0.1
    assert waits.max() <= 0.2


def test_the_kernel_says_how_many_are_not_accepted() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    other = socket.create_server(("127.0.0.1", 0))
    backlog = backlog_of([listener, other, socket.socket(socket.AF_UNIX)])
    clients = [socket.create_connection(listener.getsockname()) for _ in range(7)]
    assert backlog() == 7
    accepted, _ = listener.accept()
    assert backlog() == 6
    listener.close()
    assert backlog() == 0
    for each in (*clients, accepted, other):
        each.close()


def test_no_more_wait_than_may() -> None:
    """Whatever comes at once, after a calm as well."""
    pressure = Pressure(most=3)
    for _ in range(3):
        assert pressure.admits()
        pressure.entered()
    assert not pressure.admits()


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
                problem = Problem.model_validate(answer.json())
                assert (problem.title, problem.instance) == ("Overloaded", answer.url.path)
                assert problem.request_id == answer.headers["x-request-id"] != ""
            assert client.get("/users/u0", headers={"X-Request-ID": "mine"}).json()["request_id"] == "mine"
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


def test_what_is_let_in_without_asking_counts_as_work(
    served: tuple[int, Pressure], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Probes, scrapes, who waits to be told to go on, and who comes behind a running request."""
    port, pressure = served
    passed: list[None] = []
    monkeypatch.setattr(pressure, "passed", lambda: passed.append(None))
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        client.get("/users/u0")
        assert not passed
        client.get("/health/live")
        client.get("/metrics")
        client.post("/recommend", json=BODY, headers={"expect": "100-continue"})
    assert len(passed) == 3
    request = b"GET /users/u0 HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(request + request.replace(b"Host: x", b"Connection: close\r\nHost: x"))
        while client.recv(65_536):
            pass
    assert len(passed) == 4


def test_refusals_are_counted(served: tuple[int, Pressure], monkeypatch: pytest.MonkeyPatch) -> None:
    """As work that was turned away, and as an answer by 503."""
    port, pressure = served

    def counted(name: str) -> float:
        lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    shed, refused = 'allmrec_shed_total{reason="requests"}', 'allmrec_http_requests_total{code="503",route="refused"}'
    before = counted(shed), counted(refused)
    monkeypatch.setattr(pressure, "admits", lambda: False)
    assert httpx.get(f"http://127.0.0.1:{port}/users/u0").status_code == 503
    assert (counted(shed), counted(refused)) == (before[0] + 1, before[1] + 1)


def test_who_was_let_in_waits_no_more(served: tuple[int, Pressure]) -> None:
    """Answers, errors, probes, requests in a row and those that hang up: none is counted for ever."""
    port, pressure = served
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for path in ("/users/u0", "/none", "/health/live", "/metrics"):
            client.get(path)
        client.post("/recommend", json=BODY)
    request = b"GET /users/u0 HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as impatient:
        impatient.sendall(3 * request)
    httpx.get(f"http://127.0.0.1:{port}/users/u0")
    assert pressure.waiting == 0
