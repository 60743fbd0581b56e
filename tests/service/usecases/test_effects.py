"""What is said of cited items is what the service finds without them; GET /explain/item."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from models.bundle.manifest import Origin
from models.bundle.store import load_bundle, write_bundle
from models.domain import DOMAINS
from service.settings import Settings
from service.usecases.effects import LEAST_FALL_IN_HALF, Effect, promising
from service.usecases.narration import genre_facts, item_facts
from tests.service.world import FakeEngine, World, broken, serving

pytestmark = pytest.mark.anyio

MOVIE = DOMAINS["movie"]


async def get(client: httpx.AsyncClient, path: str, **query: Any) -> dict[str, Any]:
    answer = await client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def history_of(client: httpx.AsyncClient, user_id: str) -> list[str]:
    return [item["item_id"] for item in (await get(client, f"/users/{user_id}"))["history"]][::-1]


async def genres_of(client: httpx.AsyncClient, name: str, history: list[str]) -> dict[str, float]:
    """The probabilities of a new user who did just this."""
    events = [{"user_id": name, "item_id": item} for item in history]
    assert (await client.post("/feedback", json={"events": events})).is_success
    return {
        share["genre"]: share["probability"]
        for share in (await get(client, "/explain/genre", user_id=name, top_k=4))["genres"]
    }


async def score(client: httpx.AsyncClient, history: list[str], among: list[str]) -> float:
    """Of the first of `among`, ranked for a history alone."""
    body = {"history": [{"item_id": item} for item in history], "candidates": among, "timeout_ms": 20_000}
    ranked = (await client.post("/recommend", json=body)).json()
    return next(item["score"] for item in ranked["items"] if item["item_id"] == among[0])


async def test_without_a_cited_item_a_genre_is_as_probable_as_was_said(client: httpx.AsyncClient) -> None:
    """Somebody else with the same history but for one item: the LLM is asked anew, of another user."""
    answer = await get(client, "/explain/genre", user_id="u0", top_k=4)
    assert answer["ranker"] == "llm"
    history = await history_of(client, "u0")
    tried = 0
    for share in answer["genres"]:
        for item in (item for item in share["evidence"] if item["effect"] is not None):
            tried += 1
            rest = [other for other in history if other != item["item_id"]]
            found = (await genres_of(client, f"u0 without {item['item_id']}", rest))[share["genre"]]
            assert item["effect"]["probability"] == pytest.approx(found, abs=1e-4)
            assert item["effect"]["change"] == pytest.approx(found - share["probability"], abs=1e-4)
            if f"“{item['title']}”" in answer["sentence"]:
                assert found < share["probability"]
    assert tried == 8


async def test_only_what_lowers_the_probability_is_named(client: httpx.AsyncClient) -> None:
    """Of every user: what the sentence quotes has an effect below zero, and something is quoted."""
    quoted = 0
    for number in range(20):
        first = (answer := await get(client, "/explain/genre", user_id=f"u{number}"))["genres"][0]
        for item in first["evidence"]:
            if any(f"{left}{item['title']}{right}" in answer["sentence"] for left, right in ("“”", '""')):
                quoted += 1
                assert item["effect"]["change"] < 0
    assert quoted > 0


async def test_a_genre_is_told_as_the_strongest_reasons_oldest_first(
    faked: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.failure = broken()
    answer = await get(faked, "/explain/genre", user_id="u0", top_k=1)
    (share,), history = answer["genres"], await history_of(faked, "u0")
    falling = sorted(share["evidence"], key=lambda item: item["effect"]["change"])[:3]
    told = sorted(falling, key=lambda item: history.index(item["item_id"]))
    places = [answer["sentence"].index(f"“{item['title']}”") for item in told]
    assert len(places) > 1
    assert places == sorted(places)


async def test_an_items_probability_and_effects_are_those_of_a_ranking(client: httpx.AsyncClient) -> None:
    """`POST /recommend` with the items that it was compared with, for the history with and without each reason."""
    listed = (await client.post("/recommend", json={"user_id": "u0", "num_results": 1, "timeout_ms": 20_000})).json()
    item_id = listed["items"][0]["item_id"]
    answer = await get(client, "/explain/item", user_id="u0", item_id=item_id)
    history = await history_of(client, "u0")
    assert (answer["ranker"], answer["fallback"], answer["item"]["item_id"]) == ("llm", None, item_id)
    assert answer["among"][0] == item_id
    assert len(set(answer["among"])) == len(answer["among"])
    assert not set(answer["among"]) & set(history)
    assert answer["probability"] == pytest.approx(await score(client, history, answer["among"]), abs=1e-4)
    assert answer["evidence"]
    changes = [item["effect"]["change"] for item in answer["evidence"]]
    assert changes == sorted(changes)
    for item in answer["evidence"]:
        found = await score(client, [other for other in history if other != item["item_id"]], answer["among"])
        assert found < answer["probability"]
        assert item["effect"]["probability"] == pytest.approx(found, abs=1e-4)


async def test_an_item_is_told_in_the_same_events_as_a_genre(faked: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.texts = cycle([[' "'], ["."]])
    whole = await get(faked, "/explain/item", user_id="u0", item_id="i30")
    assert whole["sentence_source"] == "llm"
    assert whole["sentence"].startswith(
        f"“{whole['item']['title']}” is likelier for this user, because this user has watched"
    )
    assert any(item["title"] in whole["sentence"] for item in whole["evidence"][:3])
    query = {"user_id": "u0", "item_id": "i30", "stream": "true"}
    answer = await faked.get("/explain/item", params=query)
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = [block.split("\n") for block in answer.text.split("\n\n") if block]
    sent = [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]
    assert [name for name, _ in sent] == ["item", *["token"] * (len(sent) - 2), "done"]
    start, done = sent[0][1], sent[-1][1]
    assert "sentence" not in start
    assert start["evidence"] == whole["evidence"]
    assert "".join(data["text"] for name, data in sent if name == "token") == whole["sentence"]
    assert {**done, "took_ms": 0} == {**whole, "took_ms": 0}


async def test_without_the_llm_the_blend_explains(faked: httpx.AsyncClient, engine: FakeEngine) -> None:
    """Probability, effects and sentence are all the blend's."""
    engine.failure = broken()
    answer = await get(faked, "/explain/item", user_id="u0", item_id="i30")
    assert (answer["ranker"], answer["fallback"], answer["sentence_source"]) == ("blend", "llm_error", "template")
    history = await history_of(faked, "u0")
    assert answer["probability"] == pytest.approx(await score(faked, history, answer["among"]))
    for item in answer["evidence"]:
        rest = [other for other in history if other != item["item_id"]]
        assert item["effect"]["probability"] == pytest.approx(await score(faked, rest, answer["among"]))
    assert f"“{answer['evidence'][0]['title']}”" in answer["sentence"]


