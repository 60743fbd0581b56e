"""An answer comes whatever happens to the LLM, and says what happened."""

from __future__ import annotations

import asyncio
import json
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from models.errors import ConfigError, EngineError
from service.app import create_app
from tests.service.world import FakeEngine, World, broken, overloaded, serving

pytestmark = pytest.mark.anyio

AN_HOUR = 3600.0


async def ask(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post("/recommend", json={"user_id": "u0", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def value(client: httpx.AsyncClient, series: str) -> float:
    lines = (await client.get("/metrics")).text.splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(series + " "))


def assert_cf(answer: dict[str, Any], reason: str) -> None:
    assert (answer["ranker"], answer["fallback"]) == ("blend", reason)
    assert {item["ranker"] for item in answer["items"]} == {"blend"}
    assert len(answer["items"]) == 10
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)


async def test_a_late_llm_is_not_waited_for(faked: httpx.AsyncClient, engine: FakeEngine) -> None:
    """An LLM that takes an hour: the blend comes within the timeout, and the LLM's work is given up."""
    engine.seconds = AN_HOUR
    assert_cf(await ask(faked, timeout_ms=1000), "timeout")
    assert engine.cancelled == 1
    assert await value(faked, 'allmrec_fallbacks_total{reason="timeout",route="/recommend"}') == 1


async def test_a_timeout_shorter_than_any_llm_still_gives_the_cf_ranking(
    faked: httpx.AsyncClient, engine: FakeEngine
) -> None:
    await ask(faked)
    calls = engine.calls
    assert_cf(await ask(faked, timeout_ms=1), "timeout")
    assert engine.calls == calls


async def test_a_broken_llm_gives_the_cf_ranking(faked: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.failure = broken()
    assert_cf(await ask(faked), "llm_error")
    assert await value(faked, 'allmrec_fallbacks_total{reason="llm_error",route="/recommend"}') == 1


async def test_even_a_mistake_inside_an_engine_is_no_500(faked: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.failure = ZeroDivisionError()
    assert_cf(await ask(faked), "llm_error")


async def test_a_full_llm_gives_the_cf_ranking(faked: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.failure = overloaded()
    assert_cf(await ask(faked), "overload")
    assert await value(faked, 'allmrec_shed_total{reason="llm_queue"}') == 1


async def test_a_dead_llm_is_not_asked_and_readiness_says_so(faked: httpx.AsyncClient, engine: FakeEngine) -> None:
    calls = engine.calls
    engine.healthy = False
    assert_cf(await ask(faked), "llm_error")
    assert engine.calls == calls
    ready = await faked.get("/health/ready")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "llm": "down"})
    assert (await faked.get("/health/live")).status_code == 200
    engine.healthy = True
    assert (await faked.get("/health/ready")).json() == {"status": "ready", "llm": "up"}


async def test_more_requests_than_the_llm_may_have_are_shed(world: World, engine: FakeEngine, tmp_path: Path) -> None:
    """Two may be at the LLM; of five at once the other three get the blend while it is still thinking."""
    async with serving(world.settings_for(tmp_path, max_inflight=2), engine) as (client, _):
        await ask(client)
        engine.seconds = AN_HOUR
        waiting = [asyncio.create_task(ask(client, timeout_ms=5000)) for _ in range(2)]
        while engine.calls < 5:  # warming up twice, the first request, and these two
            await asyncio.sleep(0.005)
        for answer in await asyncio.gather(*(ask(client) for _ in range(3))):
            assert_cf(answer, "overload")
        assert await value(client, 'allmrec_shed_total{reason="llm_inflight"}') == 3
        for answer in await asyncio.gather(*waiting):
            assert_cf(answer, "timeout")


async def test_requests_beyond_the_hard_limit_are_refused_but_probes_are_not(
    world: World, engine: FakeEngine, tmp_path: Path
) -> None:
    async with serving(world.settings_for(tmp_path, max_requests=1), engine) as (client, _):
        calls, engine.seconds = engine.calls, AN_HOUR
        waiting = asyncio.create_task(ask(client, timeout_ms=5000))
        while engine.calls == calls:
            await asyncio.sleep(0.005)
        refused = await client.post("/recommend", json={"user_id": "u0"})
        assert refused.status_code == 503
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers["retry-after"] == "1"
        assert (await client.get("/health/live")).status_code == 200
        assert await value(client, 'allmrec_shed_total{reason="requests"}') == 1
        assert (await waiting)["fallback"] == "timeout"
        assert (await client.post("/recommend", json={"user_id": "u0", "timeout_ms": 1})).status_code == 200


async def test_a_window_too_large_for_the_llm_is_refused_at_the_start(
    world: World, engine: FakeEngine, tmp_path: Path
) -> None:
    engine.context_length = 150
    with pytest.raises(ConfigError, match="ALLMREC_WINDOW"):
        async with serving(world.settings_for(tmp_path), engine):
            pass


async def leave(app: FastAPI, method: str, path: str, query: str, body: bytes, gone: asyncio.Event) -> list[Any]:
    """Send a request, and go away once `gone` is set. The messages that came back."""
    sent: list[Any] = []
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        if b"event: token" in message.get("body", b""):
            gone.set()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("test", 80),
    }
    await app(scope, receive, send)
    return sent


async def test_a_client_that_leaves_frees_the_llm(world: World, engine: FakeEngine, tmp_path: Path) -> None:
    async with serving(world.settings_for(tmp_path), engine) as (client, app):
        calls, engine.seconds = engine.calls, AN_HOUR
        gone = asyncio.Event()
        asking = asyncio.create_task(leave(app, "POST", "/recommend", "", b'{"user_id": "u0"}', gone))
        while engine.calls == calls:
            await asyncio.sleep(0.005)
        gone.set()
        await asking
        assert engine.cancelled == 1
        assert await value(client, 'allmrec_http_requests_total{code="499",route="/recommend"}') == 1


async def test_a_client_that_leaves_a_stream_frees_the_llm(world: World, engine: FakeEngine, tmp_path: Path) -> None:
    async with serving(world.settings_for(tmp_path), engine) as (_, app):
        engine.texts = cycle([[" word"] * 1000])
        engine.seconds = 0.001
        sent = await leave(app, "GET", "/explain/genre", "user_id=u0&stream=true", b"", asyncio.Event())
        text = b"".join(message.get("body", b"") for message in sent).decode()
        assert "event: genres" in text
        assert 1 <= text.count("event: token") < 1000
        assert "event: done" not in text
        calls = engine.calls
        await asyncio.sleep(0.05)
        assert engine.calls == calls


async def test_an_llm_of_another_bundle_is_refused_at_the_start(
    world: World, engine: FakeEngine, tmp_path: Path
) -> None:
    engine.fingerprint = "0" * 64
    with pytest.raises(Exception, match="aligned with LLM"):
        async with serving(world.settings_for(tmp_path), engine):
            pass


async def test_an_llm_that_reads_otherwise_than_the_bundle_was_made_is_refused_at_the_start(
    world: World, engine: FakeEngine, tmp_path: Path
) -> None:
    """The same weights beside a tokenizer whose numbers have changed places."""
    swapped = json.loads(engine.tokenizer.backend_tokenizer.to_str())
    vocabulary = swapped["model"]["vocab"]
    words = [word for word in vocabulary if not word.startswith("<")]
    numbers = [vocabulary[word] for word in words]
    vocabulary.update(zip(words, numbers[7:] + numbers[:7], strict=True))
    engine.tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(swapped)), **engine.tokenizer.special_tokens_map
    )
    with pytest.raises(Exception, match="has another tokenizer than the one the bundle was made with"):
        async with serving(world.settings_for(tmp_path), engine):
            pass


