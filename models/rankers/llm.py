"""The LLM as a ranker: each user's candidates as one prompt, scored exactly."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from models.composer import Asked, PromptComposer
from models.engines.base import LLMEngine
from models.prompts.layout import Injection
from models.rankers.base import Audience, Ranker
from models.rankers.collaborative import user_vectors

ASKED_AT_ONCE = 64
"""Enough for every worker of an engine; with OPT-6.7B a waiting question carries half a megabyte of soft tokens."""


class LLMRanker(Ranker):
    """`log P(candidate)` under decoding constrained to the candidates.

    Args:
        id: of the ranker.
        title: for people.
        engine: scores the prompts; started.
        composer: builds the prompts.
        injection: the method, or an ablation of it; as the bundle has it if not given.
        text_only: inject q_i for every item ("A-LLMRec (text encoder)").
        reads: id of the ranker that reads the same tokens exactly.
    """

    needs_llm = True

    def __init__(
        self,
        id: str,  # noqa: A002
        title: str,
        engine: LLMEngine,
        composer: PromptComposer,
        *,
        injection: Injection | None = None,
        text_only: bool = False,
        reads: str | None = None,
    ) -> None:
        self.id, self.title, self.reads = id, title, reads
        self._engine, self._composer = engine, composer
        self._injection, self._text_only = injection, text_only

    async def score(self, users: Audience, candidates_E_C: np.ndarray) -> np.ndarray:
        """See `Ranker.score`."""
        users_E_D = user_vectors(self._composer.model, users)
        logits_E_C = np.full(candidates_E_C.shape, -np.inf)

        async def ask(row: int) -> None:
            columns = np.flatnonzero(candidates_E_C[row])
            question = self._composer.recommend(
                users_E_D[row],
                users.histories[row].tolist(),
                candidates_E_C[row, columns],
                injection=self._injection,
                text_only=self._text_only,
            )
            logits_E_C[row, columns] = await answer(self._engine, question)

        await each(ask, [row for row, items in enumerate(candidates_E_C) if items.any()])
        return logits_E_C


async def answer(engine: LLMEngine, question: Asked) -> np.ndarray:
    """What `engine` says; see `Asked.answer`."""
    return await question.answer(engine)


async def each(ask: Callable[[int], Awaitable[None]], rows: Sequence[int], at_once: int = ASKED_AT_ONCE) -> None:
    """Call `ask` for all `rows`, so many at a time, in their order."""
    remaining = iter(rows)

    async def work() -> None:
        for row in remaining:
            await ask(row)

    async with asyncio.TaskGroup() as workers:
        for _ in range(min(at_once, len(rows))):
            workers.create_task(work())
