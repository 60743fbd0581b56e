"""What answers may be: what the same question gets of a service that nothing befalls, and a history made by hand."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx

from models.bundle.catalogue_model import CatalogueModel
from models.bundle.store import load_bundle
from models.engines.base import LLMEngine
from service.settings import Settings
from tests.service.world import serving

TOLERANCE = 1e-3
"""What two engines, or two batches, may differ by in a probability."""
AT_ONCE = 2
"""Questions to a service that checks: more would be more than it admits beside other work."""
MOST_REFUSALS = 60
STATED = {"Overloaded", "User store unavailable", "Starting"}
"""The 503 that the API document knows."""


@dataclass(frozen=True)
class Kept:
    """An event that was acknowledged: when it happened, infinity if it was told without a time, and its number."""

    item_id: str
    moment: float
    arrival: int


@dataclass(frozen=True)
class Ask:
    """A question to `POST /recommend`, and what it means for the history."""

    body: dict[str, Any]
    sent: tuple[str, ...] = ()

    @property
    def drops_seen(self) -> bool:
        """Whether what the user met is left out."""
        wanted = self.body.get("filter", {}).get("exclude_seen")
        return bool(wanted) or (wanted is None and "candidates" not in self.body)

    @property
    def count(self) -> int | None:
        """How many items are asked for."""
        return self.body.get("num_results", None if "candidates" in self.body else 10)


def in_order(kept: Iterable[Kept]) -> tuple[str, ...]:
    """Items of events, oldest first, each at its latest place."""
    latest: dict[str, Kept] = {}
    for event in sorted(kept, key=lambda event: (event.moment, event.arrival)):
        latest.pop(event.item_id, None)
        latest[event.item_id] = event
    return tuple(latest)


def appended(earlier: Sequence[str], later: Sequence[str]) -> tuple[str, ...]:
    """One history after another, each item at its latest place."""
    return (*(item for item in earlier if item not in later), *later)


class Expected:
    """Answers without trouble, for a user and what the user did since training.

    Args:
        model: what the service has been given.
        by_llm: a client of a service that nothing befalls.
        by_blend: one that does without the LLM.
    """

    def __init__(self, model: CatalogueModel, by_llm: httpx.AsyncClient, by_blend: httpx.AsyncClient) -> None:
        self.model = model
        self.catalogue = model.catalogue
        self._clients = {"llm": by_llm, "blend": by_blend, "popularity": by_blend}
        self._known: dict[tuple[str, str], dict[str, float]] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)
        self.asked = 0

    def trained(self, user_id: str) -> tuple[str, ...]:
        """A user's history in training, oldest first."""
        return tuple(self.catalogue.item_ids[item] for item in self.model.histories.of(user_id))

    def seen(self, user_id: str, since: Sequence[str]) -> set[str]:
        """Everything that a user ever met."""
        return {*(self.catalogue.item_ids[item] for item in self.model.seen(user_id)), *since}

    async def scores(self, ranker: str, ask: Ask, since: Sequence[str]) -> dict[str, float]:
        """Every item that could be ranked and its score, best first.

        Args:
            ranker: `llm`, `blend` or `popularity`.
            ask: the question.
            since: what the user did since training, oldest first, `ask.sent` included.
        """
        body = {**ask.body, "num_results": 1000 if "candidates" in ask.body else 100, "timeout_ms": 60_000}
        if ranker == "popularity":
            filters = dict(body.get("filter", {}))
            seen = self.seen(body.get("user_id", ""), since) if ask.drops_seen else set()
            filters["exclude_item_ids"] = sorted({*filters.get("exclude_item_ids", ()), *seen})
            body |= {"user_id": "nobody-at-all", "filter": filters}
            body.pop("history", None)
        else:
            body["history"] = [{"item_id": item} for item in since]
        key = (ranker, repr(sorted(body.items())))
        if key not in self._known:
            self.asked += 1
            answer = await self._calm_answer(ranker, body)
            content = answer.json()
            if answer.status_code != 200 or content["ranker"] not in (ranker, None):
                raise RuntimeError(f"the service that nothing befalls says {answer.status_code}: {answer.text}")
            self._known[key] = {item["item_id"]: item["score"] for item in content["items"]}
        return self._known[key]

    async def _calm_answer(self, ranker: str, body: dict[str, Any]) -> httpx.Response:
        """What that service says once it has room, which other work on the machine may leave it little of."""
        async with self._turns:
            for _ in range(MOST_REFUSALS):
                answer = await self._clients[ranker].post("/recommend", json=body)
                if answer.json().get("fallback") not in ("overload", "timeout"):
                    break
                await asyncio.sleep(0.5)
        return answer

    async def fits(self, answer: dict[str, Any], ask: Ask, since: Sequence[str]) -> str | None:
        """What is wrong with a recommendation, if the user did that since training; None if nothing is."""
        ranker, fallback, items = answer["ranker"], answer["fallback"], answer["items"]
        history = appended(since, ask.sent)
        cold = not (self.trained(ask.body.get("user_id", "")) or history)
        if (fallback == "cold_user") != (cold and fallback != "timeout"):
            return f"fallback {fallback} for a user with {len(history)} items since training"
        if ranker is None:
            ranker = "popularity" if cold else "blend"
        elif ranker != {None: "llm", "cold_user": "popularity"}.get(fallback, ranker):
            return f"ranker {ranker} with fallback {fallback}"
        elif ranker == "popularity" and fallback not in ("cold_user", "timeout"):
            return f"popularity with fallback {fallback}"
        elif cold and ranker != "popularity":
            return f"ranker {ranker} for a user of whom nothing is known"
        return compare(items, await self.scores(ranker, ask, history), ask.count)

    def genres_fit(self, answer: dict[str, Any], top_k: int, history: Sequence[str]) -> str | None:
        """What is wrong with an explanation."""
        genres = answer["genres"]
        shares = [genre["probability"] for genre in genres]
        if not genres or len(genres) > top_k or shares != sorted(shares, reverse=True) or sum(shares) > 1 + TOLERANCE:
            return f"genres {shares} of at most {top_k}"
        for genre in genres:
            items = [item for item in reversed(history) if genre["genre"] in self._categories(item)]
            if [item["item_id"] for item in genre["evidence"]] != items:
                return f"{genre['genre']} is shown by {genre['evidence']}, and not by {items}"
        quoted = answer["sentence"].split("\N{LEFT DOUBLE QUOTATION MARK}")[1:]
        titles = {item["title"] for item in genres[0]["evidence"]}
        if not answer["sentence"] or any(
            quote.split("\N{RIGHT DOUBLE QUOTATION MARK}")[0] not in titles for quote in quoted
        ):
            return f"the sentence is {answer['sentence']}"
        return None

    def _categories(self, item_id: str) -> tuple[str, ...]:
        item = self.catalogue.index_of(item_id)
        return () if item is None else tuple(self.catalogue.categories[item])


