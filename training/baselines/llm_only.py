"""LLM-Only: the frozen LLM and the prompt without injected tokens (A-LLMRec, Figure 6).

Once as published: the LLM writes, and hits if what it writes has the title in it. Once as everything else here is
ranked, by the exact probabilities of the candidates. Once by how likely each title follows those of the history.

Axes: E users, C candidates.
"""

from __future__ import annotations

import numpy as np
import torch

from models.composer import PromptComposer
from models.engines.base import LLMEngine
from models.prompts.layout import Injection
from models.prompts.titles import decode_plain
from models.rankers.base import Audience, Ranker, mask_padding
from models.rankers.llm import LLMRanker, each
from models.rankers.title_likelihood import TitleLikelihoodRanker
from training.allmrec.placing import blank_model
from training.baselines.bench import Bench
from training.baselines.port import Fitted, Shop, system

WRITTEN_TOKENS = 24
"""Of an answer: a title and its quotes."""
STOP = '"'


@system("llm_only", "LLM-Only", takes="frozen LLM", asks_llm=True)
def llm_only(bench: Bench) -> Fitted:
    """By the exact probabilities of the candidates."""

    def ranker(shop: Shop) -> Ranker:
        return LLMRanker("llm_only", "LLM-Only", shop.required_engine, composer(bench, shop), injection=Injection.NONE)

    return ranker


@system("llm_only_written", "LLM-Only, as published", takes="frozen LLM", asks_llm=True)
def llm_only_written(bench: Bench) -> Fitted:
    """By what it writes."""

    def ranker(shop: Shop) -> Ranker:
        return WrittenRanker(shop.required_engine, composer(bench, shop))

    return ranker


@system("llm_only_likely", "LLM-Only, by likelihood", takes="frozen LLM", asks_llm=True)
def llm_only_likely(bench: Bench) -> Fitted:
    """By log P(title | list of the history's titles), without instructions and candidates."""

    def ranker(shop: Shop) -> Ranker:
        return TitleLikelihoodRanker(shop.required_engine, composer(bench, shop))

    return ranker


class WrittenRanker(Ranker):
    """1 for the longest of the candidates' titles that stands in what the LLM writes, 0 for all others.

    Titles are as the prompt shows them: of one that is cut there, nobody could write the rest. It orders nothing else,
    so only its Hit@1 means anything.

    Args:
        engine: of the LLM.
        composer: builds the prompts.
    """

    id, title = "llm_only_written", "LLM-Only, as published"
    needs_llm = True

    def __init__(self, engine: LLMEngine, composer: PromptComposer) -> None:
        self._engine, self._composer = engine, composer

    async def score(self, users: Audience, candidates_E_C: np.ndarray) -> np.ndarray:
        """See `Ranker.score`."""
        scores_E_C = np.zeros(candidates_E_C.shape)

        async def ask(row: int) -> None:
            items = np.unique(candidates_E_C[row][candidates_E_C[row] > 0])
            scores_E_C[row] = np.isin(candidates_E_C[row], await self._written(users.histories[row], items))

        await each(ask, [row for row, items in enumerate(candidates_E_C) if items.any()])
        return mask_padding(scores_E_C, candidates_E_C)

    async def _written(self, history: np.ndarray, items: np.ndarray) -> np.ndarray:
        """The item of `items`, or several of the same title, that the LLM writes; none if it writes none."""
        composer = self._composer
        nobody = torch.zeros(composer.model.cf_vectors.shape[1])
        question = composer.recommend(nobody, history.tolist(), items, injection=Injection.NONE)
        pieces = [piece async for piece in self._engine.generate(question.prompt, WRITTEN_TOKENS, (STOP,))]
        text = "".join(pieces).lower()
        shown = (decode_plain(self._engine.tokenizer, composer.titles[item]).strip().lower() for item in items.tolist())
        titles = list(shown)
        longest = max((title for title in titles if title and title in text), key=len, default=None)
        return np.asarray([item for item, title in zip(items, titles, strict=True) if title == longest], dtype=np.int64)


def composer(bench: Bench, shop: Shop) -> PromptComposer:
    """Prompts about the shop's items, of which nothing is injected."""
    model = blank_model(shop.catalogue, bench.llm.token_size)
    return PromptComposer(model, shop.prompt, bench.llm.tokenizer, bench.llm.context_length)
