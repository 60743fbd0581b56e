"""What an LLM makes of prompts: its last hidden states.

Axes: B prompts, P places of a prompt, L packed positions, H the LLM's hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from models.llm.loading import LanguageModel
from models.prompts.layout import Prompt
from models.scoring.choices import ChoiceTrie
from models.scoring.packing import hidden_states, pack, soft_tokens_of

NOTHING = ChoiceTrie([[0]], end_token=0)
"""A single choice branches nowhere, so that nothing is packed behind a prompt."""


@torch.inference_mode()
def encode_prompts(llm: LanguageModel, prompts: Sequence[Prompt], places: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For each of B prompts the last hidden states (P, H) float32 at its places (P,), in one forward pass."""
    device = llm.model.device
    tries = [NOTHING] * len(prompts)
    batch = pack([prompt.token_ids for prompt in prompts], [prompt.soft_positions for prompt in prompts], tries)
    soft_tokens_S_H = soft_tokens_of(prompts, llm.token_size, device)
    hidden_B_L_H = hidden_states(llm.model, batch.to(device), soft_tokens_S_H)
    return [
        hidden_L_H[torch.from_numpy(wanted).to(device)].float().cpu().numpy()
        for hidden_L_H, wanted in zip(hidden_B_L_H, places, strict=True)
    ]
