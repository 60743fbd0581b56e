"""The published way to rank with A-LLMRec: let the LLM write a title, and see which candidate it is.

A left-padded batch of `inputs_embeds`, greedy `generate`, and a comparison of texts. It names one candidate, or none.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from models.llm.loading import LanguageModel
from models.prompts.layout import Prompt

MAX_NEW_TOKENS = 16


@torch.inference_mode()
def write_titles(llm: LanguageModel, prompts: Sequence[Prompt], max_new_tokens: int = MAX_NEW_TOKENS) -> list[str]:
    """What the LLM writes after each of the prompts."""
    embeddings = llm.model.get_input_embeddings()
    longest = max(len(prompt.token_ids) for prompt in prompts)
    weight = embeddings.weight
    embeds_B_L_H = torch.zeros(len(prompts), longest, llm.token_size, dtype=weight.dtype, device=weight.device)
    attention_mask_B_L = torch.zeros(len(prompts), longest, dtype=torch.int64, device=weight.device)
    for row, prompt in enumerate(prompts):
        start = longest - len(prompt.token_ids)
        embeds_B_L_H[row, start:] = embeddings(torch.from_numpy(prompt.token_ids).to(weight.device))
        prompt.inject(embeds_B_L_H[row], start)
        attention_mask_B_L[row, start:] = 1
    written = llm.model.generate(
        inputs_embeds=embeds_B_L_H,
        attention_mask=attention_mask_B_L,
        do_sample=False,
        max_new_tokens=max_new_tokens,
        pad_token_id=llm.tokenizer.pad_token_id,
    )
    texts: list[str] = llm.tokenizer.batch_decode(written, skip_special_tokens=True)
    return texts


def match(text: str, titles: Sequence[str]) -> int | None:
    """The candidate whose title, with its closing quote, the text begins with."""
    return next((row for row, title in enumerate(titles) if text.startswith(f'{title}"')), None)
