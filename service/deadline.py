"""How much of a request's time is left."""

from __future__ import annotations

import time


class Deadline:
    """Counts from the moment a request arrived.

    Args:
        timeout_ms: the answer is due this long after `started`.
        started: `time.perf_counter()` when the request arrived; now if not given.
    """

    def __init__(self, timeout_ms: float, started: float | None = None) -> None:
        self.started = time.perf_counter() if started is None else started
        self._due = self.started + timeout_ms / 1000

    def remaining(self, reserve_ms: float = 0.0) -> float:
        """Seconds left if `reserve_ms` are to be kept; negative when late."""
        return self._due - reserve_ms / 1000 - time.perf_counter()

    def elapsed_ms(self) -> float:
        """Milliseconds since the request arrived."""
        return (time.perf_counter() - self.started) * 1000
