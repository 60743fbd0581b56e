"""`UserStore` in Redis."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import chain
from typing import Any, cast

import numpy as np
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from models.config import Config
from models.errors import ConfigError
from service.stores.port import NOBODY, Bounds, Change, Event, LiveUser, StoreError, UserKey
from service.stores.redis.address import Address
from service.stores.redis.channel import HANG, Channel, OnFailure, Timer, untimed
from service.stores.redis.connect import Client, connect, get_to_know
from service.stores.redis.fitness import Fitness
from service.stores.redis.keys import Keys
from service.stores.redis.scripts import Script
from service.stores.redis.watch import Watch
from service.stores.trail import Met, Trail, in_order

USERS_AT_ONCE = 50
"""Events of more users go in several calls, so that no call takes long for being large; in a cluster each user's, so
that none waits for another's node."""


class RedisConfig(Config):
    """How to deal with a Redis; see the settings of the same names."""

    tenant: str = "default"
    connections: int = 64
    timeout_seconds: float = 0.1
    write_timeout_seconds: float = 2.0
    retry_seconds: float = 1.0
    waitaof: bool = False


class RedisStore:
    """`UserStore` in Redis.

    Args:
        address: where.
        config: connections and times.
        bounds: of what is remembered of a user.
        on_failure: called for every operation that fails.
        on_state: called with whether the server is there.
        timer: around every operation.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        address: Address,
        config: RedisConfig,
        bounds: Bounds,
        on_failure: OnFailure = lambda *_: None,
        on_state: Callable[[bool], None] = lambda _: None,
        timer: Timer = untimed,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._bounds = bounds
        self._clock = clock
        self._keys = Keys(config.tenant)
        self._read_script, self._record_script = Script("read"), Script("record")
        patience = config.timeout_seconds
        self._look_patience = HANG * patience
        self._fitness = Fitness(config.waitaof, self._look_patience)
        watching = connect(address, 1, self._look_patience)
        self._watch = Watch("users", watching, config.retry_seconds, self._look_patience, on_state, self._check)
        size = config.connections
        self._reads = Channel("read", connect(address, size), size, patience, self._watch, on_failure, timer)
        writing = connect(address, size)
        self._writes = Channel("record", writing, size, config.write_timeout_seconds, self._watch, on_failure, timer)
        self._one_server = isinstance(writing, Redis)

    async def connect(self) -> None:
        """See `UserStore.connect`."""
        if self._config.waitaof and not self._one_server:
            raise ConfigError(
                "ALLMREC_REDIS_WAITAOF waits for one server's disk, and REDIS_URL is a cluster: unset it, and give"
                " every node `appendfsync always`"
            )
        await self._watch.start()
        if self._watch.misfit is not None:
            raise self._watch.misfit
        if not self._watch.up:
            raise StoreError("Redis cannot be reached")

    async def read(self, user: UserKey, cached: LiveUser = NOBODY, patience: float | None = None) -> LiveUser:
        """See `UserStore.read`."""
        keys = self._keys.of_user(user)
        known = (str(cached.born), str(cached.arrivals), cached.mark) if cached.complete else ("", "", "")
        answer = await self._reads.call(
            lambda: self._read_script.run(self._reads.client, keys, known), patience, keys[0]
        )
        return cached if answer is None else _live_user(answer)

    async def record(self, events: Mapping[UserKey, Sequence[Event]]) -> dict[UserKey, Change | StoreError]:
        """See `UserStore.record`."""
        size, users = USERS_AT_ONCE if self._one_server else 1, list(events)
        parts = [users[first : first + size] for first in range(0, len(users), size)]
        changes: dict[UserKey, Change | StoreError] = {}
        for part in await asyncio.gather(*(self._record({user: events[user] for user in part}) for part in parts)):
            changes |= part
        errors = [change for change in changes.values() if isinstance(change, StoreError)]
        if errors and len(errors) == len(changes):
            raise errors[0]
        return changes

    async def _record(self, events: Mapping[UserKey, Sequence[Event]]) -> dict[UserKey, Change | StoreError]:
        """Of as many users as go in one call. The same answer to several of them is one failure."""
        calls = [(self._keys.of_user(user), self._arguments(their)) for user, their in events.items()]
        send = self._pipelined if self._one_server else self._alone
        try:
            answers = await self._writes.call(lambda: send(calls), key=calls[0][0][0])
        except StoreError as error:
            return dict.fromkeys(events, error)
        refusals = {str(answer): answer for answer in answers if isinstance(answer, Exception)}
        errors = {text: self._writes.failure_of(refusal) for text, refusal in refusals.items()}
        return {
            user: errors[str(answer)] if isinstance(answer, Exception) else _change(answer)
            for user, answer in zip(events, answers, strict=True)
        }

    async def events(self, user: UserKey) -> list[Event]:
        """See `UserStore.events`."""
        log = self._keys.of_user(user)[0]
        command = cast("Callable[[], Awaitable[dict[bytes, bytes]]]", lambda: self._reads.client.hgetall(log))
        rows = []
        for event_id, value in (await self._reads.call(command, key=log)).items():
            if event_id:
                arrival, moment, payload = value.decode().split("|", 2)
                kind, recommendation_id, item_id = json.loads(payload)
                event = Event(event_id.decode(), item_id, int(moment), kind, recommendation_id)
                rows.append((int(arrival), event))
        return [event for _, event in sorted(rows, key=lambda row: row[0])]

    async def close(self) -> None:
        """Close the connections."""
        for part in (self._watch, self._reads, self._writes):
            await part.close()

    async def _check(self, client: Client) -> None:
        """Whether a server that was away can be used."""
        await get_to_know(self._look_patience, self._reads.client, self._writes.client)
        await self._fitness.check(client)

    def _arguments(self, events: Sequence[Event]) -> list[str | int]:
        bounds = self._bounds
        now = int(self._clock() * 1e6)
        sizes = (bounds.events, bounds.items, bounds.unknown_items, bounds.ids)
        return [
            now,
            bounds.life_seconds,
            *sizes,
            bounds.id_seconds,
            bounds.latest(now),
            secrets.token_hex(8),
            *chain.from_iterable(_fields(event) for event in events),
        ]

    async def _pipelined(self, calls: Sequence[tuple[list[str], list[str | int]]]) -> list[Any]:
        """All users in one go, and on the same connection the wait for the disk."""
        answers = await self._pipeline(calls)
        unsaid = [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unsaid:
            await self._record_script.load(cast("Redis", self._writes.client))
            for place, answer in zip(unsaid, await self._pipeline([calls[place] for place in unsaid]), strict=True):
                answers[place] = answer
        return answers

    async def _pipeline(self, calls: Sequence[tuple[list[str], list[str | int]]]) -> list[Any]:
        pipeline = cast("Redis", self._writes.client).pipeline(transaction=False)
        for keys, arguments in calls:
            pipeline.execute_command(*self._record_script.command(keys, arguments))
        if self._config.waitaof:
            pipeline.execute_command("WAITAOF", 1, 0, int(self._config.write_timeout_seconds * 1000))
        answers = await pipeline.execute(raise_on_error=False)
        if self._config.waitaof:
            synced = answers.pop()
            if isinstance(synced, Exception):
                raise synced
            if synced[0] < 1:
                raise RedisError("the events did not reach the disk in time")
        return answers

    async def _alone(self, calls: Sequence[tuple[list[str], list[str | int]]]) -> list[Any]:
        """Each user on the node where it lies."""
        return [await self._record_script.run(self._writes.client, keys, arguments) for keys, arguments in calls]


def _fields(event: Event) -> tuple[str | int, ...]:
    payload = json.dumps([event.type, event.recommendation_id, event.item_id], ensure_ascii=False)
    repeats = "" if event.repeats_after is None else event.repeats_after
    return event.event_id, event.item_id, event.moment, payload, int(event.known), int(event.timed), repeats


def _live_user(answer: Sequence[Any]) -> LiveUser:
    born, arrivals, mark, known, unknown = answer
    fields = [*json.loads(known), *json.loads(unknown)]
    numbers = np.array("|".join(fields[1::2]).split("|") if fields else [], dtype=np.int64).reshape(-1, 2)
    return LiveUser(int(born), int(arrivals), mark.decode(), Trail(fields[::2], numbers[:, 0], numbers[:, 1]))


def _change(answer: Sequence[Any]) -> Change:
    born, before, arrivals, mark_before, mark, stored, met, forgotten = answer
    marks = mark_before.decode(), mark.decode()
    gone = tuple(item_id.decode() for item_id in forgotten)
    return Change(int(born), int(before), int(arrivals), *marks, tuple(stored), in_order(_met(met)), gone)


def _met(row: Sequence[bytes]) -> list[Met]:
    met = []
    for item_id, place in zip(row[::2], row[1::2], strict=True):
        moment, arrival = place.split(b"|")
        met.append(Met(item_id.decode(), int(moment), int(arrival)))
    return met
