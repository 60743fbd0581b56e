"""Lists by the blend without the LLM: by settings, and where the LLM cannot be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from structlog.testing import CapturingLogger

from models.bundle.store import load_bundle
from models.recommending.person import persons
from models.recommending.retrieve import Pool
from models.recommending.shortlist import ListRanker
from tests.service.world import FakeEngine, World, broken, serving

pytestmark = pytest.mark.anyio


async def ask(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post("/recommend", json={"user_id": "u0", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def by_the_blend(world: World, user_id: str) -> list[str]:
    """Ten ids in the order of the blend without the LLM, of what the user has not seen."""
    bundle = load_bundle(world.bundle)
    model = bundle.model
    history = model.histories.of(user_id)
    person = persons(model, [np.asarray(history)])[0]
    pool = Pool(None, None, set(history.tolist()), 100)
    best = ListRanker(model, bundle.manifest.blends).find(pool, person)
    return [model.catalogue.item_ids[item] for item in best[:10]]


async def test_by_settings_the_llm_is_not_asked(world: World, engine: FakeEngine, tmp_path: Path) -> None:
    """The order is the blend's, no fallback is named, and the LLM has no work."""
    async with serving(world.settings_for(tmp_path, ranker="blend"), engine) as (client, _):
        calls = engine.calls
        answer = await ask(client)
        assert engine.calls == calls
        assert (answer["ranker"], answer["fallback"]) == ("blend", None)
        assert {item["ranker"] for item in answer["items"]} == {"blend"}
        assert ids(answer) == by_the_blend(world, "u0")
        assert (await client.get("/about")).json()["ranker"] == "blend"


async def test_under_a_fallback_the_order_is_the_blends(
    world: World, faked: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """And it is another with the LLM, so that this says something."""
    expected = by_the_blend(world, "u0")
    assert ids(await ask(faked)) != expected
    engine.failure = broken()
    answer = await ask(faked)
    assert (answer["ranker"], answer["fallback"]) == ("blend", "llm_error")
    assert ids(answer) == expected


async def test_the_log_says_what_the_llm_is_worth(
    world: World, engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = CapturingLogger()
    monkeypatch.setattr("service.app.logger", log)
    async with serving(world.settings_for(tmp_path, ranker="blend"), engine):
        pass
    (line,) = [call for call in log.calls if call.args == ("blend",)]
    assert line.kwargs == {"ranker": "blend", "llm": load_bundle(world.bundle).manifest.blends.llm_in_words}
