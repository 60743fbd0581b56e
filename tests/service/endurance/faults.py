"""What can befall a service, drawn from a seed: it begins, lasts, and ends."""

from __future__ import annotations

import asyncio
import resource
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.service.endurance.expected import Findings
from tests.service.endurance.levers import EngineState
from tests.service.endurance.program import NotStartedError, Victim, cache_pid, signalled, socket_of, store_pid

STEPS_DAYS = 20
"""By how much the clock is stepped at most."""
UNLIMITED = resource.RLIM_INFINITY


@dataclass
class Fault:
    """Something that befalls the service.

    Attributes:
        name: what it is.
        begin: makes it happen.
        end: puts an end to it; nothing for what only happens.
        seconds: between the two.
    """

    name: str
    begin: Callable[[], Awaitable[None]]
    end: Callable[[], Awaitable[None]]
    seconds: float


@dataclass
class Faults:
    """Draws faults.

    Args:
        victim: whom they befall.
        findings: told when the service is about to be dead.
        random: decides.
        longest: seconds that a fault lasts at most.
    """

    victim: Victim
    findings: Findings
    random: np.random.Generator
    longest: float = 2.0
    _frozen: list[int] = field(default_factory=list)

    def draw(self) -> Fault:
        """The next one."""
        kinds: dict[str, tuple[Callable[[], Awaitable[None]], Callable[[], Awaitable[None]]]] = {
            "the service is killed": (self._kill_service, self._start_service),
            "the store is killed": (self._kill_store, _nothing),
            "the cache is killed": (self._kill_cache, _nothing),
            "the service is frozen": (self._freeze_service, self._thaw),
            "the store is frozen": (self._freeze_store, self._thaw),
            "the cache is frozen": (self._freeze_cache, self._thaw),
            "files may not grow": (self._limit_files, self._lift_limit),
            "the store's memory is full": (lambda: self._memory("1"), lambda: self._memory(str(256 << 20))),
            "the store's connections are cut": (self._cut_connections, _nothing),
            "the store forgets its scripts": (self._flush_scripts, _nothing),
            "the clock steps": (self._step_clock, _nothing),
            "the LLM dies": (lambda: self._llm(EngineState.DEAD), lambda: self._llm(EngineState.WELL)),
            "the LLM hangs": (lambda: self._llm(EngineState.HANGS), lambda: self._llm(EngineState.WELL)),
        }
        name = str(self.random.choice(sorted(kinds)))
        begin, end = kinds[name]
        return Fault(name, begin, end, float(self.random.uniform(0.05, self.longest)))

    async def _kill_service(self) -> None:
        self.findings.down = True
        await asyncio.to_thread(self.victim.kill)

    async def _start_service(self) -> None:
        await self._thaw()  # a store that is frozen does not end with its service
        self.victim.levers.engine = EngineState.WELL  # a service is ready once its LLM is
        try:
            await self.victim.start()
        except NotStartedError as error:
            self.findings.wrong("service", f"it does not start: {error}")
            raise
        self.findings.down = False

    async def _kill_store(self) -> None:
        signalled(store_pid(self.victim.redis_dir), signal.SIGKILL)

    async def _kill_cache(self) -> None:
        signalled(cache_pid(self.victim.pid, self.victim.redis_dir), signal.SIGKILL)

    async def _freeze_service(self) -> None:
        self._freeze(self.victim.pid)

    async def _freeze_store(self) -> None:
        self._freeze(store_pid(self.victim.redis_dir))

    async def _freeze_cache(self) -> None:
        self._freeze(cache_pid(self.victim.pid, self.victim.redis_dir))

    def _freeze(self, pid: int | None) -> None:
        if signalled(pid, signal.SIGSTOP):
            self._frozen.append(cast("int", pid))

    async def _thaw(self) -> None:
        while self._frozen:
            signalled(self._frozen.pop(), signal.SIGCONT)

    async def _limit_files(self) -> None:
        """For the store, and for what the service starts in its place."""
        most = sum(file.stat().st_size for file in self.victim.redis_dir.rglob("*.incr.aof"))
        self._limit(int(most + self.random.integers(1, 2000)))

    async def _lift_limit(self) -> None:
        self._limit(UNLIMITED)

    def _limit(self, most: int) -> None:
        for pid in (self.victim.pid, store_pid(self.victim.redis_dir)):
            try:
                if pid is not None:
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, UNLIMITED))
            except ProcessLookupError:
                continue

    async def _memory(self, most: str) -> None:
        await self._tell_store("CONFIG", "SET", "maxmemory", most)

    async def _cut_connections(self) -> None:
        await self._tell_store("CLIENT", "KILL", "TYPE", "normal")

    async def _flush_scripts(self) -> None:
        await self._tell_store("SCRIPT", "FLUSH")

    async def _step_clock(self) -> None:
        """Back or ahead by seconds, minutes or days, from where it should be."""
        scale = float(self.random.choice([1, 400, 86_400 * STEPS_DAYS]))
        self.victim.levers.clock = float(self.random.uniform(-scale, scale))

    async def _llm(self, state: EngineState) -> None:
        self.victim.levers.engine = state

    async def _tell_store(self, *command: Any) -> None:
        """A command by a connection of our own; a store that is dead or frozen is told nothing."""
        pid = store_pid(self.victim.redis_dir)
        socket = None if pid is None or pid in self._frozen else socket_of(pid)
        if socket is None:
            return
        try:
            async with Redis(unix_socket_path=socket, socket_timeout=1.0) as redis:
                await redis.execute_command(*command)
        except (RedisError, OSError):
            return


async def _nothing() -> None:
    """It is over by itself."""
