"""Who may wait for the LLM: admission by time, for one kind of work.

What is known is how many wait, how long one lately took and how fast they lately came out. From these follows when a
newcomer would be done; who would be late is refused at once, who was let in is served earliest deadline first (EDF),
and who has become hopeless is dropped before it runs. Two limits adapt by known rules:

- how much is under way, by LEDBAT (RFC 6817): more while answers take less than a share of their time, fewer above;
- how long a queue may be, by CoDel's distinction (Nichols and Jacobson 2012; for servers in "Fail at Scale", Maurer
  2015): a burst may use all of its time, a queue that never empties only a share, as it buys nothing but delay.
"""

from __future__ import annotations

import asyncio
import time
from bisect import insort
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Clock = Callable[[], float]

LEAST_DEPTH = 2
RTT_SHARE = 0.25
"""LEDBAT's target: the part of its time that a request may spend inside the engine before fewer are let under way."""
STANDING_SECONDS = 1.0
STANDING_SHARE = 1 / 3
"""A queue that did not empty for so long may take this part of a newcomer's time."""
FORGET_SECONDS = 5.0
"""Without news an engine's time halves in so long, so that one that was slow is tried again."""
RATE_SECONDS = 2.0
"""The rate is that of about the last so many seconds under full load."""


class RefusedError(Exception):
    """The work would be late, or there is too much of it. `waiting` says whether others are the cause."""

    def __init__(self, waiting: bool) -> None:
        super().__init__(waiting)
        self.waiting = waiting


class Pace:
    """What an engine lately did with one kind of work.

    The time of one is smoothed as TCP does round trips (Jacobson 1988); the rate counts only while the engine was full.
    """

    def __init__(self) -> None:
        self._mean = 0.0
        self._deviation = 0.0
        self._at = 0.0
        self._answers = 0.0
        self._full_seconds = 0.0

    def took(self, seconds: float, now: float) -> None:
        """One was answered."""
        if self._mean == 0:
            self._mean, self._deviation = seconds, seconds / 4
        else:
            memory = self._memory(now)
            self._mean, self._deviation = memory * self._mean, memory * self._deviation
            self._deviation += (abs(seconds - self._mean) - self._deviation) / 4
            self._mean += (seconds - self._mean) / 8
        self._at = now

    def gave_up(self, seconds: float, now: float) -> None:
        """One was not answered in `seconds`: it would have taken longer, nobody knows how much."""
        if seconds > self._mean * self._memory(now):
            self.took(1.5 * seconds, now)

    def came_out(self, full_seconds: float) -> None:
        """One came out of a full engine, so long after the last."""
        kept = 0.5 ** (full_seconds / RATE_SECONDS)
        self._answers = self._answers * kept + 1
        self._full_seconds = self._full_seconds * kept + full_seconds

    def seconds(self, now: float) -> float:
        """What nearly every one takes."""
        return (self._mean + 2 * self._deviation) * self._memory(now)

    def least(self, now: float) -> float:
        """What a quick one takes."""
        return max(0.0, self._mean - self._deviation) * self._memory(now)

    def wait(self, ahead: int, depth: int, now: float) -> float:
        """Seconds until `ahead` have come out of an engine with `depth` under way."""
        if self._full_seconds > 0 and self._answers > 1:
            return ahead * self._full_seconds / self._answers
        return ahead * self._mean * self._memory(now) / max(1, depth / 2)  # Little's law, before it was ever full

    def _memory(self, now: float) -> float:
        return float(0.5 ** (max(0.0, now - self._at) / FORGET_SECONDS))


@dataclass(order=True)
class Place:
    """A place in the queue, then at the engine.

    Attributes:
        due: when its work must be done.
        arrived: when it was taken.
        started: when its work began; None until then.
        turn: done when its work may begin; None while it is being prepared.
    """

    due: float
    arrived: float
    started: float | None = field(default=None, compare=False)
    turn: asyncio.Future[None] | None = field(default=None, compare=False)


