"""The service with the embedded OPT on a real vLLM engine, and the same service on the transformers engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from models.bundle.manifest import LLMRecord, Origin
from models.bundle.store import write_bundle
from models.domain import DOMAINS
from models.llm.loading import EMBEDDED, load_llm
from models.prompts.template import PromptConfig
from tests.service.world import World, make_contents, serving
from tests.tiny import tiny_blends

pytest.importorskip("vllm", reason="vLLM is not installed: `make test` installs it")
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]

CANDIDATES = [f"i{number}" for number in range(3, 23)]


@pytest.fixture(scope="module")
def embedded_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The tiny world's items and users, in a bundle for the embedded OPT."""
    home = tmp_path_factory.mktemp("embedded") / "bundles"
    llm = load_llm(EMBEDDED)
    contents = make_contents(llm.token_size)
    write_bundle(
        home,
        contents,
        Origin(
            name="embedded",
            prompt=PromptConfig(domain=DOMAINS["movie"]),
            llm=LLMRecord(name=EMBEDDED, fingerprint=llm.fingerprint),
            text_encoder="none",
            blends=tiny_blends(),
            metrics={},
        ),
        lambda folder: folder.mkdir(),
    )
    return World(home, Path(EMBEDDED))


@pytest.fixture(scope="module")
async def on_vllm(embedded_world: World, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    settings = embedded_world.settings_for(
        tmp_path_factory.mktemp("vllm"),
        llm=None,
        engine="vllm",
        engine_process=True,
        dtype="float32",
        explain_timeout_ms=20_000,
        engine_options={"restart_seconds": 600, "max_restart_seconds": 600},
    )
    async with serving(settings) as (client, _):
        yield client


@pytest.fixture(scope="module")
async def on_transformers(
    embedded_world: World, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[httpx.AsyncClient]:
    settings = embedded_world.settings_for(tmp_path_factory.mktemp("transformers"), llm=None, explain_timeout_ms=20_000)
    async with serving(settings) as (client, _):
        yield client


def kill_engine() -> None:
    """vLLM's own process is the largest of those that this one started: its child's child."""
    descendants = psutil.Process().children(recursive=True)
    python = [process for process in descendants if process.name() not in ("sh", "valkey-server")]
    max(python, key=lambda process: process.memory_info().rss).kill()


def question(user_id: str) -> dict[str, Any]:
    return {"user_id": user_id, "candidates": CANDIDATES, "num_results": 20, "timeout_ms": 20_000}


def scores(answer: dict[str, Any]) -> dict[str, float]:
    return {item["item_id"]: item["score"] for item in answer["items"]}


async def test_both_engines_give_the_same_answers(on_vllm: httpx.AsyncClient, on_transformers: httpx.AsyncClient):
    """Ten users at once: every item's probability is the same, and each list sums to one."""
    asked = [question(f"u{number}") for number in range(10)]
    answers = [
        await asyncio.gather(*(client.post("/recommend", json=body) for body in asked))
        for client in (on_vllm, on_transformers)
    ]
    for ours, theirs in zip(*answers, strict=True):
        assert (ours.json()["ranker"], ours.json()["fallback"]) == ("llm", None)
        assert scores(ours.json()) == pytest.approx(scores(theirs.json()), abs=1e-3)
        assert sum(scores(ours.json()).values()) == pytest.approx(1.0)


async def test_neither_company_nor_caches_nor_the_order_of_candidates_change_a_score(
    on_vllm: httpx.AsyncClient, on_transformers: httpx.AsyncClient
):
    """Users one by one, then at once among explanations, with their candidates in another order."""
    asked = [question(f"u{number}") for number in range(6)]
    shuffled = [
        {**body, "candidates": CANDIDATES[place:][::-1] + CANDIDATES[:place]} for place, body in enumerate(asked)
    ]
    for client in (on_vllm, on_transformers):
        alone = [scores((await client.post("/recommend", json=body)).json()) for body in asked]
        explained = [client.get("/explain/genre", params={"user_id": body["user_id"]}) for body in asked]
        answers = await asyncio.gather(*(client.post("/recommend", json=body) for body in shuffled * 2), *explained)
        for place, answer in enumerate(answers[: 2 * len(asked)]):
            assert answer.json()["fallback"] is None
            assert scores(answer.json()) == pytest.approx(alone[place % len(asked)], abs=1e-4)


async def test_both_engines_explain_alike(on_vllm: httpx.AsyncClient, on_transformers: httpx.AsyncClient):
    """Favourite genres and the sentence, in one piece and as a stream."""
    query = {"user_id": "u0", "top_k": 3}
    ours, theirs = [(await client.get("/explain/genre", params=query)).json() for client in (on_vllm, on_transformers)]
    for genre, same in zip(ours["genres"], theirs["genres"], strict=True):
        assert genre["genre"] == same["genre"]
        assert genre["probability"] == pytest.approx(same["probability"], abs=1e-3)
    assert (ours["sentence"], ours["sentence_source"]) == (theirs["sentence"], theirs["sentence_source"])
    streamed = await on_vllm.get("/explain/genre", params={**query, "stream": True})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert streamed.text.startswith("event: genres\n")
    assert "event: done\n" in streamed.text


async def test_the_metrics_of_vllm_stand_beside_ours(on_vllm: httpx.AsyncClient):
    metrics = (await on_vllm.get("/metrics")).text
    assert "\nvllm:prefix_cache_hits_total{" in metrics
    assert "\nallmrec_candidates_scored_total " in metrics


async def test_without_its_engine_the_service_answers_by_cf(on_vllm: httpx.AsyncClient):
    """Killed while ten requests are on their way: all are answered, readiness says so, CF ranks what comes after."""
    assert (await on_vllm.get("/health/ready")).status_code == 200
    asks = [asyncio.create_task(on_vllm.post("/recommend", json=question(f"u{number}"))) for number in range(10)]
    await asyncio.sleep(0.02)
    kill_engine()
    answers = await asyncio.gather(*asks)
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["fallback"] for answer in answers} <= {None, "llm_error"}

    after = (await on_vllm.post("/recommend", json=question("u1"))).json()
    assert (after["ranker"], after["fallback"], len(after["items"])) == ("blend", "llm_error", 20)
    assert (await on_vllm.get("/health/ready")).json() == {"status": "ready", "llm": "down"}
    assert (await on_vllm.get("/health/live")).status_code == 200
