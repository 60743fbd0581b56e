"""What every LLM is asked when it is loaded: a small tree, packed and plainly. Both must give the same."""

from __future__ import annotations

from typing import Any

import torch

from models.llm.families import UnsupportedLLMError
from models.llm.forward import decoder_states, embed_tokens
from models.llm.head import Head

PARENTS = (*range(-1, 11), 11, 11, 12)
"""A prompt of twelve tokens, two that may follow it, and one that follows the first of them."""
PATH_ENDS = (13, 14)
TOLERANCE = 1e-3
HALF_TOLERANCE = 0.1
"""In half precision, whose rounding differs with the shapes of what is multiplied."""
STRIDE = 7919


def check_exact(name: str, model: Any) -> None:
    """Refuse an LLM whose packed answers are not its plain ones.

    Args:
        name: as the user named it.
        model: a causal LM in eval mode.

    Raises:
        UnsupportedLLMError: they differ, or it cannot be asked at all.
    """
    kind = f"LLM '{name}' ({model.config.get_text_config().model_type})"
    if model._is_stateful:
        raise UnsupportedLLMError(f"{kind} cannot be asked exactly: it is recurrent, and reads siblings as its past")
    try:
        error = packing_error(model)
    except Exception as failure:
        raise UnsupportedLLMError(f"{kind} cannot be asked about a tree of tokens: {failure}") from failure
    allowed = TOLERANCE if model.dtype in (torch.float32, torch.float64) else HALF_TOLERANCE
    if not error <= allowed:
        raise UnsupportedLLMError(
            f"{kind} cannot be asked exactly: packed and plain forward passes differ by {error:.1g} of the spread of"
            f" the logits, more than {allowed:g}"
        )


@torch.inference_mode()
def packing_error(model: Any) -> float:
    """The root mean square difference of packed and plain logits, as a share of the logits' standard deviation."""
    table = model.get_input_embeddings().weight
    token_ids = torch.arange(len(PARENTS), device=table.device) * STRIDE % len(table)
    visible = torch.eye(len(PARENTS), dtype=torch.bool, device=table.device)
    depths = torch.zeros_like(token_ids)
    for place, parent in enumerate(PARENTS):
        if parent >= 0:
            visible[place] |= visible[parent]
            depths[place] = depths[parent] + 1
    embeds = embed_tokens(model, token_ids)
    states = decoder_states(model, embeds[None], depths[None], visible[None])[0]
    packed = Head(model).all_logits(states[list(PATH_ENDS)])
    paths = [embeds[visible[end]][None] for end in PATH_ENDS]
    plain = torch.cat([model(inputs_embeds=path, use_cache=False, logits_to_keep=1).logits[:, -1] for path in paths])
    return float((packed - plain.float()).square().mean().sqrt() / plain.float().std())
