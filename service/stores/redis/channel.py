"""One kind of traffic to Redis, with connections and patience of its own, so that no kind can stop another."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.metrics import StoreFailure, StoreOperation
from service.stores.patience import Wait, within
from service.stores.port import StoreError
from service.stores.redis.cluster import Cluster
from service.stores.redis.connect import Client
from service.stores.redis.watch import Watch

logger = structlog.get_logger(__name__)

Result = TypeVar("Result")
OnFailure = Callable[[StoreOperation, StoreFailure], None]
Timer = Callable[[StoreOperation], AbstractContextManager[None]]

UNREACHABLE = (RedisConnectionError, RedisTimeoutError, RedisClusterException, OSError)
REDIS_ERRORS = (*UNREACHABLE, RedisError)

QUEUE = 5
"""A command waits this many times the patience for its turn, unless it has its own: a burst is no trouble."""

ABANDONED_SECONDS = 10.0
"""After so long nobody will have an answer of a server that is otherwise well: the connection is given up."""

HANG = 5
"""A server, or a node of a cluster, hangs if it takes this many times the patience of a read to say a word."""


def untimed(_: StoreOperation) -> AbstractContextManager[None]:
    """For who does not want to know how long operations take."""
    return nullcontext()


class _Turn:
    """A place among the commands under way, and the wait of who has it."""

    def __init__(self, connections: asyncio.Semaphore, wait: Wait) -> None:
        self.wait = wait
        self._connections = connections
        self._over = False

    def over(self, _: object = None) -> None:
        """The place is free, and who waits goes on. Said again it changes nothing."""
        if not self._over:
            self._over = True
            self._connections.release()
            self.wait.over()


class Channel:
    """Sends commands of one kind.

    Args:
        operation: the kind.
        client: with connections of its own.
        connections: how many commands may be under way, to each node of a cluster; others wait.
        patience: seconds to wait for an answer.
        watch: knows whether the server is there.
        on_failure: called once for every command that fails.
        timer: around every command that a server which is there is asked for, with the wait for its turn.
    """

    def __init__(
        self,
        operation: StoreOperation,
        client: Client,
        connections: int,
        patience: float,
        watch: Watch,
        on_failure: OnFailure,
        timer: Timer = untimed,
    ) -> None:
        self.client = client
        self._operation = operation
        # Each node has its own: one that hangs must not take the places of calls to others.
        self._connections: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(connections))
        self._patience = patience
        self._watch = watch
        self._on_failure = on_failure
        self._timer = timer
        # Nobody looks whether each node is there.
        self._abandoned = HANG * patience if isinstance(client, Cluster) else ABANDONED_SECONDS
        self._calls: set[asyncio.Task[object]] = set()
        watch.on_down.append(self._drop)

    async def call(
        self, command: Callable[[], Awaitable[Result]], patience: float | None = None, key: str = ""
    ) -> Result:
        """The answer to a command.

        Args:
            command: sends it.
            key: what it is about. In a cluster it waits for its turn among those to the node where that is.
            patience: seconds to wait for a connection; and for an answer, if that is less than the channel's patience.

        Raises:
            StoreError: there is none: the server is away, late, or refuses. A late answer is still awaited, by
                nobody, so that its connection stays good.
        """
        seconds = self._patience if patience is None else min(patience, self._patience)
        self._need_server()
        with self._timer(self._operation):
            connections = self._connections[self.client.node_of(key) if isinstance(self.client, Cluster) else ""]
            await self._take(connections, QUEUE * self._patience if patience is None else patience)
            turn = _Turn(connections, Wait(seconds))
            call = asyncio.ensure_future(self._call(command, turn))
            self._calls.add(call)
            call.add_done_callback(self._ended)
            call.add_done_callback(turn.over)  # one that is ended before it began does not say so itself
            try:
                in_time = await turn.wait.in_time() or call.done()
            finally:
                if not call.done():
                    _abandon(call, self._abandoned)
            if not in_time:
                self._watch.look()
                raise self._failure("late")
            return self._result(call)

    def failure_of(self, error: Exception) -> StoreError:
        """What an error of redis-py is to who called; it counts as a failure."""
        if isinstance(error, UNREACHABLE):
            self._watch.look()
            logger.warning("redis_unreachable", operation=self._operation, error=str(error) or type(error).__name__)
            return self._failure("unreachable")
        logger.warning("redis_refused", operation=self._operation, error=str(error))
        return self._failure("refused", str(error))

    async def close(self) -> None:
        """Close the connections."""
        self._drop()
        await asyncio.gather(*self._calls, return_exceptions=True)
        await self.client.aclose()

    async def _take(self, connections: asyncio.Semaphore, seconds: float) -> None:
        if not connections.locked():
            await connections.acquire()  # at once
            return
        waiting = asyncio.ensure_future(connections.acquire())
        try:
            if not await within(waiting, seconds):
                self._watch.look()
                raise self._failure("late")
        except BaseException:
            if waiting.done() and not waiting.cancelled():
                connections.release()
            waiting.cancel()
            raise

    def _need_server(self) -> None:
        if not self._watch.up:
            raise self._failure("unreachable")

    async def _call(self, command: Callable[[], Awaitable[Result]], turn: _Turn) -> Result:
        try:
            self._need_server()
            return await command()
        finally:
            turn.over()

    def _ended(self, call: asyncio.Task[object]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # looked at, in case nobody waits for it any more

    def _drop(self) -> None:
        """End all calls that are under way: the server does not answer them."""
        for call in self._calls:
            call.cancel()

    def _result(self, call: asyncio.Task[Result]) -> Result:
        try:
            return call.result()
        except StoreError:
            raise
        except asyncio.CancelledError as error:
            raise self._failure("unreachable") from error
        except REDIS_ERRORS as error:
            raise self.failure_of(error) from error

    def _failure(self, failure: StoreFailure, answer: str = "") -> StoreError:
        self._on_failure(self._operation, failure)
        match failure:
            case "unreachable":
                return StoreError("Redis cannot be reached: try again in a second")
            case "late":
                return StoreError("Redis is late: try again in a second")
            case "refused":
                return StoreError(f"Redis refuses ({answer.partition('.')[0]}): try again later")


def _abandon(call: asyncio.Task[Any], seconds: float) -> None:
    """Give a call up that nobody waits for, if it takes far too long; a timer must not keep one that has ended."""
    timer = asyncio.get_running_loop().call_later(seconds, call.cancel)
    call.add_done_callback(lambda _: timer.cancel())