class Lane:
    """One kind of work: its queue, what is under way, and its pace. Kinds do not wait for each other.

    Args:
        depth: under way at most: what keeps the engine busy.
        most: waiting and under way at most, however quick the engine is.
        clock: tells seconds.
    """

    def __init__(self, depth: int, most: int, clock: Clock = time.perf_counter) -> None:
        self.pace = Pace()
        self._deepest = depth
        self._depth = float(LEAST_DEPTH)
        self._most = most
        self._clock = clock
        self._queue: list[Place] = []
        self._begun: list[Place] = []
        self._full_since: float | None = None
        self._standing_since: float | None = None

    @property
    def waiting(self) -> int:
        """How many were let in and have not begun."""
        return len(self._queue)

    @property
    def under_way(self) -> int:
        """How many the engine works on."""
        return len(self._begun)

    @property
    def age(self) -> float:
        """Seconds since the oldest of those that wait or are under way arrived."""
        return max((self._clock() - place.arrived for place in [*self._queue, *self._begun]), default=0.0)

    @asynccontextmanager
    async def place(self, due: float) -> AsyncIterator[Place]:
        """A place for work that must be done by `due`. Prepare it, await `turn`, do it, and leave the block.

        Raises:
            RefusedError: it would be late; at once, or by `turn`.
        """
        place = self._admit(due)
        answered = False
        try:
            yield place
            answered = True
        finally:
            self._leave(place, answered)

    async def turn(self, place: Place) -> None:
        """Wait until the engine has room.

        Raises:
            RefusedError: it has become late while it waited.
        """
        place.turn = asyncio.get_running_loop().create_future()
        self._pump()
        await place.turn

    def _admit(self, due: float) -> Place:
        now = self._clock()
        if len(self._queue) + self.under_way >= self._most:
            raise RefusedError(waiting=True)
        place = Place(due, now)
        position = sum(other <= place for other in self._queue)
        wait, budget = self._wait(position, now), due - now
        standing = self._standing_since is not None and now - self._standing_since > STANDING_SECONDS
        late = wait + self.pace.seconds(now) > budget
        if late or (standing and wait > STANDING_SHARE * budget) or self._makes_late(position, now):
            raise RefusedError(waiting=wait > 0)
        insort(self._queue, place)
        if self._standing_since is None:
            self._standing_since = now
        return place

    def _wait(self, position: int, now: float) -> float:
        depth = int(self._depth)
        return self.pace.wait(max(0, position + 1 + self.under_way - depth), depth, now)

    def _makes_late(self, position: int, now: float) -> bool:
        """Whether a newcomer at `position` breaks what was promised to somebody after it."""
        seconds = self.pace.seconds(now)
        return any(
            now + self._wait(place, now) + seconds <= other.due < now + self._wait(place + 1, now) + seconds
            for place, other in enumerate(self._queue[position:], start=position)
        )

    def _leave(self, place: Place, answered: bool) -> None:
        now = self._clock()
        if place.started is None:
            self._remove(place)
            self._pump()
            return
        seconds = now - place.started
        self._begun = [other for other in self._begun if other is not place]
        if answered:
            self.pace.took(seconds, now)
            if self._full_since is not None:
                self.pace.came_out(now - self._full_since)
                self._full_since = now
            self._adapt(seconds, place.due - place.arrived)
        elif now >= place.due:
            self.pace.gave_up(seconds, now)
            self._adapt(seconds, place.due - place.arrived)
        self._pump()

    def _adapt(self, seconds: float, budget: float) -> None:
        """LEDBAT: one more under way a round trip if answers are quick, fewer in proportion if they are slow."""
        off_target = max(-1.0, 1 - seconds / (RTT_SHARE * max(budget, 1e-3)))
        if off_target > 0 and self._full_since is None:
            return  # nobody is held back
        self._depth = min(max(self._depth + off_target / self._depth, LEAST_DEPTH), max(self._deepest, LEAST_DEPTH))

    def _pump(self) -> None:
        """Let those begin for whom there is room, the earliest due first; drop who has become hopeless."""
        now = self._clock()
        for place in [place for place in self._queue if place.turn is not None]:
            if place.turn is None or place.turn.done():
                self._remove(place)
            elif now + self.pace.least(now) > place.due:
                self._remove(place)
                place.turn.set_exception(RefusedError(waiting=True))
            elif self.under_way < int(self._depth):
                self._remove(place)
                place.started = now
                self._begun.append(place)
                place.turn.set_result(None)
        full = self.under_way >= int(self._depth)
        if not full:
            self._full_since = None
        elif self._full_since is None:
            self._full_since = now

    def _remove(self, place: Place) -> None:
        self._queue = [other for other in self._queue if other is not place]
        if not self._queue:
            self._standing_since = None
