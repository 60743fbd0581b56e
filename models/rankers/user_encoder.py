"""The LLM as user encoder: a trained head makes a user vector of the state it is in after the history's titles.

One prompt a user, whatever the candidates: inner products with the items' vectors rank a whole catalogue.

Axes: E users, C candidates, D CF size d, N items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from models.catalogue import PADDING_ITEM
from models.composer import Encoding, PromptComposer
from models.engines.base import LLMEngine
from models.rankers.base import Audience, Ranker
from models.rankers.collaborative import candidate_logits
from models.rankers.llm import answer, each


class UserEncoderRanker(Ranker):
    """`head(state) . E_i`.

    Args:
        engine: encodes the prompts; started.
        composer: builds them; its model has a head.
    """

    id, title = "user_encoder", "LLM as user encoder"
    needs_llm = True
    ranks_catalogue = True

    def __init__(self, engine: LLMEngine, composer: PromptComposer) -> None:
        self._engine, self._composer = engine, composer

    async def score(self, users: Audience, candidates_E_C: np.ndarray) -> np.ndarray:
        """See `Ranker.score`."""
        asked_E = np.asarray(candidates_E_C.any(axis=1))
        return candidate_logits(await self._encode(users, asked_E), self._composer.model.cf_vectors, candidates_E_C)

    async def score_all(self, users: Audience, items: int) -> np.ndarray:
        """See `Ranker.score_all`."""
        users_E_D = await self._encode(users, np.ones(len(users), dtype=bool))
        logits_E_N = (users_E_D @ self._composer.model.cf_vectors[: items + 1].T).cpu().numpy()
        logits_E_N[:, PADDING_ITEM] = -np.inf
        return logits_E_N

    async def _encode(self, users: Audience, asked_E: np.ndarray) -> torch.Tensor:
        """(E, d) user vectors; zeros for those who are not to be asked about."""
        model = self._composer.model
        users_E_D = torch.zeros(len(users), model.cf_vectors.shape[1], device=model.cf_vectors.device)

        rows = np.flatnonzero(asked_E).tolist()
        questions = [self._composer.encoding(users.histories[row].tolist()) for row in rows]
        for row, states_1_H in zip(rows, await read_all(self._engine, questions), strict=True):
            users_E_D[row] = model.encoded_user(states_1_H)
        return users_E_D


async def read_all(
    engine: LLMEngine, questions: Sequence[Encoding], on_read: Callable[[], None] = lambda: None
) -> list[np.ndarray]:
    """The states (P, H) that each of many questions asks for.

    Args:
        engine: reads prompts of like length together, so that little of what it computes is padding.
        questions: in any order.
        on_read: called after each.
    """
    found: list[np.ndarray] = [np.zeros(0, dtype=np.float32)] * len(questions)

    async def ask(number: int) -> None:
        found[number] = await answer(engine, questions[number])
        on_read()

    await each(ask, sorted(range(len(questions)), key=lambda number: len(questions[number].prompt.token_ids)))
    return found
