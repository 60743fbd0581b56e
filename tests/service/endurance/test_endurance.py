"""Small versions of `make chaos` and `make soak`."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import pytest

from tests.service.endurance.chaos import torment
from tests.service.endurance.expected import Findings, expecting
from tests.service.endurance.program import Part, Victim, memory_of
from tests.service.endurance.soak import LEAST_SAMPLES, Soak, soak
from tests.service.world import World

pytestmark = pytest.mark.anyio


async def test_random_faults_break_nothing(world: World, tmp_path: Path) -> None:
    """No answer is wrong, no 5xx is unstated, nothing acknowledged is lost."""
    findings = await torment(world, tmp_path, faults=6, seed=3)
    assert findings.violations == []
    assert findings.counts["feedback"] > 0
    assert findings.counts["recommend: llm, None"] > 0


async def test_a_long_day_in_seconds(world: World, tmp_path: Path) -> None:
    """Killed and started full, without its LLM, killed and started empty: every answer is one that may be."""
    settings = world.settings_for(tmp_path, log_level="warning", engine_process=True)
    victim = Victim({name: getattr(settings, name) for name in settings.model_fields_set}, tmp_path)
    said: list[str] = []
    async with expecting(settings) as expected:
        findings = await soak(victim, expected, ["u0", "u1", "u2", "u3"], 6.0, said.append)
    assert findings.violations == []
    assert "killed and started empty" in said
    assert findings.counts["feedback"] > 0


@pytest.mark.parametrize(
    ("samples", "grown"),
    [
        ([100] * LEAST_SAMPLES, False),
        ([50] * 10 + [100] * (LEAST_SAMPLES - 10), False),
        ([100 + 2 * second for second in range(LEAST_SAMPLES)], True),
        ([100 + 2 * second for second in range(LEAST_SAMPLES - 1)], False),
    ],
    ids=["flat", "flat after a start", "growing", "too short to tell"],
)
async def test_memory_that_grows_all_along_is_noticed(samples: list[int], grown: bool) -> None:
    findings = Findings()
    service: Any = None
    store, llm = Part(1, "store"), Part(2, "llm")
    memory = {frozenset({store, llm}): [{store: 10, llm: sample - 10} for sample in samples]}
    said: list[str] = []
    watched = Soak(service, [], findings, 1.0, said.append, memory=memory)
    await watched.verdict()
    assert bool(findings.violations) is grown
    assert [line.split()[-1] for line in said[1:]] == (["store", "llm"] if said else [])


def test_memory_is_a_process_s_own(tmp_path: Path) -> None:
    """What it allocates counts, pages of files do not: how many of these are its own depends on who else runs."""
    size, little = 32 << 20, 8 << 20

    def grown(since: int) -> int:
        return ours() - since

    def ours() -> int:
        return next(size for part, size in memory_of(os.getpid()).items() if part.pid == os.getpid())

    file = tmp_path / "pages"
    file.write_bytes(bytes(size))
    before = ours()
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as pages:
        assert sum(pages[place] for place in range(0, size, mmap.PAGESIZE)) == 0
        assert abs(grown(before)) < little
    with mmap.mmap(-1, size) as allocated:  # the heap may have as much that was freed
        allocated.write(b"1" * size)
        assert abs(grown(before) - size) < little
