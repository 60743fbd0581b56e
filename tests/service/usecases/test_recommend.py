"""POST /recommend on the tiny world with its real engine."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from models.bundle.store import Bundle, load_bundle
from models.recommending.person import persons
from models.recommending.shortlist import ListRanker
from tests.service.world import LONG_USER, WARM, World

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def bundle(world: World) -> Bundle:
    return load_bundle(world.bundle)


async def ask(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post("/recommend", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def seen_by(bundle: Bundle, user_id: str) -> set[str]:
    return {bundle.model.catalogue.item_ids[item] for item in bundle.model.histories.of(user_id)}


async def test_a_known_user_gets_ten_unseen_items_ranked_by_the_llm(client: httpx.AsyncClient, bundle: Bundle) -> None:
    answer = await ask(client, user_id="u0")
    assert answer["ranker"] == "llm"
    assert answer["fallback"] is None
    assert len(ids(answer)) == len(set(ids(answer))) == 10
    assert not set(ids(answer)) & seen_by(bundle, "u0")
    assert [item["rank"] for item in answer["items"]] == list(range(1, 11))
    assert {item["ranker"] for item in answer["items"]} == {"llm"}
    assert answer["bundle_version"] == bundle.version
    assert answer["variant"] == "control"
    assert answer["recommendation_id"]


async def test_the_same_question_gets_the_same_ranking(client: httpx.AsyncClient) -> None:
    first, second = await ask(client, user_id="u1"), await ask(client, user_id="u1")
    assert first["items"] == second["items"]
    assert first["recommendation_id"] != second["recommendation_id"]


async def test_an_unknown_user_gets_what_is_popular(client: httpx.AsyncClient, bundle: Bundle) -> None:
    answer = await ask(client, user_id="nobody", num_results=5)
    counts = bundle.model.catalogue.interactions
    best = np.argsort(-counts[1:], kind="stable")[:5] + 1
    assert ids(answer) == [f"i{number}" for number in best]
    assert (answer["ranker"], answer["fallback"]) == ("popularity", "cold_user")
    assert {item["ranker"] for item in answer["items"]} == {"popularity"}


async def test_an_empty_history_is_a_cold_user(client: httpx.AsyncClient) -> None:
    assert (await ask(client, history=[]))["fallback"] == "cold_user"


async def test_a_history_alone_is_enough(client: httpx.AsyncClient) -> None:
    answer = await ask(client, history=[{"item_id": "i1"}, {"item_id": "i2"}])
    assert (answer["ranker"], answer["fallback"]) == ("llm", None)
    assert not {"i1", "i2"} & set(ids(answer))


async def test_an_unknown_user_with_a_history_is_answered_from_it(client: httpx.AsyncClient) -> None:
    sent = [{"item_id": "i1"}, {"item_id": "i2"}]
    with_id = await ask(client, user_id="nobody", history=sent)
    assert with_id["items"] == (await ask(client, history=sent))["items"]


async def test_sent_history_follows_the_stored_one(client: httpx.AsyncClient, bundle: Bundle) -> None:
    """A known user with one more item is answered as an anonymous one whose history is all of it."""
    stored = [f"i{item}" for item in bundle.model.histories.of("u0")]
    whole = [{"item_id": item_id} for item_id in [*stored, "i29"]]
    appended = await ask(client, user_id="u0", history=[{"item_id": "i29"}])
    assert appended["items"] == (await ask(client, history=whole))["items"]
    assert appended["items"] != (await ask(client, user_id="u0"))["items"]


async def test_sent_history_is_put_in_order_of_time(client: httpx.AsyncClient) -> None:
    timed = [
        {"item_id": "i3", "timestamp": "2026-03-01T00:00:00+02:00"},
        {"item_id": "i1", "timestamp": "2026-01-01"},
        {"item_id": "i2", "timestamp": "2026-02-01T00:00:00"},
    ]
    ordered = [{"item_id": item_id} for item_id in ("i1", "i2", "i3")]
    assert (await ask(client, history=timed))["items"] == (await ask(client, history=ordered))["items"]


async def test_unknown_items_are_reported_once_and_in_order(client: httpx.AsyncClient) -> None:
    answer = await ask(client, candidates=["i1", "x1", "x2", "x1"], history=[{"item_id": "x3"}, {"item_id": "i2"}])
    assert answer["missing_item_ids"] == ["x1", "x2", "x3"]
    assert ids(answer) == ["i1"]


async def test_candidates_are_ranked_and_nothing_else_is(client: httpx.AsyncClient, bundle: Bundle) -> None:
    """Given candidates are taken as they are, seen ones too, each once."""
    seen = sorted(seen_by(bundle, "u0"))[0]
    answer = await ask(client, user_id="u0", candidates=["i29", seen, "i30", "i29"])
    assert sorted(ids(answer)) == sorted(["i29", seen, "i30"])
    assert sum(item["score"] for item in answer["items"]) == pytest.approx(1)


async def test_no_candidates_give_an_empty_answer(client: httpx.AsyncClient) -> None:
    answer = await ask(client, user_id="u0", candidates=[])
    assert (answer["items"], answer["ranker"], answer["fallback"]) == ([], None, None)


async def test_only_unknown_candidates_give_an_empty_answer(client: httpx.AsyncClient) -> None:
    answer = await ask(client, user_id="u0", candidates=["x1"])
    assert (answer["items"], answer["missing_item_ids"]) == ([], ["x1"])


async def test_one_candidate_is_certain(client: httpx.AsyncClient) -> None:
    answer = await ask(client, user_id="u0", candidates=["i7"])
    assert [(item["item_id"], item["score"]) for item in answer["items"]] == [("i7", 1.0)]


async def test_two_hundred_candidates_are_ranked_whole(client: httpx.AsyncClient, bundle: Bundle) -> None:
    """Known among 200: 30. The blend with the LLM ranks the best 20 of that without it, whose order the others keep."""
    candidates = [f"i{number}" for number in range(1, 201)]
    answer = await ask(client, user_id="u0", candidates=candidates, num_results=200)
    assert len(answer["missing_item_ids"]) == 170
    assert [item["ranker"] for item in answer["items"]] == ["llm"] * 20 + ["blend"] * 10
    history = bundle.model.histories.of("u0")
    person = persons(bundle.model, [history])[0]
    ranker = ListRanker(bundle.model, bundle.manifest.blends)
    by_blend = [f"i{item}" for item in ranker.shortlist(person, np.arange(1, 31)).items]
    assert set(ids(answer)[:20]) == set(by_blend[:20])
    assert ids(answer)[20:] == by_blend[20:]
    scores = [item["score"] for item in answer["items"]]
    assert sum(scores) == pytest.approx(1)
    assert scores == sorted(scores, reverse=True)


async def test_too_many_candidates_are_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/recommend", json={"user_id": "u0", "candidates": ["i1"] * 1001})
    assert answer.status_code == 422
    assert "at most 1000" in answer.json()["detail"]


async def test_categories_filter_what_is_retrieved_and_what_is_given(client: httpx.AsyncClient, bundle: Bundle) -> None:
    drama = {f"i{item}" for item in bundle.model.catalogue.category_items["Drama"]}
    only = {"categories": ["Drama"]}
    retrieved = await ask(client, user_id="u0", filter=only, num_results=30)
    assert set(ids(retrieved)) == drama - seen_by(bundle, "u0")
    given = await ask(client, user_id="u0", filter=only, candidates=["i1", "i2", "i3"])
    assert ids(given) == ["i1"]
    cold = await ask(client, user_id="nobody", filter=only, num_results=30)
    assert set(ids(cold)) == drama


async def test_an_unknown_category_matches_nothing(client: httpx.AsyncClient) -> None:
    answer = await ask(client, user_id="u0", filter={"categories": ["Opera"]})
    assert (answer["items"], answer["ranker"]) == ([], None)


async def test_excluded_items_are_not_recommended(client: httpx.AsyncClient) -> None:
    first = ids(await ask(client, user_id="u0"))
    answer = await ask(client, user_id="u0", filter={"exclude_item_ids": first[:3]})
    assert not set(first[:3]) & set(ids(answer))


async def test_seen_items_can_be_asked_for_and_can_be_dropped_from_candidates(
    client: httpx.AsyncClient, bundle: Bundle
) -> None:
    seen = seen_by(bundle, "u0")
    everything = await ask(client, user_id="u0", filter={"exclude_seen": False}, num_results=30)
    assert seen <= set(ids(everything))
    dropped = await ask(client, user_id="u0", candidates=[*seen, "i30"], filter={"exclude_seen": True})
    assert ids(dropped) == ["i30"]


@pytest.mark.parametrize("timeout_ms", [20_000, 1])
async def test_what_was_met_long_ago_does_not_come_back(
    client: httpx.AsyncClient, bundle: Bundle, timeout_ms: int
) -> None:
    """In training before the kept history, in it, and by feedback."""
    await client.post("/feedback", json={"events": [{"user_id": LONG_USER, "item_id": "i28"}]})
    met = {f"i{item}" for item in bundle.model.seen(LONG_USER)} | {"i28"}
    assert {"i25", "i26", "i27"} <= met
    answer = await ask(client, user_id=LONG_USER, num_results=30, timeout_ms=timeout_ms)
    assert sorted(ids(answer)) == sorted({f"i{number}" for number in range(1, 31)} - met)
    ranked = await ask(client, user_id=LONG_USER, candidates=["i25", "i28", "i30"], filter={"exclude_seen": True})
    assert ids(ranked) == ["i30"]


async def test_times_of_the_future_are_refused(client: httpx.AsyncClient) -> None:
    history = [{"item_id": "i1"}, {"item_id": "i2", "timestamp": "2999-01-01T00:00:00Z"}]
    answer = await client.post("/recommend", json={"history": history})
    assert answer.status_code == 422
    assert "history.1.timestamp" in answer.json()["detail"]


async def test_cold_items_can_be_retrieved(client: httpx.AsyncClient) -> None:
    answer = await ask(client, user_id="u0", num_results=30)
    assert {f"i{number}" for number in range(WARM + 1, 31)} <= set(ids(answer))


async def test_metadata_is_what_was_asked_for(client: httpx.AsyncClient, bundle: Bundle) -> None:
    fields = ["title", "description", "categories", "interactions"]
    answer = await ask(client, user_id="u0", candidates=["i1"], return_metadata=fields)
    assert answer["items"][0]["metadata"] == {
        "title": "red silent",
        "description": "About red silent.",
        "categories": ["Drama"],
        "interactions": int(bundle.model.catalogue.interactions[1]),
    }
    assert (await ask(client, user_id="u0", candidates=["i1"]))["items"][0]["metadata"] == {}


async def test_num_results_limits_a_ranking_whose_scores_are_over_all_of_it(client: httpx.AsyncClient) -> None:
    whole = await ask(client, user_id="u0", candidates=["i1", "i2", "i3"])
    part = await ask(client, user_id="u0", candidates=["i1", "i2", "i3"], num_results=2)
    assert part["items"] == whole["items"][:2]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "user_id or history"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": 7}, "user_id"),
        ({"user_id": "u0", "num_results": 0}, "num_results"),
        ({"user_id": "u0", "num_results": 1001}, "num_results"),
        ({"user_id": "u0", "timeout_ms": 0}, "timeout_ms"),
        ({"user_id": "u0", "return_metadata": ["price"]}, "return_metadata.0"),
        ({"user_id": "u0", "history": [{"timestamp": "2026-01-01"}]}, "history.0.item_id"),
        ({"user_id": "u0", "history": [{"item_id": "i1", "timestamp": "yesterday"}]}, "history.0.timestamp"),
        ({"user_id": "u0", "candidate": ["i1"]}, "candidate"),
    ],
)
async def test_what_is_wrong_with_a_request_is_named(
    client: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    answer = await client.post("/recommend", json=body)
    assert answer.status_code == 422
    assert field in answer.json()["detail"]
