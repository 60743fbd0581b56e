"""A-LLMRec (Kim et al., KDD 2024), by the recipe's stages. Its ablations are settings of these."""

from __future__ import annotations

from models.composer import PromptComposer
from models.rankers.base import Ranker
from models.rankers.llm import LLMRanker
from training.allmrec.placing import placed_elsewhere
from training.baselines.bench import Bench
from training.baselines.port import Fitted, Shop, system


@system("allmrec", "A-LLMRec", takes="CF backbone, text encoder, frozen LLM", asks_llm=True)
def allmrec(bench: Bench) -> Fitted:
    """The method; items of another catalogue are known by their texts."""
    return by_llm(bench, "allmrec", "A-LLMRec")


def by_llm(bench: Bench, id: str, title: str, *, text_only: bool = False) -> Fitted:  # noqa: A002
    """A-LLMRec's stages as a ranker.

    Args:
        bench: runs them.
        id: of the ranker.
        title: for people.
        text_only: every item is injected by its text, q_i.
    """
    aligned, model, llm = bench.aligned, bench.model, bench.llm

    def ranker(shop: Shop) -> Ranker:
        known = placed_elsewhere(model, aligned, shop.catalogue, bench.recipe.stage1) if shop.foreign else model
        composer = PromptComposer(known, shop.prompt, llm.tokenizer, llm.context_length)
        injection = bench.recipe.stage2.injection
        return LLMRanker(id, title, shop.required_engine, composer, injection=injection, text_only=text_only)

    return ranker
