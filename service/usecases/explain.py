"""The explanation use cases: favourite genres of a user, an item for a user, what speaks for them, and a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from models.config import Config
from models.errors import NotFoundError
from models.recommending.merge import popularity
from models.recommending.person import Person
from models.recommending.retrieve import Pool, most_popular
from models.writing import Draft
from service.deadline import Deadline
from service.deployments.deployment import Deployment
from service.llm_gate import LLMGate
from service.metrics import Answer, Metrics
from service.outcome import Fallback, Ranker
from service.usecases.effects import Effect, Proof, Prover, Subject
from service.usecases.narration import Facts, Narration, genre_facts, item_facts, quoted
from service.users.histories import Histories, UserHistory
from service.users.representations import Representations

CITED_ITEMS = 3
STORE_SHARE = 0.1
"""Of a request's time, how much Redis may take for the history, and again for the representation."""


class ExplainConfig(Config):
    """Sizes and times; see the settings of the same names."""

    max_tokens: int = 48
    reserve_ms: float = 10
    window: int = 20
    retrieve: int = 100
    ranker: Literal["llm", "blend"] = "llm"


@dataclass(frozen=True)
class Evidence:
    """An item of the history.

    Attributes:
        item: its number.
        place: in the history, the oldest first.
        effect: what it does for the probability; None if that was not tried.
    """

    item: int
    place: int
    effect: Effect | None

    @property
    def is_reason(self) -> bool:
        """Whether it is known that the probability falls without it."""
        return self.effect is not None and self.effect.is_reason


@dataclass(frozen=True)
class GenreShare:
    """A genre, its probability among all genres, and the history items that have it, latest first."""

    genre: str
    probability: float
    evidence: list[Evidence]


@dataclass(frozen=True)
class Explanation:
    """What every explanation has.

    Attributes:
        ranker: whose the probabilities are; None if there are none.
        fallback: why they are not the LLM's.
        user_vector: (d,) x_u; None for a user without history.
    """

    ranker: Ranker | None
    fallback: Fallback | None
    user_vector: torch.Tensor | None


@dataclass(frozen=True)
class GenreAnswer(Explanation):
    """Favourite genres, best first.

    Attributes:
        genres: at most as many as asked for; empty if the catalogue has none.
    """

    genres: list[GenreShare]


@dataclass(frozen=True)
class ItemAnswer(Explanation):
    """An item for a user.

    Attributes:
        item: its number.
        probability: that it comes next, of all in `among`.
        among: item numbers, it and the best others.
        evidence: items of the history without which it is less probable, what makes the most of it first.
        tried: how many items of the history were tried.
    """

    item: int
    probability: float
    among: list[int]
    evidence: list[Evidence]
    tried: int


