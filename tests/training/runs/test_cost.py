"""What parts of a run cost."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

from training.runs.cost import Cost, metered, resident_bytes


def test_costs_are_kept_and_summed_also_when_interrupted(tmp_path: Path) -> None:
    """Seconds of both parts; the peak of the one that held more."""
    path = tmp_path / "parts" / "cost.json"
    assert Cost.load(path) == Cost()
    with metered(path):
        held = np.ones(40 << 20, dtype=np.uint8)
    first = Cost.load(path)
    assert first.memory > 40
    del held
    with pytest.raises(KeyboardInterrupt), metered(path):
        raise KeyboardInterrupt
    both = Cost.load(path)
    assert both.seconds > first.seconds > 0
    assert both.memory >= first.memory


def test_of_two_costs_times_add_up_and_the_higher_peak_counts() -> None:
    """By hand."""
    total = Cost(seconds=2, memory=100, gpu_memory=7) + Cost(seconds=3, memory=50, gpu_memory=9)
    assert total == Cost(seconds=5, memory=100, gpu_memory=9)


def test_what_the_process_holds_grows_with_what_it_takes() -> None:
    """By as much, to a few pages. Pages of the kernel's own: numpy may have kept some that were freed."""
    before = resident_bytes()
    with mmap.mmap(-1, 64 << 20) as held:
        held.write(b"1" * (64 << 20))
        assert resident_bytes() - before > 60 << 20