def compare(items: Sequence[dict[str, Any]], scores: dict[str, float], count: int | None) -> str | None:
    """What is wrong with a ranking, where these are the scores of all that could be in it."""
    ids = [item["item_id"] for item in items]
    if len(set(ids)) != len(ids) or [item["rank"] for item in items] != list(range(1, len(ids) + 1)):
        return f"ranks are not those of a ranking: {ids}"
    if strangers := [item for item in ids if item not in scores]:
        return f"{strangers} may not be recommended"
    if len(ids) != min(len(scores), math.inf if count is None else count):
        return f"{len(ids)} items of {len(scores)}"
    if off := [item["item_id"] for item in items if abs(item["score"] - scores[item["item_id"]]) > TOLERANCE]:
        return f"the scores of {off} are others"
    theirs = [scores[item] for item in ids]
    if any(later > earlier + TOLERANCE for earlier, later in pairwise(theirs)):
        return f"the order {ids} is another"
    left = max((score for item, score in scores.items() if item not in ids), default=0.0)
    return f"better ones than {ids} are left out" if ids and left > min(theirs) + TOLERANCE else None


@asynccontextmanager
async def expecting(settings: Settings, engine: LLMEngine | None = None) -> AsyncIterator[Expected]:
    """Expectations of a service with `settings`."""
    calm = {"redis_url": "memory://", "cache_url": "memory://", "log_level": "error", "timeout_ms": 60_000}
    async with AsyncExitStack() as stack:
        clients = []
        for ranker in ("llm", "blend"):
            here = {"engine": "transformers", "engine_options": {}, "engine_process": False}
            changes: dict[str, Any] = {**calm, **here, "ranker": ranker}
            own = Settings(_env_file=None, **{**settings.model_dump(), **changes})  # type: ignore[call-arg]
            client, _ = await stack.enter_async_context(serving(own, engine))
            clients.append(client)
        model = load_bundle(Path(settings.bundle)).model
        yield Expected(model, *clients)


@dataclass
class Violation:
    """An answer, or a state, that may not be."""

    fault: str
    who: str
    what: str


@dataclass
class Findings:
    """What was seen.

    Attributes:
        fault: what befalls the service now.
        violations: what may not be.
        counts: of answers, by kind.
        stale: by life of the service, answers without what was acknowledged.
        down: whether the service is, or is about to be, dead.
    """

    fault: str = "nothing"
    violations: list[Violation] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    stale: dict[int, int] = field(default_factory=dict)
    down: bool = False

    def count(self, kind: str) -> None:
        """Count an answer."""
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def wrong(self, who: str, what: str) -> None:
        """Note a violation."""
        self.violations.append(Violation(self.fault, who, what))


def with_pending(kept: Sequence[Kept], pending: Kept | None) -> list[tuple[Kept, ...]]:
    """The states of a user of whom an event may have been kept or not."""
    states = [tuple(kept)]
    if pending is not None:
        states.append((*kept, pending))
    return states
