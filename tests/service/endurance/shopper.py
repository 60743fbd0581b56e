"""Clients of a service in trouble, each a user of its own who knows what was acknowledged and checks every answer."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import httpx
import numpy as np

from tests.service.endurance.expected import (
    STATED,
    Ask,
    Expected,
    Findings,
    Kept,
    appended,
    in_order,
    with_pending,
)
from tests.service.endurance.program import Service

PAST_DAYS = (40, 90)
"""How long ago events with a time happened: before anything that the service's clock is stepped back to."""
AHEAD_DAYS = 400
"""When nothing can have happened, whatever the service's clock says."""
TIMEOUTS_MS = (1, 50, 1000, 10_000)
MOST_ITEMS = 45
"""A history holds 50 items of feedback."""
RETRY_SECONDS = 0.05
PATIENCE_SECONDS = 60.0
FAILURES = 'allmrec_store_failures_total{operation="read"'


class States(NamedTuple):
    """What a service may know that a user did: histories, of which so many have all that was acknowledged."""

    items: list[tuple[str, ...]]
    whole: int


class Shopper:
    """One user, who asks and tells one thing after the other.

    Args:
        user_id: known in training or not.
        service: may be killed and started again.
        expected: what answers may be.
        findings: where to put what may not be.
        seed: of what is asked.
        timeouts: milliseconds that answers may take.
        transport: to the service, if not by its port.
    """

    def __init__(
        self,
        user_id: str,
        service: Service,
        expected: Expected,
        findings: Findings,
        seed: int,
        timeouts: Sequence[int] = TIMEOUTS_MS,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.user_id = user_id
        self.kept: list[Kept] = []
        self.pending: tuple[Kept, dict[str, Any]] | None = None
        self.checks: list[tuple[dict[str, Any], Ask, States, int]] = []
        self.latencies: list[tuple[float, float]] = []
        self._service = service
        self._expected = expected
        self._findings = findings
        self._random = np.random.default_rng(seed)
        self._client = httpx.AsyncClient(timeout=PATIENCE_SECONDS, transport=transport)
        self._timeouts = timeouts
        self._events = 0
        self._heard: tuple[int, list[Kept]] = 0, []

    async def close(self) -> None:
        """Hang up."""
        await self._client.aclose()

    async def act(self, check_now: bool = True) -> None:
        """Ask or tell something.

        Args:
            check_now: or have recommendations checked by `check`, later.
        """
        if self.pending is not None:
            await self._tell()
            return
        match self._random.random():
            case chance if chance < 0.25 and len(in_order(self.kept)) < MOST_ITEMS:
                await self._tell(self._new_event())
            case chance if chance < 0.35:
                await self.look()
            case chance if chance < 0.45:
                await self._explain()
            case chance if chance < 0.48:
                await self._predict()
            case _:
                await self.recommend(self._ask(), check_now)

    async def settle(self) -> None:
        """Tell what is not known to be kept until it is acknowledged."""
        due = time.monotonic() + PATIENCE_SECONDS
        while self.pending is not None:
            await self._tell()
            if self.pending is not None:
                await asyncio.sleep(RETRY_SECONDS)
            if time.monotonic() > due:
                self._wrong("an event is not acknowledged after a minute")
                self.pending = None

    async def audit(self) -> None:
        """With nothing in the way, everything that was acknowledged is there, and the LLM ranks."""
        await self.settle()
        await self.look(strict=True)
        due = time.monotonic() + PATIENCE_SECONDS
        ask = Ask({"user_id": self.user_id, "timeout_ms": 20_000})
        while (answer := await self.recommend(ask, strict=True)) is None or answer["fallback"] not in (
            None,
            "cold_user",
        ):
            if time.monotonic() > due:
                self._wrong(f"after a minute the answer still is {answer and answer['fallback']}")
                return
            await asyncio.sleep(RETRY_SECONDS)

    def forget(self) -> None:
        """The service was started without what it had kept."""
        self.kept, self.pending, self._heard = [], None, (0, [])

    async def recommend(self, ask: Ask, check_now: bool = True, strict: bool = False) -> dict[str, Any] | None:
        """Ask for a recommendation and check it; None if there was no answer."""
        life, started = self._service.life, time.perf_counter()
        answer = await self._answer("POST", "/recommend", ask.body)
        if answer is None:
            return None
        self.latencies.append((time.perf_counter() - started, ask.body.get("timeout_ms", 1000) / 1000))
        self._findings.count(f"recommend: {answer['ranker']}, {answer['fallback']}")
        states = self._states(strict)
        if check_now:
            await self._check(answer, ask, states, life)
        else:
            self.checks.append((answer, ask, states, life))
        return answer

    async def check(self) -> None:
        """Check what was put off."""
        checks, self.checks = self.checks, []
        for answer, ask, states, life in checks:
            await self._check(answer, ask, states, life)

    async def look(self, strict: bool = False) -> None:
        """Look the history up: it is exact."""
        life = self._service.life
        answer = await self._answer("GET", f"/users/{self.user_id}", also=(404,))
        if answer is None:
            return
        self._findings.count("user")
        found = tuple(item["item_id"] for item in reversed(answer.get("history", [])))
        trained, states = self._expected.trained(self.user_id), self._states(strict)
        fitting = [place for place, state in enumerate(states.items) if appended(trained, state) == found]
        if not fitting or ("history" not in answer and self.kept):
            self._wrong(f"the history is {found[len(trained) :]}, and {in_order(self.kept)} was acknowledged")
        else:
            await self._account(fitting[0], states, life)

    async def _tell(self, event: tuple[Kept, dict[str, Any]] | None = None) -> None:
        """Tell an event until it is acknowledged; the next attempt is the next act."""
        event = event or self.pending
        assert event is not None
        self.pending = event
        answer = await self._answer("POST", "/feedback", {"events": [event[1]]})
        if answer is not None:
            self._findings.count("feedback")
            if answer["accepted"] != 1:
                self._wrong(f"one event was told, and {answer['accepted']} accepted")
            self.kept.append(event[0])
            self._heard = self._service.life, [*self._heard_now(), event[0]]
            self.pending = None

    async def _predict(self) -> None:
        """Tell an event of the future: it is refused, and never kept."""
        ahead = datetime.now(UTC) + timedelta(days=AHEAD_DAYS)
        event = {"user_id": self.user_id, "item_id": self._item(), "timestamp": ahead.isoformat()}
        answer = await self._answer("POST", "/feedback", {"events": [event]}, also=(422,))
        if answer is not None:
            self._findings.count("feedback of the future")
            if "accepted" in answer:
                self._wrong("an event of the future was accepted")

    async def _explain(self) -> None:
        life = self._service.life
        top_k = int(self._random.integers(1, 4))
        answer = await self._answer("GET", f"/explain/genre?user_id={self.user_id}&top_k={top_k}", also=(404,))
        if answer is None:
            return
        trained = self._expected.trained(self.user_id)
        if "genres" not in answer:
            if trained or self.kept:
                self._wrong("an explanation: the user is said to be unknown")
            return
        self._findings.count(f"explain: {answer['ranker']}, {answer['sentence_source']}")
        states, wrong = self._states(), list[str | None]()
        for place, state in enumerate(states.items):
            wrong.append(self._expected.genres_fit(answer, top_k, appended(trained, state)))
            if wrong[-1] is None:
                await self._account(place, states, life)
                return
        self._wrong(f"an explanation: {wrong[0]}")

    async def _check(self, answer: dict[str, Any], ask: Ask, states: States, life: int) -> None:
        wrong: list[str | None] = []
        for place, state in enumerate(states.items):
            wrong.append(await self._expected.fits(answer, ask, state))
            if wrong[-1] is None:
                if answer["ranker"] != "popularity" or answer["fallback"] != "timeout":
                    await self._account(place, states, life)  # else it says itself that there was no time for the store
                return
        said = "; or, ".join(dict.fromkeys(str(reason) for reason in wrong))
        self._wrong(f"a recommendation ({answer['ranker']}, {answer['fallback']}) to {ask.body}: {said}")

    async def _account(self, place: int, states: States, life: int) -> None:
        """An answer without all that was acknowledged is one for which the store could not be read."""
        if place < states.whole:
            return
        self._findings.count("answers without the store")
        self._findings.stale[life] = self._findings.stale.get(life, 0) + 1
        stale, counted = self._findings.stale[life], await self.failures_counted()
        if life == self._service.life and counted is not None and counted < stale:
            self._wrong(f"{stale} answers without what was acknowledged, and {counted} failures counted")

    async def failures_counted(self) -> float | None:
        """How often the service says that it could not read its store, in this life."""
        try:
            lines = (await self._client.get(self._url("/metrics"))).text.splitlines()
        except httpx.TransportError:
            return None
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(FAILURES))

    async def llm_is_up(self) -> bool:
        """Whether the service says so."""
        answer = await self._answer("GET", "/health/ready")
        return answer is not None and answer["llm"] == "up"

    async def _answer(
        self, method: str, path: str, body: dict[str, Any] | None = None, also: Sequence[int] = ()
    ) -> dict[str, Any] | None:
        """The content of an answer; None if there is none: the service was dead, or it stated a 503."""
        life, down = self._service.life, self._findings.down
        try:
            answer = await self._client.request(method, self._url(path), json=body)
        except httpx.TransportError as error:
            self._findings.count("no answer")
            if not (down or self._findings.down or life != self._service.life):
                self._wrong(f"{method} {path}: no answer, though nobody killed the service: {error!r}")
            return None
        status = answer.status_code
        if status == 503 and answer.json().get("title") in STATED and "retry-after" in answer.headers:
            self._findings.count(f"503 {answer.json()['title']}")
            return None
        if status not in (200, 202, *also):
            self._wrong(f"{method} {path} {body or ''}: {status} {answer.text}")
            return None
        content: dict[str, Any] = answer.json()
        return content

    def _states(self, strict: bool = False) -> States:
        """What the user may have done since training, as the service knows it.

        Without its store it knows what it heard itself since it was started, or nothing.
        """
        pending = None if self.pending is None else self.pending[0]
        states = [in_order(kept) for kept in with_pending(self.kept, pending)]
        whole = len(states)
        if not strict:
            states += [in_order(kept) for kept in with_pending(self._heard_now(), pending)] + [()]
        return States(states, whole)

    def _heard_now(self) -> list[Kept]:
        """What was acknowledged in this life of the service."""
        life, kept = self._heard
        return kept if life == self._service.life else []

    def _ask(self) -> Ask:
        """Some question."""
        random, ids = self._random, self._expected.catalogue.item_ids
        body: dict[str, Any] = {"user_id": self.user_id, "timeout_ms": int(random.choice(self._timeouts))}
        sent: tuple[str, ...] = ()
        match int(random.integers(6)):
            case 0:
                body["candidates"] = [ids[1 + item] for item in random.permutation(len(ids) - 1)[:20]]
            case 1:
                body["num_results"] = int(random.integers(1, 20))
            case 2:
                body["filter"] = {"exclude_seen": False}
            case 3:
                names = sorted(self._expected.catalogue.category_items)
                body["filter"] = {"categories": [str(random.choice(names))], "exclude_item_ids": [self._item()]}
            case 4:
                sent = (self._item(), self._item())
                sent = sent if sent[0] != sent[1] else sent[:1]
                body["history"] = [{"item_id": item} for item in sent]
        return Ask(body, sent)

    def _new_event(self) -> tuple[Kept, dict[str, Any]]:
        self._events += 1
        event: dict[str, Any] = {"user_id": self.user_id, "item_id": self._item(0.5)}
        moment = math.inf
        if self._random.random() < 0.4:
            happened = datetime.now(UTC) - timedelta(days=float(self._random.uniform(*PAST_DAYS)))
            event["timestamp"], moment = happened.isoformat(), happened.timestamp()
        event["event_id"] = f"{self.user_id}-{self._events}"
        return Kept(event["item_id"], moment, self._events), event

    def _item(self, share: float = 1.0) -> str:
        """An item, or one of the first so many, so that something is left to recommend."""
        ids = self._expected.catalogue.item_ids
        return str(ids[int(self._random.integers(1, 1 + share * (len(ids) - 1)))])

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._service.port}{path}"

    def _wrong(self, what: str) -> None:
        self._findings.wrong(self.user_id, what)
