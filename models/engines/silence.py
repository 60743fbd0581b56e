"""How an engine is noticed that is there and does nothing."""

from __future__ import annotations

import time
from collections.abc import Callable


class Silence:
    """For how long an engine has been asked without saying anything.

    Args:
        seconds: what is too long. Who asks less often than four times in it starts it anew.
        clock: tells seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._since: float | None = None
        self._asked = 0.0

    def asked(self) -> None:
        """A request was sent."""
        now = self._clock()
        if self._since is None or now - self._asked > self._seconds / 4:
            self._since = now
        self._asked = now

    def broken(self) -> None:
        """Something came."""
        self._since = None

    @property
    def too_long(self) -> bool:
        """Whether the engine must be taken for hung."""
        return self._since is not None and self._clock() - self._since > self._seconds