class Explainer:
    """Says what a user likes and why.

    Args:
        histories: of users.
        representations: of histories.
        prover: finds out what speaks for something.
        llm: the gate to the LLM.
        metrics: stages and fallbacks.
        config: sizes and times.
    """

    def __init__(
        self,
        histories: Histories,
        representations: Representations,
        prover: Prover,
        llm: LLMGate,
        metrics: Metrics,
        config: ExplainConfig,
    ) -> None:
        self._histories = histories
        self._representations = representations
        self._prover = prover
        self._llm = llm
        self._metrics = metrics
        self._config = config

    async def genres(self, deployment: Deployment, user_id: str, top_k: int, deadline: Deadline) -> GenreAnswer:
        """The `top_k` favourite genres of a user.

        Raises:
            NotFoundError: neither training nor live events know the user.
            StoreError: training does not, and the store cannot say.
        """
        history, person = await self._who(deployment, user_id, deadline)
        names = deployment.composer.genres
        if not names:
            return GenreAnswer(None, None, None if person is None else person.vector, genres=[])
        items = {name: _with_genre(deployment, history.items, name) for name in names}

        def best(probabilities: np.ndarray) -> list[int]:
            return [int(row) for row in np.argsort(-probabilities, kind="stable")[:top_k]]

        if person is None:
            proof = _by_popularity(_interactions(deployment))
        else:
            subject = Subject(
                deployment.genres,
                person,
                user_id,
                lambda probabilities: [(row, items[names[row]]) for row in best(probabilities)],
                work="genres",
                by_llm=self._config.ranker == "llm",
            )
            proof = await self._prover.prove(deployment, subject, deadline)
        self._count(proof, "/explain/genre")
        shares = [
            GenreShare(
                names[row], float(proof.probabilities[row]), _evidence(proof, row, history.items, items[names[row]])
            )
            for row in best(proof.probabilities)
        ]
        return GenreAnswer(proof.ranker, proof.fallback, None if person is None else person.vector, genres=shares)

    async def item(self, deployment: Deployment, user_id: str, item_id: str, deadline: Deadline) -> ItemAnswer:
        """Why an item is for a user.

        Raises:
            NotFoundError: the catalogue does not have the item, or neither training nor live events know the user.
            StoreError: training does not, and the store cannot say.
        """
        item = deployment.catalogue.index_of(item_id)
        if item is None:
            raise NotFoundError(f"item '{item_id}' is not in the catalogue")
        history, person = await self._who(deployment, user_id, deadline)
        pool = Pool(None, None, history.seen | {item}, max(self._config.retrieve, self._config.window))
        others = [int(other) for other in history.items[::-1] if other != item]
        if person is None:
            among = self._among(item, most_popular(deployment.catalogue, pool))
            proof = _by_popularity(deployment.catalogue.interactions[among])
        else:
            with self._metrics.stage("retrieve"):
                found = await self._prover.aside(lambda: deployment.lists.find(pool, person))
            among = self._among(item, found)
            subject = Subject(
                deployment.among(among),
                person,
                user_id,
                lambda _: [(0, others)],
                work="items",
                by_llm=self._config.ranker == "llm",
            )
            proof = await self._prover.prove(deployment, subject, deadline)
        self._count(proof, "/explain/item")
        evidence = _evidence(proof, 0, history.items, others)
        return ItemAnswer(
            proof.ranker,
            proof.fallback,
            None if person is None else person.vector,
            item=item,
            probability=float(proof.probabilities[0]),
            among=among.tolist(),
            evidence=_heaviest_first([each for each in evidence if each.is_reason]),
            tried=_tried(evidence),
        )

    def narrate_genres(self, deployment: Deployment, answer: GenreAnswer, deadline: Deadline) -> Narration:
        """A sentence about the first genre: the LLM's, or the bare facts where it cannot be had."""
        domain = deployment.bundle.manifest.prompt.domain
        if not answer.genres:
            return Narration("", f"No {domain.noun} here has a genre.", None)
        first, vector = answer.genres[0], answer.user_vector
        if vector is None:
            text = f"Nothing is known of this user yet; {first.genre} is the favorite {domain.noun} genre of all users."
            return Narration("", text, None)
        cited = _cited(first.evidence)
        facts = genre_facts(
            first.genre,
            domain,
            _titles(deployment, cited),
            has_items=bool(first.evidence),
            tried=_tried(first.evidence),
        )
        return self._narrate(
            answer, facts, lambda: deployment.composer.explanation(vector, cited, first.genre), deadline
        )

    def narrate_item(self, deployment: Deployment, answer: ItemAnswer, deadline: Deadline) -> Narration:
        """A sentence about the item: the LLM's, or the bare facts where it cannot be had."""
        domain, vector = deployment.bundle.manifest.prompt.domain, answer.user_vector
        title = deployment.catalogue.titles[answer.item]
        if vector is None:
            text = f"Nothing is known of this user yet; {quoted(title)} is as likely as it is popular."
            return Narration("", text, None)
        cited = _cited(answer.evidence)
        facts = item_facts(title, domain, _titles(deployment, cited), answer.tried)
        return self._narrate(
            answer, facts, lambda: deployment.composer.item_explanation(vector, cited, answer.item), deadline
        )

    def _narrate(
        self, answer: Explanation, facts: Facts, compose: Callable[[], Draft], deadline: Deadline
    ) -> Narration:
        """What the LLM makes of `facts`, if it can be had and has something to quote."""
        if answer.fallback is not None or not facts.cited:
            return Narration("", facts.text, None)
        written = self._llm.write(compose, self._config.max_tokens, deadline.remaining(self._config.reserve_ms))
        return Narration(facts.opening, facts.text, written)

    async def _who(self, deployment: Deployment, user_id: str, deadline: Deadline) -> tuple[UserHistory, Person | None]:
        """The history of a user, and the user with it, if it has any item."""
        with self._metrics.stage("user_representation"):
            patience = max(deadline.remaining(self._config.reserve_ms), 0) * STORE_SHARE
            history = await self._histories.of_known(deployment, user_id, patience)
            if not len(history.items):
                return history, None
            return history, await self._representations.of(deployment, history.items, user_id, patience)

    def _among(self, item: int, others: np.ndarray) -> np.ndarray:
        """(W,) the item and the best others, as many as the LLM ranks at a time."""
        return np.asarray([item, *others[: self._config.window - 1].tolist()], dtype=np.int64)

    def _count(self, proof: Proof, route: Answer) -> None:
        if proof.fallback is not None:
            self._metrics.fell_back(route, proof.fallback)


def _by_popularity(interactions: np.ndarray) -> Proof:
    """For somebody of whom nothing is known."""
    return Proof(popularity(interactions), {}, "popularity", "cold_user")


def _evidence(proof: Proof, place: int, history: np.ndarray, items: Sequence[int]) -> list[Evidence]:
    """`items` of a history with their effects on the alternative at `place`."""
    where = {int(item): number for number, item in enumerate(history)}
    return [Evidence(item, where[item], proof.effect(item, place)) for item in items]


def _heaviest_first(evidence: Sequence[Evidence]) -> list[Evidence]:
    return sorted(evidence, key=lambda each: 0.0 if each.effect is None else each.effect.change)


def _cited(evidence: Sequence[Evidence]) -> list[int]:
    """The reasons that make the most, oldest first."""
    reasons = _heaviest_first([each for each in evidence if each.is_reason])[:CITED_ITEMS]
    return [each.item for each in sorted(reasons, key=lambda each: each.place)]


def _tried(evidence: Sequence[Evidence]) -> int:
    return sum(each.effect is not None for each in evidence)


def _titles(deployment: Deployment, items: Sequence[int]) -> list[str]:
    return [deployment.catalogue.titles[item] for item in items]


def _with_genre(deployment: Deployment, history: np.ndarray, genre: str) -> list[int]:
    """Items of a history, latest first."""
    return [int(item) for item in history[::-1] if genre in deployment.catalogue.categories[item]]


def _interactions(deployment: Deployment) -> np.ndarray:
    """(G,) interactions with the items of every genre."""
    catalogue = deployment.catalogue
    members = (catalogue.category_items[genre] for genre in deployment.composer.genres)
    return np.asarray([catalogue.interactions[items].sum() for items in members])
