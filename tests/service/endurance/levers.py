"""What a test can do to a service in another process: step its clock, and let its LLM die or hang.

Imported before anything of the service, it puts a clock in place of `time.time` that can be stepped.
"""

from __future__ import annotations

import mmap
import struct
import time
from enum import IntEnum
from pathlib import Path

_CLOCK = struct.Struct("d")
_ENGINE = struct.Struct("i")
SIZE = _CLOCK.size + _ENGINE.size


class EngineState(IntEnum):
    """How the LLM is."""

    WELL = 0
    DEAD = 1
    HANGS = 2


class Levers:
    """Shared memory between the test and its service.

    Args:
        path: a file; made by `create`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), SIZE)

    @classmethod
    def create(cls, path: Path) -> Levers:
        """Levers that nobody has moved."""
        path.write_bytes(bytes(SIZE))
        return cls(path)

    @property
    def clock(self) -> float:
        """Seconds that the service's clock is ahead."""
        return float(_CLOCK.unpack_from(self._memory)[0])

    @clock.setter
    def clock(self, seconds: float) -> None:
        _CLOCK.pack_into(self._memory, 0, seconds)

    @property
    def engine(self) -> EngineState:
        """How the LLM is."""
        return EngineState(_ENGINE.unpack_from(self._memory, _CLOCK.size)[0])

    @engine.setter
    def engine(self, state: EngineState) -> None:
        _ENGINE.pack_into(self._memory, _CLOCK.size, state)


class SteppedClock:
    """Seconds since 1970, and what the levers add; in place of `time.time` once installed."""

    levers: Levers | None = None
    _real = staticmethod(time.time)

    def __call__(self) -> float:
        """The time."""
        return self._real() + (0.0 if self.levers is None else self.levers.clock)


CLOCK = SteppedClock()


def install_clock() -> None:
    """From now on `time.time` is `CLOCK`."""
    time.time = CLOCK  # type: ignore[assignment]
