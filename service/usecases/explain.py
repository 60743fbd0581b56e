"""The explanation use case: a user's favourite genres, what speaks for them, and a sentence about the first."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np
import torch

from models.config import Config
from models.recommending.merge import popularity, softmax
from models.writing import END, QUOTE
from service.deadline import Deadline
from service.deployments.deployment import Deployment
from service.llm_gate import FallbackError, LLMGate
from service.metrics import Metrics
from service.outcome import Fallback, Ranker, SentenceSource
from service.users.histories import Histories
from service.users.representations import Representations

CITED_ITEMS = 3
STORE_SHARE = 0.1
"""Of a request's time, how much Redis may take for the history, and again for the representation."""

NO_GAP = (" ", ",", ".", ";", ":", ")", "\n")


class ExplainConfig(Config):
    """Sizes and times; see the settings of the same names."""

    max_tokens: int = 48
    reserve_ms: float = 10


@dataclass(frozen=True)
class GenreShare:
    """A genre, its probability among all genres, and the history items that have it, latest first."""

    genre: str
    probability: float
    evidence: list[int]


@dataclass(frozen=True)
class GenreAnswer:
    """Favourite genres, best first.

    Attributes:
        genres: at most as many as asked for; empty if the catalogue has none.
        ranker: who ranked them; None if there are none.
        fallback: why the LLM did not.
        user_vector: (d,) x_u; None for a user without history.
    """

    genres: list[GenreShare]
    ranker: Ranker | None
    fallback: Fallback | None
    user_vector: torch.Tensor | None


class Narration:
    """A sentence on its way.

    Attributes:
        text: the sentence; complete once `pieces` has ended. It differs from the pieces joined if what the LLM wrote
            turned out not to hold.
        source: who wrote it.
    """

    def __init__(self, opening: str, facts: str, written: AsyncGenerator[str, None] | None) -> None:
        self.text = ""
        self.source: SentenceSource = "template"
        self._opening = opening
        self._facts = facts
        self._written = written

    async def pieces(self) -> AsyncGenerator[str, None]:
        """The sentence bit by bit."""
        if self._written is not None:
            try:
                async with aclosing(self._written) as written:
                    async for piece in written:
                        bit = piece if self.text else f"{self._opening}{'' if piece.startswith(NO_GAP) else ' '}{piece}"
                        self.text += bit
                        yield bit
                        if loops(self.text):
                            self.text = ""
                            break
            except FallbackError:
                self.text = ""
            if is_grounded(self.text.removeprefix(self._opening)):
                self.source = "llm"
                return
        self.text = self._facts
        yield self._facts

    async def whole(self) -> str:
        """The sentence once it is complete."""
        async for _ in self.pieces():
            pass
        return self.text


class Explainer:
    """Says what a user likes and why.

    Args:
        histories: of users.
        representations: of histories.
        llm: the gate to the LLM.
        metrics: stages and fallbacks.
        config: sizes and times.
    """

    def __init__(
        self,
        histories: Histories,
        representations: Representations,
        llm: LLMGate,
        metrics: Metrics,
        config: ExplainConfig,
    ) -> None:
        self._histories = histories
        self._representations = representations
        self._llm = llm
        self._metrics = metrics
        self._config = config

    async def genres(self, deployment: Deployment, user_id: str, top_k: int, deadline: Deadline) -> GenreAnswer:
        """The `top_k` favourite genres of a user.

        Raises:
            NotFoundError: neither training nor live events know the user.
            StoreError: training does not, and the store cannot say.
        """
        with self._metrics.stage("user_representation"):
            patience = max(deadline.remaining(self._config.reserve_ms), 0) * STORE_SHARE
            history = await self._histories.of_known(deployment, user_id, patience)
            user_vector = None
            if len(history.items):
                user_vector = await self._representations.of(deployment, history.items, user_id, patience)
        genres = deployment.composer.genres
        if not genres:
            return GenreAnswer([], None, None, user_vector)

        ranker: Ranker = "llm"
        fallback: Fallback | None = None
        if user_vector is None:
            ranker, fallback = "popularity", "cold_user"
            probabilities = popularity(_interactions(deployment))
        else:
            vector, prompted = user_vector, deployment.prompted(history.items).tolist()
            try:
                log_probs = await self._llm.choose(
                    lambda: deployment.composer.favorite_genre(vector, prompted),
                    deadline.remaining(self._config.reserve_ms),
                    "genres",
                )
                probabilities = softmax(log_probs)
            except FallbackError as error:
                ranker, fallback = "blend", error.reason
                probabilities = softmax(deployment.composer.genre_cf_scores(vector))
        if fallback is not None:
            self._metrics.fell_back("/explain/genre", fallback)
        best = np.argsort(-probabilities, kind="stable")[:top_k]
        shares = [
            GenreShare(genres[row], float(probabilities[row]), _evidence(deployment, history.items, genres[row]))
            for row in best
        ]
        return GenreAnswer(shares, ranker, fallback, user_vector)

    def narrate(self, deployment: Deployment, answer: GenreAnswer, deadline: Deadline) -> Narration:
        """A sentence about the first genre: the LLM's, or the bare facts where it cannot be had."""
        domain = deployment.bundle.manifest.prompt.domain
        if not answer.genres:
            return Narration("", f"No {domain.noun} here has a genre.", None)
        first = answer.genres[0]
        if answer.user_vector is None:
            facts = (
                f"Nothing is known of this user yet; {first.genre} is the favorite {domain.noun} genre of all users."
            )
            return Narration("", facts, None)
        because = f"The favorite {domain.noun} genre of this user is {first.genre}, because"
        opening = f"{because} this user has {domain.past}"
        cited = first.evidence[:CITED_ITEMS][::-1]
        titles = [
            f"\N{LEFT DOUBLE QUOTATION MARK}{deployment.catalogue.titles[item]}\N{RIGHT DOUBLE QUOTATION MARK}"
            for item in cited
        ]
        if titles:
            facts = f"{opening} {_enumerate(titles)}."
        else:
            facts = f"{because} it is close to what this user has {domain.past}, though none of it has this genre."
        if answer.fallback is not None or not cited:
            return Narration(opening, facts, None)
        vector = answer.user_vector
        written = self._llm.write(
            lambda: deployment.composer.explanation(vector, cited, first.genre),
            self._config.max_tokens,
            deadline.remaining(self._config.reserve_ms),
        )
        return Narration(opening, facts, written)


def is_grounded(written: str) -> bool:
    """Whether what an LLM wrote comes to an end and quotes something: `models.writing` limits what it can quote."""
    return written.endswith(END) and QUOTE in written


def loops(text: str) -> bool:
    """Whether a text ends in the same words, one to four, three times in a row: small LLMs get stuck so."""
    words = text.split()
    return any(
        len(words) >= 3 * size and words[-size:] == words[-2 * size : -size] == words[-3 * size : -2 * size]
        for size in range(1, 5)
    )


def _evidence(deployment: Deployment, history: np.ndarray, genre: str) -> list[int]:
    return [int(item) for item in history[::-1] if genre in deployment.catalogue.categories[item]]


def _interactions(deployment: Deployment) -> np.ndarray:
    """(G,) interactions with the items of every genre."""
    catalogue = deployment.catalogue
    members = (catalogue.category_items[genre] for genre in deployment.composer.genres)
    return np.asarray([catalogue.interactions[items].sum() for items in members])


def _enumerate(words: list[str]) -> str:
    return " and ".join([*([", ".join(words[:-1])] if words[1:] else []), words[-1]])
