"""What a part of a run costs: time and memory at its peak, kept beside it and summed over resumed parts."""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from models.config import Config
from models.files import written_atomically

SAMPLED_EVERY = 0.1
STATM = Path("/proc/self/statm")
MEBIBYTE = 1 << 20


class Cost(Config):
    """Of one part, or of several.

    Attributes:
        seconds: wall-clock.
        processor: seconds of the processor, of all threads of this process, whatever else it did beside.
        memory: MiB that the process held at most, all that it held before included.
        gpu_memory: MiB that torch held at most on its GPU.
    """

    seconds: float = 0.0
    processor: float = 0.0
    memory: float = 0.0
    gpu_memory: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        """One after the other: times add up, of peaks the higher one counts."""
        return Cost(
            seconds=self.seconds + other.seconds,
            processor=self.processor + other.processor,
            memory=max(self.memory, other.memory),
            gpu_memory=max(self.gpu_memory, other.gpu_memory),
        )

    @classmethod
    def load(cls, path: Path) -> Cost:
        """What `metered` wrote there; nothing if there is no such file."""
        return cls.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else cls()


@contextmanager
def metered(path: Path) -> Iterator[None]:
    """Add what the block costs to `path`, also if it is interrupted."""
    before, started, worked = Cost.load(path), time.monotonic(), time.process_time()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        with _Peak() as peak:
            yield
    finally:
        gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        spent = Cost(
            seconds=time.monotonic() - started,
            processor=time.process_time() - worked,
            memory=peak.bytes / MEBIBYTE,
            gpu_memory=gpu / MEBIBYTE,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_atomically(path) as partial:
            partial.write_text((before + spent).model_dump_json() + "\n", encoding="utf-8")


class _Peak:
    """Looks now and then at how much this process holds: the kernel's own peak is of its whole life."""

    def __init__(self) -> None:
        self.bytes = resident_bytes()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self.bytes = max(self.bytes, resident_bytes())

    def _watch(self) -> None:
        while not self._stopped.wait(SAMPLED_EVERY):
            self.bytes = max(self.bytes, resident_bytes())


def resident_bytes() -> int:
    """What this process holds now; where the kernel does not say, the most that it ever held."""
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
