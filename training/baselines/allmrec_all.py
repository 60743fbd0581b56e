"""A-LLMRec_all, of the paper's Table 10: stage 2 learns from every position of a sequence, not from the last alone."""

from __future__ import annotations

from training.baselines.allmrec import by_llm
from training.baselines.bench import Bench
from training.baselines.port import Fitted, system


@system(
    "allmrec_all",
    "A-LLMRec_all",
    takes="CF backbone, text encoder, frozen LLM",
    asks_llm=True,
    settings=('stage2.examples.positions="all"',),
)
def allmrec_all(bench: Bench) -> Fitted:
    """A-LLMRec; each epoch takes another random position of every sequence."""
    return by_llm(bench, "allmrec_all", "A-LLMRec_all")
