"""The service whose LLM lives in a process of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from models.errors import BundleError
from tests.models.engines.hosting import engine_processes
from tests.service.world import World, serving

pytestmark = pytest.mark.anyio
QUESTION = {"user_id": "u0", "candidates": ["i1", "i2", "i3", "i4"], "timeout_ms": 20_000}


async def test_answers_as_with_an_engine_here_and_without_it_while_it_is_gone(world: World, tmp_path: Path) -> None:
    """The same scores; killed, the blend answers and readiness says so; it comes back by itself."""
    async with serving(world.settings_for(tmp_path / "here")) as (client, _):
        here = (await client.post("/recommend", json=QUESTION)).json()
    async with serving(world.settings_for(tmp_path / "own", engine_process=True)) as (client, _):
        own = (await client.post("/recommend", json=QUESTION)).json()
        assert (own["ranker"], own["fallback"]) == ("llm", None)
        assert [item["item_id"] for item in own["items"]] == [item["item_id"] for item in here["items"]]
        assert [item["score"] for item in own["items"]] == pytest.approx([item["score"] for item in here["items"]])
        assert "\nallmrec_llm_batch_requests_count 0.0" not in (await client.get("/metrics")).text
        engine_processes()[0].kill()
        while (await client.get("/health/ready")).json()["llm"] != "down":
            await asyncio.sleep(0.01)
        without = (await client.post("/recommend", json=QUESTION)).json()
        assert (without["ranker"], without["fallback"]) == ("blend", "llm_error")
        while (await client.get("/health/ready")).json()["llm"] != "up":
            await asyncio.sleep(0.05)
        assert (await client.post("/recommend", json=QUESTION)).json()["ranker"] == "llm"
    assert not engine_processes()


async def test_a_start_that_fails_leaves_no_process(world: World, tmp_path: Path) -> None:
    """The bundle is of another LLM, which shows only once the process has loaded this one."""
    settings = world.settings_for(tmp_path, engine_process=True, llm="embedded")
    with pytest.raises(BundleError):
        async with serving(settings):
            pass
    assert not engine_processes()
