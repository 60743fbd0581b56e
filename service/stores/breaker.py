"""Leaves a dependency alone for a while after it failed, so that its timeout is not paid by every request."""

from __future__ import annotations

import time
from collections.abc import Callable


class Breaker:
    """Open after a failure; then one call every `retry_seconds` may try again, until one succeeds."""

    def __init__(self, retry_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._retry_at: float | None = None

    @property
    def open(self) -> bool:
        """Whether the last call failed."""
        return self._retry_at is not None

    def allows(self) -> bool:
        """Whether a call may be made now. A call that is allowed must end in `succeeded` or `failed`."""
        if self._retry_at is None:
            return True
        if self._clock() < self._retry_at:
            return False
        self._retry_at = self._clock() + self._retry_seconds
        return True

    def succeeded(self) -> None:
        """Close."""
        self._retry_at = None

    def failed(self) -> None:
        """Open."""
        self._retry_at = self._clock() + self._retry_seconds
