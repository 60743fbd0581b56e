"""A-LLMRec (text encoder), "A-LLMRec (SBERT)" in the paper's Tables 4, 6 and 7: q_i in place of e_i when ranking."""

from __future__ import annotations

from training.baselines.allmrec import by_llm
from training.baselines.bench import Bench
from training.baselines.port import Fitted, system


@system("allmrec_text", "A-LLMRec (text encoder)", takes="CF backbone, text encoder, frozen LLM", asks_llm=True)
def allmrec_text(bench: Bench) -> Fitted:
    """The trained stages of A-LLMRec with every item injected by its text."""
    return by_llm(bench, "allmrec_text", "A-LLMRec (text encoder)", text_only=True)
