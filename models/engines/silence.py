"""How an engine is noticed that is there and does nothing."""

from __future__ import annotations

import time
from collections.abc import Callable


class Silence:
    """For how long an engine has said nothing since it was first asked for something.

    Args:
        seconds: what is too long.
        clock: tells seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._since: float | None = None

    def asked(self) -> None:
        """A request was sent."""
        if self._since is None:
            self._since = self._clock()

    def broken(self) -> None:
        """Something came."""
        self._since = None

    @property
    def too_long(self) -> bool:
        """Whether that calls for a look. Who asked may have left before an answer could come."""
        return self._since is not None and self._clock() - self._since > self._seconds
