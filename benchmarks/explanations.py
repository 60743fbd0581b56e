"""Explanations over HTTP, a user at a time: how often the LLM's sentence stands, what it names, how long it takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np

from benchmarks.service import Served
from service.settings import Settings
from service.usecases.effects import Effect
from service.usecases.explain import CITED_ITEMS


def measure(bundle: Path, engine: str, dtype: str, user_ids: Sequence[str]) -> list[dict[str, Any]]:
    """One row about `user_ids` but the first, who is there to warm up.

    Titles are told to the LLM if the first genre is less probable without an item; others get the facts.
    """
    with TemporaryDirectory() as folder:
        redis = Path(folder) / "redis"
        served = Served(
            Settings(_env_file=None, bundle=bundle, engine=engine, dtype=dtype, redis_dir=redis, log_level="error")
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{served.port}", timeout=60) as client:
                _ask(client, user_ids[0])
                records = [_ask(client, user_id) for user_id in user_ids[1:]]
        finally:
            served.close()
    told = [record for record in records if record["told"]]
    written = [record for record in told if record["by_llm"]]
    if not written:
        raise SystemExit(f"the LLM wrote for none of {len(told)} users whose history has their favourite genre")
    p50, p99 = np.percentile([record["seconds"] for record in told], [50, 99]) * 1e3
    return [
        {
            "engine": engine,
            "dtype": dtype,
            "users": len(records),
            "users told titles": len(told),
            "sentence by the LLM": round(len(written) / len(told), 3),
            "titles told, mean": round(float(np.mean([record["told"] for record in written])), 2),
            "titles quoted, mean": round(float(np.mean([record["quoted"] for record in written])), 2),
            "p50_ms": round(float(p50), 1),
            "p99_ms": round(float(p99), 1),
        }
    ]


def _ask(client: httpx.Client, user_id: str) -> dict[str, Any]:
    started = time.perf_counter()
    answer = client.get("/explain/genre", params={"user_id": user_id}).raise_for_status().json()
    genres = answer["genres"]
    effects = [item["effect"] for item in genres[0]["evidence"] if item["effect"]] if genres else []
    reasons = [effect for effect in effects if Effect(**effect).is_reason]
    return {
        "seconds": time.perf_counter() - started,
        "by_llm": answer["sentence_source"] == "llm",
        "told": min(len(reasons), CITED_ITEMS),
        "quoted": answer["sentence"].count('"') // 2,
    }
