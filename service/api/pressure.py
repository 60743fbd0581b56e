"""Which requests the event loop has no time for. Refusing them must cost next to nothing, or it helps nobody."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

INTERVAL_SECONDS = 0.02
TARGET_SECONDS = 0.015
"""How long requests may wait for each other for long (RFC 8033, QDELAY_REF)."""
ALPHA, BETA = 0.125, 1.25
"""What a second of waiting, and a second more of it than before, add to the share that is refused."""
LONG_SECONDS = 0.2
"""Longer waits count as this: at its end the share does not grow any more, and would fall all the deeper after it."""
FULL_SECONDS = 0.1
"""When the kernel holds so much work, no less at the next look, and it is no burst, all are refused till it is gone."""
TUNING = ((1e-3, 32), (1e-2, 8), (1e-1, 2))
"""Below these shares steps are so many times smaller."""
DECAY = 0.98
"""What is left of the share after an interval in which hardly anybody waited."""
BURST_SECONDS = 0.15
"""Who comes within this time of a calm is let in (RFC 8033, MAX_BURST)."""
FEW = 2
"""With no more waiting than these, one more is let in (RFC 8033: twice MEAN_PKTSIZE)."""
SMALL_SHARE = 0.2
"""Below this, all are let in while those before hardly waited."""
SMOOTHING = 0.5
"""What the latest measurement counts in what one request costs (RFC 8033, DQCOUNT_WEIGHT)."""
MEASURED = 4
"""Over no fewer requests is it measured (RFC 8033: DQ_THRESHOLD, there 16 times MEAN_PKTSIZE)."""
DEARER = 2
"""A measurement counts at most as so many times what was known: the loop may have done something else as well. And of
a burst no more time passes than so many times what the loop worked, or than an interval: it may have stood still."""
MOST_MISSED = 50
"""More intervals bring the share to its end anyway."""


class Pressure:
    """Refuses a share of the requests, by how long they wait for each other: PIE (RFC 8033).

    The queue is what was read and is not begun yet, and before it the connections that are not accepted yet. Its delay
    is the longest wait of what was begun since the last look, or what those connections will take of the processor, if
    that is more: their number times what a request cost lately (the RFC's departure rate, section 4.2). That the loop
    is late is no reason by itself: while the process is stopped, throttled or does something else, nothing is read, and
    no request costs anything. The RFC's safeguards hold: with next to nobody waiting, next to no wait before, or in a
    burst after a calm all are let in. Its bound on a step is left out, since many times as many requests as the loop
    can take may come at once.

    Attributes:
        waiting: requests that were read and are not begun.
        backlog: says how many connections are not accepted yet.
        share: of the requests beyond the safeguards that is refused.

    Args:
        most: that may wait, whatever comes at once (the queue's own bound).
        seed: of who is refused.
        clock: in seconds.
        spent: processor time of the loop's thread, in seconds.
    """

    def __init__(
        self,
        most: int = 512,
        seed: int = 0,
        clock: Callable[[], float] = time.perf_counter,
        spent: Callable[[], float] = time.thread_time,
    ) -> None:
        self._most = most
        self._random = random.Random(seed)  # noqa: S311
        self._clock, self._spent = clock, spent
        self._looked, self._spent_before = clock(), 0.0
        self._gone, self._cost, self._queued = 0, 0.0, 0
        self._measured, self._measured_seconds = 0, 0.0
        self._delay = self._before = self._stood = self._worked = 0.0
        self._burst = BURST_SECONDS
        self.waiting = 0
        self.backlog: Callable[[], int] = lambda: 0
        self.share = 0.0

    def admits(self) -> bool:
        """Whether one more may come in. Call once for each."""
        if self.waiting < self._most and (self._safe() or self._random.random() >= self.share):
            return True
        self._gone += 1
        return False

    def entered(self) -> float:
        """One that was let in has been read, and waits. Returns when, for `begun`."""
        self.waiting += 1
        return self._clock()

    def begun(self, entered: float) -> None:
        """Its turn has come."""
        self.waiting -= 1
        self._gone += 1
        self._delay = max(self._delay, self._clock() - entered)

    def passed(self) -> None:
        """One that is not asked about was let in: it takes its part of the loop's time."""
        self._gone += 1

    def look(self) -> None:
        """See how long requests waited since the last look: once for each interval, and for those missed if requests
        waited before as well, so that a single stall counts once.
        """
        now, before, delay = self._clock(), self._before, min(self._longest_wait(), LONG_SECONDS)
        passed, self._looked, self._delay = now - self._looked, now, 0.0
        calm = max(delay, before) < TARGET_SECONDS / 2
        missed = int(passed / INTERVAL_SECONDS) - 1 if before > TARGET_SECONDS else 0
        for _ in range(1 + max(0, min(MOST_MISSED, missed))):
            step = ALPHA * (delay - TARGET_SECONDS) + BETA * (delay - self._before)
            step /= next((times for below, times in TUNING if self.share < below), 1)
            self.share = min(1.0, max(0.0, self.share + step))
            self._before = delay
        if calm:
            self.share *= DECAY
        stood, self._stood = self._stood, self._queued * self._cost
        if self._burst <= 0 and FULL_SECONDS < stood <= self._stood:
            self.share = 1.0
        passed = min(passed, max(INTERVAL_SECONDS, DEARER * self._worked))
        self._burst = BURST_SECONDS if calm and not self.share else self._burst - passed

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            self.look()

    def _longest_wait(self) -> float:
        """Since the last look, or of who comes now."""
        spent, queued = self._spent(), self.backlog()
        self._worked = spent - self._spent_before
        self._measure(self._worked, stood=bool(self._spent_before and self._queued and queued))
        self._gone, self._spent_before, self._queued = 0, spent, queued
        return max(self._delay, queued * self._cost)

    def _measure(self, seconds: float, stood: bool) -> None:
        """What a request costs, by those that have gone in so much processor time, if a queue stood meanwhile."""
        if not stood:
            self._measured, self._measured_seconds = 0, 0.0
            return
        self._measured += self._gone
        self._measured_seconds += seconds
        if self._measured >= MEASURED:
            cost = self._measured_seconds / self._measured
            known = self._cost or cost
            self._cost = known + SMOOTHING * (min(cost, DEARER * known) - known)
            self._measured, self._measured_seconds = 0, 0.0

    def _safe(self) -> bool:
        hardly_waited = self._before < TARGET_SECONDS / 2 and self.share < SMALL_SHARE
        return self.waiting + self._queued < FEW or self._burst > 0 or hardly_waited
