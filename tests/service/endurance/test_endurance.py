"""Small versions of `make chaos` and `make soak`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.service.endurance.chaos import torment
from tests.service.endurance.expected import expecting
from tests.service.endurance.program import Victim
from tests.service.endurance.soak import soak
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
    settings = world.settings_for(tmp_path, log_level="warning")
    victim = Victim({name: getattr(settings, name) for name in settings.model_fields_set}, tmp_path)
    said: list[str] = []
    async with expecting(settings) as expected:
        findings = await soak(victim, expected, ["u0", "u1", "u2", "u3"], 6.0, said.append)
    assert findings.violations == []
    assert "killed and started empty" in said
    assert findings.counts["feedback"] > 0
