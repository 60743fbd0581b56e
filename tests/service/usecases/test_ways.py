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
from models.engines.vllm import VLLMEngine
from models.errors import ConfigError
from models.llm.loading import load_llm
from models.rankers.base import Audience
from models.rankers.of_model import constants_of, llm_signals, signals_of
from models.recommending.merge import merge_window
from models.scoring.choices import Branching
from service.stores.local import LocalServer
from tests.service.world import FakeEngine, World, broken, fake_engine, make_world, serving

pytestmark = pytest.mark.anyio

WAYS = {
    "titles": ("title_likelihood", "title_prior"),
    "both": ("allmrec", "title_likelihood", "title_prior"),
    "injected": ("title_injected",),
    "encoder": ("user_encoder",),
    "all": ("allmrec", "title_likelihood", "title_prior", "title_injected", "user_encoder"),
}


@pytest.fixture(scope="module", params=WAYS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Bundles whose blends weigh A-LLMRec, the likelihood of titles and the LLM as user encoder, or some of them."""
    return make_world(tmp_path_factory.mktemp("world"), llm_signals=WAYS[request.param])


class Listening(FakeEngine):
    """Notes what kinds of questions it is asked."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.kinds: list[str] = []

    async def score(self, prompt: Any, trie: Branching, due: float | None = None) -> list[np.ndarray]:
        titles = "title_injected" if len(prompt.soft_positions) else "title_likelihood"
        self.kinds.append(titles if trie.normalised else "allmrec")
        return await super().score(prompt, trie, due)

    async def encode(self, prompt: Any, places: np.ndarray, due: float | None = None) -> np.ndarray:
        self.kinds.append("user_encoder")
        return await super().encode(prompt, places, due)


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
        asked = llm_signals(engine, composer, ["allmrec", "title_likelihood", "title_injected", "user_encoder"])
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
    assert sorted(engine.kinds) == sorted(weighed & {"allmrec", "title_likelihood", "title_injected", "user_encoder"})


async def test_without_its_answers_the_blend_without_it_ranks(world: World, tmp_path: Path) -> None:
    engine = Listening(str(world.llm), fake_engine(world).fingerprint)
    async with serving(world.settings_for(tmp_path), engine) as (client, _):
        engine.failure = broken()
        answer = (await client.post("/recommend", json={"user_id": "u0"})).json()
    assert (answer["ranker"], answer["fallback"]) == ("blend", "llm_error")
    assert answer["items"]


@pytest.fixture(scope="module")
def encoding(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A bundle whose blend weighs the LLM as user encoder alone."""
    return make_world(tmp_path_factory.mktemp("encoding"), llm_signals=WAYS["encoder"])


def listening(world: World) -> Listening:
    return Listening(str(world.llm), fake_engine(world).fingerprint)


async def test_a_history_is_read_once(encoding: World, tmp_path: Path) -> None:
    """What was made of it serves repeated requests, also while the LLM is away; what happens since is read anew."""
    engine = listening(encoding)
    async with serving(encoding.settings_for(tmp_path), engine) as (client, _):
        engine.kinds.clear()
        first = (await client.post("/recommend", json={"user_id": "u0"})).json()
        engine.failure = broken()
        again = (await client.post("/recommend", json={"user_id": "u0"})).json()
        assert engine.kinds == ["user_encoder"]
        assert (again["ranker"], again["fallback"], again["items"]) == ("llm", None, first["items"])
        await client.post("/feedback", json={"events": [{"user_id": "u0", "item_id": "i30"}]})
        away = (await client.post("/recommend", json={"user_id": "u0"})).json()
        assert (away["ranker"], away["fallback"]) == ("blend", "llm_error")
        engine.failure = None
        back = (await client.post("/recommend", json={"user_id": "u0"})).json()
        assert (back["ranker"], engine.kinds) == ("llm", ["user_encoder"] * 3)


async def test_another_replica_need_not_read_it(encoding: World, tmp_path: Path) -> None:
    """Redis has it under the history and the bundle."""
    server, answers = LocalServer(tmp_path / "given"), []
    await server.start()
    settings = encoding.settings_for(tmp_path, redis_url=server.url)
    for kinds in (["user_encoder"], []):
        engine = listening(encoding)
        async with serving(settings, engine) as (client, _):
            engine.kinds.clear()
            answers.append((await client.post("/recommend", json={"user_id": "u0"})).json()["items"])
            assert engine.kinds == kinds
    await server.close()
    assert answers[0] == answers[1]


async def test_a_user_encoder_ranks_more_than_a_window(encoding: World, tmp_path: Path) -> None:
    """It costs the same for any number of candidates."""
    async with serving(encoding.settings_for(tmp_path, window=4), listening(encoding)) as (client, _):
        body = {"user_id": "u0", "candidates": [f"i{item}" for item in range(3, 19)]}
        answer = (await client.post("/recommend", json=body)).json()
        metrics = (await client.get("/metrics")).text
    assert {item["ranker"] for item in answer["items"]} == {"llm"}
    assert "allmrec_candidates_scored_total 0.0" in metrics


async def test_vllm_refuses_at_start_what_it_cannot_do(encoding: World, tmp_path: Path) -> None:
    """In a line that says what to do, before anybody is answered worse than the bundle says."""

    class NoStates(FakeEngine):
        encode = VLLMEngine.encode

    engine = NoStates(str(encoding.llm), fake_engine(encoding).fingerprint)
    with pytest.raises(ConfigError, match="ALLMREC_ENGINE=transformers"):
        async with serving(encoding.settings_for(tmp_path), engine):
            pass


async def test_an_item_is_explained_in_all_ways_that_rank_it(client: httpx.AsyncClient) -> None:
    """The histories of the experiment are read like any other."""
    item = (await client.post("/recommend", json={"user_id": "u0"})).json()["items"][0]["item_id"]
    answer = await client.get("/explain/item", params={"user_id": "u0", "item_id": item})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["ranker"], answer.json()["fallback"]) == ("llm", None)
