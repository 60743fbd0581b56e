"""Exact choice scoring of several prompts in one forward pass of a transformers model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from models.choices import ChoiceTrie
from models.llm.loading import LanguageModel
from models.llm.packing import child_logits, hidden_states, pack, split_nodes
from models.prompt import Prompt


@torch.inference_mode()
def score_prompts(llm: LanguageModel, prompts: Sequence[Prompt], tries: Sequence[ChoiceTrie]) -> list[list[np.ndarray]]:
    """For each of B prompts the (C,) logits of every branch's children, as `ChoiceTrie.log_probs` takes them."""
    device = llm.model.device
    batch = pack([prompt.token_ids for prompt in prompts], [prompt.soft_positions for prompt in prompts], tries).to(
        device
    )
    soft_tokens_T_D = torch.cat([prompt.soft_tokens.reshape(-1, llm.token_size) for prompt in prompts]).to(device)
    logits_M_C = child_logits(llm.model, batch, hidden_states(llm.model, batch, soft_tokens_T_D))
    return split_nodes(batch, logits_M_C, tries)