async def test_until_the_llm_is_loaded_the_service_says_so(world: World, engine: FakeEngine, tmp_path: Path) -> None:
    """It listens at once: alive, not ready, and what needs a bundle is asked to come back."""
    loaded = asyncio.Event()

    class Slow(FakeEngine):
        async def start(self) -> None:
            await loaded.wait()

    slow = Slow(str(world.llm), engine.fingerprint)
    app = create_app(world.settings_for(tmp_path), engine_factory=lambda _settings, _llm: slow)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        assert (await client.get("/health/live")).status_code == 200
        assert (await client.get("/health/ready")).status_code == 503
        early = await client.post("/recommend", json={"user_id": "u0"})
        assert (early.status_code, early.json()["title"]) == (503, "Starting")
        assert early.headers["retry-after"]
        loaded.set()
        await app.state.starting
        assert (await client.get("/health/ready")).status_code == 200
        assert (await client.post("/recommend", json={"user_id": "u0"})).status_code == 200


async def test_an_engine_that_does_not_start_is_reported(world: World, engine: FakeEngine, tmp_path: Path) -> None:
    class Dead(FakeEngine):
        async def start(self) -> None:
            raise EngineError("no memory left")

    with pytest.raises(EngineError, match="no memory left"):
        async with serving(world.settings_for(tmp_path), Dead(str(world.llm), engine.fingerprint)):
            pass
