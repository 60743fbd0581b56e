"""The recommendation use case: retrieve or take candidates, rank a window by the LLM, say what fell back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.catalogue import Catalogue
from models.config import Config
from models.errors import ClientError
from models.recommending.merge import popularity, softmax
from models.recommending.person import Person
from models.recommending.retrieve import Pool, most_popular
from models.recommending.shortlist import Shortlist
from service.deadline import Deadline
from service.deployments.deployment import Deployment
from service.llm_gate import FallbackError, LLMGate
from service.metrics import Metrics
from service.outcome import Fallback, RankedItem, Ranker, Recommendation
from service.usecases.asking import STORE_SHARE, Asking
from service.users.histories import Histories, Sent, UserHistory
from service.users.representations import Representations

FEW_CANDIDATES = 50
"""So many are ordered in less time than it takes to wake another thread."""


class RecommendConfig(Config):
    """Sizes and times; see the settings of the same names."""

    window: int = 20
    retrieve: int = 100
    max_candidates: int = 1000
    num_results: int = 10
    ranker: Literal["llm", "blend"] = "llm"
    reserve_ms: float = 10
    floor_ms: float = 25


@dataclass(frozen=True)
class Query:
    """What is asked.

    Attributes:
        user_id: a user, known or not, or None for a history alone.
        history: item ids to join to the stored history, and when they were met, in microseconds since 1970.
        candidates: item ids to rank; None to retrieve.
        categories: only items with one of these; all if empty.
        exclude_item_ids: never these.
        exclude_seen: drop everything that the user ever met; None means when retrieving.
        num_results: how many to return; None means all candidates, or the configured number when retrieving.
    """

    user_id: str | None = None
    history: Sequence[tuple[str, int | None]] = ()
    candidates: Sequence[str] | None = None
    categories: Sequence[str] = ()
    exclude_item_ids: Sequence[str] = ()
    exclude_seen: bool | None = None
    num_results: int | None = None


class Recommender:
    """Answers queries.

    Args:
        histories: of users.
        representations: of histories.
        llm: the gate to the LLM.
        executor: runs retrieval.
        metrics: stages and fallbacks.
        config: sizes and times.
    """

    def __init__(
        self,
        histories: Histories,
        representations: Representations,
        llm: LLMGate,
        executor: Executor,
        metrics: Metrics,
        config: RecommendConfig,
    ) -> None:
        self._histories = histories
        self._representations = representations
        self._asking = Asking(llm, representations, config.reserve_ms)
        self._executor = executor
        self._metrics = metrics
        self._config = config

    async def recommend(self, deployment: Deployment, query: Query, deadline: Deadline) -> Recommendation:
        """Rank items for a user or a history, inside the deadline.

        Raises:
            ClientError: there are more candidates than allowed.
        """
        self._check_candidates(query)
        catalogue = deployment.catalogue
        candidates: list[int] | None = None
        missing: list[str] = []
        if query.candidates is not None:
            candidates, missing = catalogue.indices_of(dict.fromkeys(query.candidates))
        sent, unknown = _known(catalogue, query.history)
        missing = list(dict.fromkeys([*missing, *unknown]))
        if candidates == []:
            return Recommendation(missing=missing)

        seconds = max(deadline.remaining(self._config.reserve_ms / 2), self._config.floor_ms / 1000)
        try:
            async with asyncio.timeout(seconds):
                with self._metrics.stage("user_representation"):
                    patience = seconds * STORE_SHARE
                    history = await self._histories.of(deployment, query.user_id, sent, patience)
                    person = None
                    if len(history.items):
                        person = await self._representations.of(deployment, history.items, query.user_id, patience)
                pool = self._pool(deployment, query, candidates, history)
                if person is None:
                    return self._by_popularity(deployment, query, pool, missing, "cold_user")
                with self._metrics.stage("retrieve"):
                    shortlist = await self._shortlist(deployment, pool, person)
        except TimeoutError:
            history = self._histories.last_known(deployment, query.user_id, sent)
            pool = self._pool(deployment, query, candidates, history)
            return self._by_popularity(deployment, query, pool, missing, "timeout")
        if not len(shortlist):
            return Recommendation(missing=missing)
        ranked, fallback = await self._rank(deployment, shortlist, person, deadline)
        return Recommendation(ranked[: self._num_results(query)], missing, ranked[0].ranker, fallback)

    async def _rank(
        self,
        deployment: Deployment,
        shortlist: Shortlist,
        person: Person,
        deadline: Deadline,
    ) -> tuple[list[RankedItem], Fallback | None]:
        """All of the shortlist, its window by the blend with the LLM where that is wanted and can be had."""
        window = shortlist.items[: deployment.lists.window(self._config.window)]
        fallback: Fallback | None = None
        order, scores, by_llm = np.arange(len(shortlist)), softmax(shortlist.logits), 0
        if self._config.ranker == "llm":
            try:
                answers = await self._asking.answers(deployment, person, window, deadline)
            except FallbackError as error:
                fallback = self._fell_back(error.reason)
            else:
                by_llm = len(window)
                order, scores = deployment.lists.with_llm(shortlist, answers)
        ranked = [
            RankedItem(int(item), float(score), "llm" if place < by_llm else "blend")
            for place, (item, score) in enumerate(zip(shortlist.items[order], scores, strict=True))
        ]
        return ranked, fallback

    def _check_candidates(self, query: Query) -> None:
        if query.candidates is not None and len(query.candidates) > self._config.max_candidates:
            raise ClientError(
                f"candidates: {len(query.candidates)} item ids, at most {self._config.max_candidates} are ranked"
                " at a time: send fewer, or leave them out to have the service retrieve"
            )

    async def _shortlist(self, deployment: Deployment, pool: Pool, person: Person) -> Shortlist:
        """Retrieved or given items, in the order of the blend without the LLM."""

        def find() -> Shortlist:
            return deployment.lists.retrieve(pool, person)

        if pool.candidates is not None and len(pool.candidates) <= FEW_CANDIDATES:
            return find()
        return await asyncio.get_running_loop().run_in_executor(self._executor, find)

    def _pool(self, deployment: Deployment, query: Query, candidates: list[int] | None, history: UserHistory) -> Pool:
        catalogue = deployment.catalogue
        allowed = None
        if query.categories:
            members = [catalogue.category_items.get(name, np.zeros(0, np.int64)) for name in query.categories]
            allowed = np.unique(np.concatenate(members))
        excluded = set(catalogue.indices_of(query.exclude_item_ids)[0])
        if query.exclude_seen or (query.exclude_seen is None and candidates is None):
            excluded |= history.seen
        return Pool(candidates, allowed, excluded, max(self._config.retrieve, self._num_results(query)))

    def _num_results(self, query: Query) -> int:
        if query.num_results is not None:
            return query.num_results
        return self._config.num_results if query.candidates is None else len(query.candidates)

    def _by_popularity(
        self, deployment: Deployment, query: Query, pool: Pool, missing: list[str], reason: Fallback
    ) -> Recommendation:
        """What anyone might like, for who cannot be known (in time)."""
        items = most_popular(deployment.catalogue, pool)
        self._fell_back(reason)
        scores = popularity(deployment.catalogue.interactions[items])
        ranked = [RankedItem(int(item), float(score), "popularity") for item, score in zip(items, scores, strict=True)]
        ranker: Ranker | None = "popularity" if ranked else None
        return Recommendation(ranked[: self._num_results(query)], missing, ranker, reason)

    def _fell_back(self, reason: Fallback) -> Fallback:
        self._metrics.fell_back("/recommend", reason)
        return reason


def _known(catalogue: Catalogue, history: Sequence[tuple[str, int | None]]) -> tuple[list[Sent], list[str]]:
    """The entries of a history that the catalogue has, and the ids of the others. Times count if all have one."""
    timed = all(moment is not None for _, moment in history)
    sent, unknown = [], []
    for item_id, moment in history:
        item = catalogue.index_of(item_id)
        if item is None:
            unknown.append(item_id)
        else:
            sent.append(Sent(item, moment if timed else None))
    return sent, unknown
