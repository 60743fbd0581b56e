"""What holds for every request: problems, limits, ids, keys, metrics, the page."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.service.world import FakeEngine, World, serving

pytestmark = pytest.mark.anyio

KEY = "s3cret-ключ"


def assert_problem(answer: httpx.Response, status: int) -> dict[str, object]:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    content = answer.json()
    assert content["status"] == status
    assert content["title"]
    assert content["detail"]
    assert content["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    return content


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b'{"user_id": "u0"',
        b'{"user_id": "\\ud800"}',
        b'{"\\ud800": 1}',
        b'{"user_id": "u0", "num_results": 1e400}',
        b'{"user_id": "u0", "num_results": NaN}',
        b'{"user_id": "u0", "num_results": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
    ],
)
async def test_a_broken_body_is_a_problem(client: httpx.AsyncClient, body: bytes) -> None:
    answer = await client.post("/recommend", content=body, headers={"content-type": "application/json"})
    assert_problem(answer, 422)


async def test_a_body_that_is_not_declared_json_is_told_what_to_do(client: httpx.AsyncClient) -> None:
    answer = await client.post("/recommend", content=b'{"user_id": "u0"}', headers={"content-type": "text/plain"})
    assert "application/json" in str(assert_problem(answer, 422)["detail"])


async def test_a_large_body_is_refused_before_it_is_read(client: httpx.AsyncClient) -> None:
    """Ten megabytes announced: not one piece is taken."""
    pieces_taken = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal pieces_taken
        for _ in range(10):
            pieces_taken += 1
            yield b" " * 1_000_000

    headers = {"content-type": "application/json", "content-length": "10000000"}
    answer = await client.post("/recommend", content=pieces(), headers=headers)
    assert_problem(answer, 413)
    assert pieces_taken == 0


async def test_a_large_body_of_unknown_length_is_refused_when_it_grows_too_long(client: httpx.AsyncClient) -> None:
    """The limit is 1,048,576 bytes: the second of ten megabytes is one too many."""
    pieces_taken = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal pieces_taken
        for _ in range(10):
            pieces_taken += 1
            yield b" " * 1_000_000

    answer = await client.post("/recommend", content=pieces(), headers={"content-type": "application/json"})
    assert_problem(answer, 413)
    assert pieces_taken == 2


@pytest.mark.parametrize("user_id", ["a\nb", "a\n", "\n", "a/b", "a%2Fb", "\N{GRINNING FACE}", "{a}"])
async def test_whoever_is_told_about_can_be_looked_up(client: httpx.AsyncClient, user_id: str) -> None:
    events = [{"user_id": user_id, "item_id": "i1"}]
    assert (await client.post("/feedback", json={"events": events})).status_code == 202
    found = await client.get(f"/users/{quote(user_id, safe='')}")
    assert (found.status_code, found.json().get("user_id")) == (200, user_id)


@pytest.mark.parametrize(
    ("written", "status"),
    [
        ("2020-01-02T03:04:05+00", 202),
        ("2020-01-02 03:04:05.5-08", 202),
        ("2020-01-02T03:04:05+0100", 202),
        ("2020-01-02", 202),
        ("2020-01-02_03:04:05", 422),
        ("2020-01-02T03:04:60Z", 422),
        ("2020-01-02T24:00:00Z", 422),
        ("2020-01-02T03:04:05\N{MINUS SIGN}08:00", 422),
    ],
)
async def test_times_are_iso_8601(client: httpx.AsyncClient, written: str, status: int) -> None:
    events = [{"user_id": "timely", "item_id": "i1", "timestamp": written}]
    assert (await client.post("/feedback", json={"events": events})).status_code == status


async def test_times_of_a_history_count_if_all_have_one(client: httpx.AsyncClient) -> None:
    """An entry that the catalogue does not have is one of them."""

    async def scores(*history: dict[str, str]) -> list[dict[str, object]]:
        asked = {"history": list(history), "candidates": [f"i{number}" for number in range(5, 15)]}
        return list((await client.post("/recommend", json=asked)).json()["items"])

    late, early = ({"item_id": item, "timestamp": f"20{year}-01-01"} for item, year in (("i1", 20), ("i2", 10)))
    as_given, by_time = await scores({"item_id": "i1"}, {"item_id": "i2"}), await scores(early, late)
    assert as_given != by_time
    assert await scores(late, early) == by_time
    assert await scores(late, early, {"item_id": "nowhere"}) == as_given


async def test_unknown_paths_and_methods_are_problems(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get("/nowhere"), 404)
    wrong = await client.get("/recommend")
    assert_problem(wrong, 405)
    assert wrong.headers["allow"] == "OPTIONS, POST"


async def test_a_request_keeps_its_id_if_that_is_safe_to_log(client: httpx.AsyncClient) -> None:
    kept = await client.get("/health/live", headers={"x-request-id": "trace-1.a"})
    assert kept.headers["x-request-id"] == "trace-1.a"
    replaced = await client.get("/health/live", headers={"x-request-id": 'a" injected'})
    assert re.fullmatch(r"[0-9a-f]{32}", replaced.headers["x-request-id"])


async def test_with_a_key_set_only_its_holders_pass(world: World, engine: FakeEngine, tmp_path: Path) -> None:
    async with serving(world.settings_for(tmp_path, api_key=KEY), engine) as (client, _):
        for path in (
            "/users/u0",
            "/items/i1",
            "/about",
            "/explain/genre?user_id=u0",
            "/explain/item?user_id=u0&item_id=i1",
        ):
            refused = await client.get(path)
            assert_problem(refused, 401)
            assert refused.headers["www-authenticate"].startswith("Bearer")
            assert_problem(await client.get(path, headers={"X-API-Key": "wrong"}), 401)
            assert (await client.get(path, headers={"X-API-Key": KEY.encode()})).status_code == 200
        bearer = {"Authorization": f"Bearer {KEY}".encode()}
        assert (await client.get("/about", headers=bearer)).status_code == 200
        assert_problem(await client.post("/recommend", json={"user_id": "u0"}), 401)
        assert_problem(await client.post("/feedback", json={"events": []}), 401)
        for path in ("/metrics", "/", "/docs", "/openapi.json", "/nowhere"):
            assert_problem(await client.get(path), 401)
            assert (await client.get(path, headers=bearer)).status_code in (200, 404)
        for path in ("/health/live", "/health/ready"):
            assert (await client.get(path)).status_code == 200


async def test_no_key_reaches_the_log(
    world: World, engine: FakeEngine, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = world.settings_for(tmp_path, api_key=KEY, redis_url="redis://:pa55word@127.0.0.1:1", log_level="debug")
    async with serving(settings, engine) as (client, _):
        await client.get("/users/u0", headers={"X-API-Key": KEY.encode()})
        await client.get("/users/u0", headers={"X-API-Key": "wr0ng"})
    log = capfd.readouterr().err
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    requests = [line for line in lines if line["event"] == "request"]
    assert [line["code"] for line in requests] == [200, 401]
    assert all(line["request_id"] and line["duration_ms"] > 0 for line in requests)
    assert not any(secret in log for secret in (KEY, "wr0ng", "pa55word"))


async def test_a_mistake_of_ours_is_a_problem_without_its_trace(
    world: World, engine: FakeEngine, tmp_path: Path
) -> None:
    async with serving(world.settings_for(tmp_path), engine) as (client, app):
        app.state.runtime.services.deployments.take().catalogue.__dict__["_index"] = None
        assert_problem(await client.get("/items/i1"), 500)
        metrics = (await client.get("/metrics")).text
        assert 'allmrec_http_requests_total{code="500",route="/items/{item_id}"} 1.0' in metrics


async def test_metrics_have_the_names_and_labels_that_dashboards_rely_on(
    world: World, engine: FakeEngine, tmp_path: Path
) -> None:
    async with serving(world.settings_for(tmp_path), engine) as (client, app):
        await client.post("/recommend", json={"user_id": "u0"})
        genres = (await client.get("/explain/genre", params={"user_id": "u0"})).json()["genres"]
        await client.post("/feedback", json={"events": [{"user_id": "m", "item_id": "i1", "type": "click"}]})
        await client.get("/nowhere")
        answer = await client.get("/metrics")
        version = app.state.runtime.services.deployments.take().version
    families = list(text_string_to_metric_families(answer.text))
    samples = {sample.name: set(sample.labels) - {"le"} for family in families for sample in family.samples}
    labels = {name: keys for name, keys in samples.items() if name.startswith("allmrec_")}
    histogram = {"_bucket": {"route", "code"}, "_sum": {"route", "code"}, "_count": {"route", "code"}}
    assert labels == {
        "allmrec_http_requests_total": {"route", "code"},
        **{f"allmrec_http_request_duration_seconds{part}": keys for part, keys in histogram.items()},
        **{f"allmrec_stage_duration_seconds{part}": {"stage"} for part in histogram},
        "allmrec_candidates_scored_total": set(),
        "allmrec_fallbacks_total": {"route", "reason"},
        "allmrec_deadline_misses_total": {"route"},
        "allmrec_engine_healthy": set(),
        "allmrec_ready": set(),
        "allmrec_llm_queue_requests": set(),
        "allmrec_llm_queue_age_seconds": set(),
        **{f"allmrec_llm_batch_requests{part}": set() for part in histogram},
        **{f"allmrec_event_loop_lag_seconds{part}": set() for part in histogram},
        **{f"allmrec_store_duration_seconds{part}": {"operation"} for part in histogram},
        "allmrec_store_failures_total": {"operation", "reason"},
        "allmrec_feedback_failures_total": set(),
        "allmrec_shed_total": {"reason"},
        "allmrec_inflight_requests": set(),
        "allmrec_user_cache_requests_total": {"tier", "result"},
        "allmrec_feedback_events_total": {"type"},
        "allmrec_store_up": {"store"},
        "allmrec_index_items": set(),
        "allmrec_bundle_info": {"bundle_version", "variant"},
    }
    values = {
        (sample.name, *sorted(sample.labels.items())): sample.value for family in families for sample in family.samples
    }
    assert values["allmrec_bundle_info", ("bundle_version", version), ("variant", "control")] == 1
    assert values["allmrec_index_items",] == 30
    assert values["allmrec_inflight_requests",] == 1
    tried = sum(item["effect"] is not None for share in genres for item in share["evidence"])
    assert tried > 0
    assert values["allmrec_candidates_scored_total",] == 20 + 4 * (1 + tried)
    assert values["allmrec_feedback_events_total", ("type", "click")] == 1
    assert values["allmrec_http_requests_total", ("code", "404"), ("route", "unmatched")] == 1
    stages = ("user_representation", "retrieve", "prompt", "score", "explain")
    counts = {stage: values["allmrec_stage_duration_seconds_count", ("stage", stage)] for stage in stages}
    assert counts == {"user_representation": 2, "retrieve": 1, "prompt": 3, "score": 3, "explain": 1}
    assert "python_info" in samples


async def test_the_page_needs_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    page = await client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", page.text)
    assert not re.search(r"@import|url\(", page.text)


async def test_the_page_says_what_the_llm_is_worth(client: httpx.AsyncClient) -> None:
    """By the field that `/about` has for people."""
    page = (await client.get("/")).text
    assert 'id="worth"' in page
    assert 'at("worth").textContent = about.llm_in_words' in page


async def test_the_docs_describe_every_route(client: httpx.AsyncClient) -> None:
    assert (await client.get("/docs")).status_code == 200
    paths = set((await client.get("/openapi.json")).json()["paths"])
    assert paths >= {"/recommend", "/explain/genre", "/explain/item", "/feedback", "/health/live", "/health/ready"}
    assert paths >= {"/items/{item_id}", "/users/{user_id}"}