async def test_by_the_settings_the_blend_explains(world: World, engine: FakeEngine, tmp_path: Path) -> None:
    """Who serves explains: the LLM writes at most."""
    async with serving(world.settings_for(tmp_path, ranker="blend"), engine) as (client, _):
        for path, query in (("/explain/item", {"item_id": "i30"}), ("/explain/genre", {})):
            answer = await get(client, path, user_id="u0", **query)
            assert (answer["ranker"], answer["fallback"]) == ("blend", None)


class Tiring(FakeEngine):
    """Once it is tired it answers one more question, and none after that."""

    tired = False

    async def score(self, *arguments: Any, **named: Any) -> list[np.ndarray]:
        answers = await super().score(*arguments, **named)
        if self.tired:
            self.failure = broken()
        return answers


@pytest.mark.parametrize("path", ["/explain/genre", "/explain/item"])
async def test_an_llm_that_cannot_be_asked_again_leaves_all_to_the_blend(
    world: World, engine: FakeEngine, tmp_path: Path, path: str
) -> None:
    """A probability and its effects are of one kind: what the LLM said first is not told."""
    tiring = Tiring(str(world.llm), engine.fingerprint)
    query = {"user_id": "u0", **({"item_id": "i30"} if path.endswith("item") else {})}
    async with serving(world.settings_for(tmp_path), tiring) as (client, _):
        tiring.tired = True
        half = await get(client, path, **query)
        none = await get(client, path, **query)
        metrics = (await client.get("/metrics")).text
    assert (half["ranker"], half["fallback"]) == ("blend", "llm_error")
    assert {**half, "took_ms": 0} == {**none, "took_ms": 0}
    assert f'allmrec_fallbacks_total{{reason="llm_error",route="{path}"}} 2.0' in metrics


async def test_the_llm_is_asked_no_more_often_than_the_settings_say(
    world: World, engine: FakeEngine, tmp_path: Path
) -> None:
    """Nothing is named that was not tried, and the sentence says so."""
    async with serving(world.settings_for(tmp_path, explain_tries=0), engine) as (client, _):
        before = engine.calls
        answer = await get(client, "/explain/genre", user_id="u0", top_k=4)
        assert engine.calls == before + 1
        assert answer["ranker"] == "llm"
        assert {item["effect"] for share in answer["genres"] for item in share["evidence"]} == {None}
        assert "not tried" in answer["sentence"]
        item = await get(client, "/explain/item", user_id="u0", item_id="i30")
        assert (item["ranker"], item["evidence"]) == ("llm", [])
        assert "not tried" in item["sentence"]


async def test_an_item_of_the_history_does_not_speak_for_itself(client: httpx.AsyncClient) -> None:
    item_id = (await history_of(client, "u0"))[-1]
    answer = await get(client, "/explain/item", user_id="u0", item_id=item_id)
    assert item_id not in [item["item_id"] for item in answer["evidence"]]


