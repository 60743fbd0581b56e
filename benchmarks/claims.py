"""Whether explanations tell the truth: what a sentence names is taken out of the history, and the service asked anew.

The probabilities come from another service on the same bundle, which explains nothing. Genres are asked of a new user
who did all of it, and of one who did all but the item named; items by `POST /recommend` with the same two histories.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np

from benchmarks.service import Served
from models.prompts.titles import as_told
from service.settings import Settings

QUOTED = re.compile('"([^"]+)"|\N{LEFT DOUBLE QUOTATION MARK}([^\N{RIGHT DOUBLE QUOTATION MARK}]+)')
MOST_GENRES = 30
ATTEMPTS = 5


def measure(settings: Settings, user_ids: Sequence[str]) -> list[dict[str, Any]]:
    """A row about favourite genres of `user_ids`, if the catalogue has any, and one about each one's first item."""
    with _client(settings) as asked, _client(settings.model_copy(update={"explain_tries": 0})) as checking:
        found: dict[str, list[dict[str, Any]]] = {"genre": [], "item": []}
        for user_id in user_ids:
            history = _history(asked, user_id)
            found["genre"] += _genre(asked, checking, user_id, history)
            found["item"].append(_item(asked, checking, user_id, history))
    return [_row(about, records) for about, records in found.items() if records]


@contextmanager
def _client(settings: Settings) -> Iterator[httpx.Client]:
    with TemporaryDirectory() as folder:
        served = Served(settings.model_copy(update={"redis_dir": Path(folder) / "redis"}))
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{served.port}", timeout=600) as client:
                yield client
        finally:
            served.close()


def _genre(asked: httpx.Client, checking: httpx.Client, user_id: str, history: Sequence[str]) -> list[dict[str, Any]]:
    answer = _get(asked, "/explain/genre", user_id=user_id)
    if not answer["genres"]:
        return []
    first = answer["genres"][0]

    def probability(items: Sequence[str], name: str) -> float:
        events = [{"user_id": name, "item_id": item} for item in items]
        checking.post("/feedback", json={"events": events}).raise_for_status()
        genres = _get(checking, "/explain/genre", user_id=name, top_k=MOST_GENRES)["genres"]
        return next(float(genre["probability"]) for genre in genres if genre["genre"] == first["genre"])

    claimed = _claimed(answer["sentence"], first["evidence"])
    before = probability(history, f"{user_id} again") if claimed else 0.0
    after = [
        probability(_less(history, item), f"{user_id} without {item['item_id']}") if len(history) > 1 else 0.0
        for item in claimed
    ]
    return [_record(answer, first["probability"], before, claimed, after)]


def _item(asked: httpx.Client, checking: httpx.Client, user_id: str, history: Sequence[str]) -> dict[str, Any]:
    listed = _post(asked, {"user_id": user_id, "num_results": 1})
    answer = _get(asked, "/explain/item", user_id=user_id, item_id=listed["items"][0]["item_id"])

    def probability(items: Sequence[str]) -> float:
        body = {"history": [{"item_id": item} for item in items], "candidates": answer["among"]}
        ranked = _ranked_by(answer["ranker"], checking, body)["items"]
        return next(float(item["score"]) for item in ranked if item["item_id"] == answer["item"]["item_id"])

    claimed = _claimed(answer["sentence"], answer["evidence"])
    before = probability(history) if claimed else 0.0
    after = [probability(_less(history, item)) for item in claimed]
    return _record(answer, answer["probability"], before, claimed, after)


def _record(
    answer: dict[str, Any], told: float, before: float, claimed: Sequence[dict[str, Any]], after: Sequence[float]
) -> dict[str, Any]:
    """What became of the claims of one answer."""
    effects = [item["effect"]["probability"] for item in claimed]
    return {
        "ranker": answer["ranker"],
        "by_llm": answer["sentence_source"] == "llm",
        "falls": [(before - found) / before for found in after],
        "off": [abs(said - found) for said, found in zip([told, *effects], [before, *after], strict=True)]
        if claimed
        else [],
    }


def _row(about: str, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    falls = [fall for record in records for fall in record["falls"]]
    off = [each for record in records for each in record["off"]]
    return {
        "about": about,
        "users": len(records),
        "ranked by the LLM": sum(record["ranker"] == "llm" for record in records),
        "sentences with claims": sum(bool(record["falls"]) for record in records),
        "written by the LLM": sum(record["by_llm"] for record in records),
        "claims": len(falls),
        "claims that hold": sum(fall > 0 for fall in falls),
        "share": round(float(np.mean([fall > 0 for fall in falls])), 3) if falls else None,
        "fall, median": round(float(np.median(falls)), 3) if falls else None,
        "off, at most": round(max(off), 6) if off else None,
    }


def _claimed(sentence: str, evidence: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items of the evidence that the sentence names, by titles as prompts have them."""
    named = {written or told for written, told in QUOTED.findall(sentence)}
    return [item for item in evidence if item["title"] in named or as_told(item["title"]) in named]


def _history(client: httpx.Client, user_id: str) -> list[str]:
    """Item ids, oldest first."""
    shown = client.get(f"/users/{user_id}").raise_for_status().json()["history"]
    return [item["item_id"] for item in reversed(shown)]


def _less(history: Sequence[str], item: dict[str, Any]) -> list[str]:
    return [item_id for item_id in history if item_id != item["item_id"]]


def _get(client: httpx.Client, path: str, **query: Any) -> dict[str, Any]:
    answer: dict[str, Any] = client.get(path, params=query).raise_for_status().json()
    return answer


def _ranked_by(ranker: str, client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    """What that ranker answers: an LLM that is slow beside other work is given up for the blend, and asked again."""
    for _ in range(ATTEMPTS):
        answer = _post(client, body)
        if answer["ranker"] == ranker:
            return answer
    raise RuntimeError(f"the checking service ranked by '{answer['ranker']}' {ATTEMPTS} times, not by '{ranker}'")


def _post(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    patient = {**body, "timeout_ms": 60_000}
    answer: dict[str, Any] = client.post("/recommend", json=patient).raise_for_status().json()
    return answer
