"""Which requests the event loop has no time for. Refusing them must cost next to nothing, or it helps nobody."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

INTERVAL_SECONDS = 0.02
TARGET_SECONDS = 0.015
"""How late the loop may be for long (RFC 8033, QDELAY_REF)."""
ALPHA, BETA = 0.125, 1.25
"""What a second of lateness, and a second more of it than before, add to the share that is refused."""
TUNING = ((1e-3, 32), (1e-2, 8), (1e-1, 2))
"""Below these shares steps are so many times smaller."""
DECAY = 0.98
"""What is left of the share after an interval without lateness."""
MOST_MISSED = 50
"""More intervals bring the share to its end anyway."""


class Pressure:
    """Refuses a share of the requests, by how late the event loop is: PIE (RFC 8033), a queue's drop probability.

    The loop's lateness is the queue's delay. A burst is let in, as the share is zero until the loop is late. The
    RFC's bound on a step is left out, since many times as many requests as the loop can take may come at once.

    Args:
        on_refusal: is called for each request that is refused.
        seed: of who is refused.
    """

    def __init__(self, on_refusal: Callable[[], None] = lambda: None, seed: int = 0) -> None:
        self._on_refusal = on_refusal
        self._random = random.Random(seed)  # noqa: S311
        self._lag = 0.0
        self.share = 0.0

    def admits(self) -> bool:
        """Whether one more may come in. Call once for each."""
        if self.share and self._random.random() < self.share:
            self._on_refusal()
            return False
        return True

    def looked(self, lag: float) -> None:
        """The event loop came by, `lag` seconds late: at every interval, and, if it was late before, for all missed.

        A single stall counts once, since nothing is left of it when the loop is on time afterwards.
        """
        calm = max(lag, self._lag) < TARGET_SECONDS / 2
        missed = int(lag / INTERVAL_SECONDS) if self._lag > TARGET_SECONDS else 0
        for _ in range(1 + min(MOST_MISSED, missed)):
            step = ALPHA * (lag - TARGET_SECONDS) + BETA * (lag - self._lag)
            step /= next((times for below, times in TUNING if self.share < below), 1)
            self.share = min(1.0, max(0.0, self.share + step))
            self._lag = lag
        if calm:
            self.share *= DECAY

    async def watch(self) -> None:
        """Look at the event loop until cancelled."""
        while True:
            due = time.perf_counter() + INTERVAL_SECONDS
            await asyncio.sleep(INTERVAL_SECONDS)
            self.looked(max(0.0, time.perf_counter() - due))