@pytest.mark.parametrize("query", [{"user_id": "u0", "item_id": "no-such"}, {"user_id": "nobody", "item_id": "i1"}])
async def test_an_unknown_item_or_user_is_404(client: httpx.AsyncClient, query: dict[str, str]) -> None:
    answer = await client.get("/explain/item", params=query)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


async def test_to_a_user_without_usable_history_an_item_is_as_likely_as_it_is_popular(
    client: httpx.AsyncClient, world: World
) -> None:
    await client.post("/feedback", json={"events": [{"user_id": "newcomer", "item_id": "from-another-bundle"}]})
    answer = await get(client, "/explain/item", user_id="newcomer", item_id="i30")
    assert (answer["ranker"], answer["fallback"], answer["evidence"]) == ("popularity", "cold_user", [])
    catalogue = load_bundle(world.bundle).model.catalogue
    counts = [int(catalogue.interactions[catalogue.index_of(item)]) + 1 for item in answer["among"]]
    assert answer["probability"] == pytest.approx(counts[0] / sum(counts))
    assert "“" in answer["sentence"]


async def test_a_bundle_without_weights_of_genres_leaves_them_to_the_llm(world: World, tmp_path: Path) -> None:
    """As bundles of earlier releases are."""
    bundle = load_bundle(world.bundle)
    blends = bundle.manifest.blends.model_copy(update={"genres": None})
    kept = {name: getattr(bundle.manifest, name) for name in Origin.model_fields}
    origin = Origin(**{**kept, "blends": blends})
    home = tmp_path / "old"
    write_bundle(home, bundle.model, origin, lambda folder: folder.mkdir())
    async with serving(replace(world, bundle=home).settings_for(tmp_path)) as (client, _):
        answer = await get(client, "/explain/genre", user_id="u0", top_k=4)
    assert answer["ranker"] == "llm"
    assert sum(share["probability"] for share in answer["genres"]) == pytest.approx(1)


def test_a_fall_counts_from_a_hundredth_on() -> None:
    """From .50 to .4951 is less than engines may differ by; from .50 to .49 is more."""
    assert not Effect(0.4951, -0.0049).is_reason
    assert Effect(0.49, -0.01).is_reason
    assert not Effect(0.6, 0.1).is_reason


def test_in_half_precision_a_fall_counts_from_a_twentieth_on() -> None:
    """Rounding alone moves a probability by a hundredth; the blend without the LLM is exact all the same."""
    assert not Effect(0.48, -0.02, LEAST_FALL_IN_HALF).is_reason
    assert Effect(0.47, -0.03, LEAST_FALL_IN_HALF).is_reason
    assert Settings(dtype="bfloat16", bundle="x").computes_in_half
    assert not Settings(bundle="x").computes_in_half
    assert Settings(engine="vllm", bundle="x").computes_in_half
    assert not Settings(engine="vllm", dtype="float32", bundle="x").computes_in_half


def test_what_makes_the_most_for_each_claim_is_tried_first() -> None:
    """Item 5 makes most of the first, 7 of the second; 9 is not known of."""
    before = np.array([0.5, 0.3])
    without = {5: np.array([0.1, 0.3]), 6: np.array([0.3, 0.2]), 7: np.array([0.5, 0.1])}
    assert promising([(0, [6, 5, 9]), (1, [6, 7])], before, without) == [5, 7, 6]


@pytest.mark.parametrize(
    ("cited", "has_items", "tried", "text"),
    [
        (
            ["A", "B"],
            True,
            2,
            "The favorite movie genre of this user is War, because this user has watched “A” and “B”.",
        ),
        (
            [],
            True,
            2,
            "The favorite movie genre of this user is War, though of 2 items of the history that were tried none"
            " makes it likelier.",
        ),
        ([], True, 0, "The favorite movie genre of this user is War; what speaks for it was not tried out."),
        (
            [],
            False,
            0,
            "The favorite movie genre of this user is War, though nothing that this user has watched has this genre.",
        ),
    ],
)
def test_a_genre_without_reasons_is_told_as_that(cited: list[str], has_items: bool, tried: int, text: str) -> None:
    assert genre_facts("War", MOVIE, cited, has_items, tried).text == text


@pytest.mark.parametrize(
    ("cited", "tried", "text"),
    [
        (["A"], 1, "“X” is likelier for this user, because this user has watched “A”."),
        (["A", "B", "A"], 3, "“X” is likelier for this user, because this user has watched “A” and “B”."),
        ([], 3, "Of 3 items of the history that were tried none makes “X” likelier for this user."),
        ([], 0, "What speaks for “X” was not tried out."),
    ],
)
def test_an_item_without_reasons_is_told_as_that(cited: list[str], tried: int, text: str) -> None:
    assert item_facts("X", MOVIE, cited, tried).text == text
