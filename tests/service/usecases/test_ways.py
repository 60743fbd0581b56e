"""The LLM is asked in those ways that the bundle's blend weighs, and its answers are weighed with the rest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from models.bundle.store import load_bundle
from models.composer import PromptComposer
from models.engines.transformers import in_process
from models.llm.loading import load_llm
from models.rankers.base import Audience
from models.rankers.of_model import constants_of, llm_signals, signals_of
from models.recommending.merge import merge_window
from models.scoring.choices import Branching
from tests.service.world import FakeEngine, World, broken, fake_engine, make_world, serving

pytestmark = pytest.mark.anyio

WAYS = {
    "titles": ("title_likelihood", "title_prior"),
    "both": ("allmrec", "title_likelihood", "title_prior"),
}


@pytest.fixture(scope="module", params=WAYS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Bundles whose blends weigh the likelihood of titles, alone or beside A-LLMRec."""
    return make_world(tmp_path_factory.mktemp("world"), llm_signals=WAYS[request.param])


class Listening(FakeEngine):
    """Notes what kinds of questions it is asked."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.kinds: list[bool] = []

    async def score(self, prompt: Any, trie: Branching, due: float | None = None) -> list[np.ndarray]:
        self.kinds.append(trie.normalised)
        return await super().score(prompt, trie, due)


@pytest.fixture
async def client(world: World, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """On the world's own LLM."""
    async with serving(world.settings_for(tmp_path)) as (client, _):
        yield client


async def by_hand(world: World, items: np.ndarray) -> list[str]:
    """The ids of `items` in the order of the blend with the LLM, each ranker asked for itself."""
    bundle, llm = load_bundle(world.bundle), load_llm(str(world.llm))
    model, blends = bundle.model, bundle.manifest.blends
    user = Audience([""], [model.histories.of("u0")])
    composer = PromptComposer(model, bundle.manifest.prompt, llm.tokenizer, llm.context_length)
    async with in_process(llm) as engine:
        asked = llm_signals(engine, composer, ["allmrec", "title_likelihood"])
        rankers = {ranker.id: ranker for ranker in [*signals_of(model), *constants_of(model), *asked]}
        names = {signal.id for signal in (*blends.llm.signals, *blends.blend.signals)}
        scores = {name: await rankers[name].score(user, items[None]) for name in names}
    known = model.catalogue.interactions[items][None]
    without, logits = blends.blend.logits(scores, known)[0], blends.llm.logits(scores, known)[0]
    before = np.argsort(-without, kind="stable")
    order, _ = merge_window(without[before], logits[before])
    return [model.catalogue.item_ids[item] for item in items[before][order]]


async def test_a_list_is_ranked_by_all_that_the_blend_weighs(client: httpx.AsyncClient, world: World) -> None:
    """From the request to the order, with an LLM that computes."""
    items = np.arange(3, 19)
    body = {"user_id": "u0", "candidates": [f"i{item}" for item in items]}
    answer = (await client.post("/recommend", json=body)).json()
    assert (answer["ranker"], answer["fallback"]) == ("llm", None)
    assert [item["item_id"] for item in answer["items"]] == await by_hand(world, items)


async def test_only_what_the_blend_weighs_is_asked(world: World, tmp_path: Path) -> None:
    """A request costs one question for each way."""
    engine = Listening(str(world.llm), fake_engine(world).fingerprint)
    async with serving(world.settings_for(tmp_path), engine) as (client, _):
        engine.kinds.clear()
        answer = (await client.post("/recommend", json={"user_id": "u0"})).json()
    weighed = {signal.id for signal in load_bundle(world.bundle).manifest.blends.llm.signals}
    assert answer["ranker"] == "llm"
    assert sorted(engine.kinds) == [False] * ("allmrec" in weighed) + [True]


async def test_without_its_answers_the_blend_without_it_ranks(world: World, tmp_path: Path) -> None:
    engine = Listening(str(world.llm), fake_engine(world).fingerprint)
    async with serving(world.settings_for(tmp_path), engine) as (client, _):
        engine.failure = broken()
        answer = (await client.post("/recommend", json={"user_id": "u0"})).json()
    assert (answer["ranker"], answer["fallback"]) == ("blend", "llm_error")
    assert answer["items"]
