"""How much likelier a history makes a title: `log P(title | history)`, and `log P(title)` to hold it against.

The two are signals of their own, so that the blend fits what share of the second is taken from the first.

Axes: E users, C candidates.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import numpy as np

from models.composer import PromptComposer, TitleQuestion
from models.engines.base import LLMEngine
from models.rankers.base import Audience, LocalRanker, Ranker, mask_padding
from models.rankers.collaborative import user_vectors
from models.rankers.llm import answer, each

PRIOR_BATCH = 32
"""Titles of one forward pass: neighbours by the alphabet, which share beginnings."""


class TitleRanker(Ranker):
    """Asks about the titles of candidates, user by user.

    Args:
        engine: scores the titles; started.
        composer: builds the lists.
    """

    needs_llm = True

    def __init__(self, engine: LLMEngine, composer: PromptComposer) -> None:
        self._engine, self._composer = engine, composer

    @abstractmethod
    def questions(self, users: Audience) -> Callable[[int, np.ndarray], TitleQuestion]:
        """Makes the question about the user of a row and some items."""

    async def score(self, users: Audience, candidates_E_C: np.ndarray) -> np.ndarray:
        """See `Ranker.score`."""
        logits_E_C = np.full(candidates_E_C.shape, -np.inf)
        question = self.questions(users)

        async def ask(row: int) -> None:
            columns = np.flatnonzero(candidates_E_C[row])
            logits_E_C[row, columns] = await answer(self._engine, question(row, candidates_E_C[row, columns]))

        await each(ask, [row for row, items in enumerate(candidates_E_C) if items.any()])
        return logits_E_C


class TitleLikelihoodRanker(TitleRanker):
    """`log P(title | history)`; arguments as of `TitleRanker`."""

    id, title = "title_likelihood", "Title, given the history"

    def questions(self, users: Audience) -> Callable[[int, np.ndarray], TitleQuestion]:
        """See `TitleRanker.questions`."""
        return lambda row, items: self._composer.title_likelihood(users.histories[row].tolist(), items)


class PlainTitleRanker(TitleRanker):
    """What `InjectedTitleRanker` says before it is trained: the same list without injected tokens.

    Args:
        engine: as above.
        composer: builds the lists, for a model with projections for them.
    """

    id, title = "title_plain", "Title, given the history, less its share alone"

    def questions(self, users: Audience) -> Callable[[int, np.ndarray], TitleQuestion]:
        """See `TitleRanker.questions`."""
        return lambda row, items: self._composer.plain_titles(users.histories[row].tolist(), items)


class InjectedTitleRanker(TitleRanker):
    """`log P(title | history, injected tokens)` less a learned share of `log P(title)`.

    Args:
        engine: as above.
        composer: builds the lists, for a model with projections for them.
    """

    id, title = "title_injected", "Title, given history and injected tokens"
    beside = PlainTitleRanker.id

    def questions(self, users: Audience) -> Callable[[int, np.ndarray], TitleQuestion]:
        """See `TitleRanker.questions`."""
        vectors_E_D = user_vectors(self._composer.model, users)
        return lambda row, items: self._composer.injected_titles(vectors_E_D[row], users.histories[row].tolist(), items)


class TitlePriorRanker(LocalRanker):
    """`log P(title)`, which the LLM was asked for when the bundle was made.

    Args:
        title_log_probs: (N+1,) of all items.
    """

    id, title = "title_prior", "Title, given nothing"
    ranks_catalogue = True

    def __init__(self, title_log_probs: np.ndarray) -> None:
        self._title_log_probs = title_log_probs

    def compute(self, users: Audience, candidates_E_C: np.ndarray) -> np.ndarray:  # noqa: ARG002
        """See `Ranker.score`."""
        return mask_padding(self._title_log_probs[candidates_E_C], candidates_E_C)


async def title_priors(engine: LLMEngine, composer: PromptComposer) -> np.ndarray:
    """(N+1,) float32 `log P(title)` of all items; 0 for padding."""
    titles = composer.model.catalogue.titles
    order = np.asarray(sorted(range(1, len(titles)), key=lambda item: titles[item]), dtype=np.int64)
    found = np.zeros(len(titles), dtype=np.float32)
    batches = [order[start : start + PRIOR_BATCH] for start in range(0, len(order), PRIOR_BATCH)]

    async def ask(number: int) -> None:
        found[batches[number]] = await answer(engine, composer.title_prior(batches[number]))

    await each(ask, range(len(batches)))
    return found
