"""What every LLM is asked when it is loaded: a small tree, packed and plainly. Both must give the same."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from models.llm.families import UnsupportedLLMError
from models.llm.forward import decoder_states, embed_tokens
from models.llm.head import Head

PROMPT = 12
"""Tokens of the prompt; two may follow it, and one follows the first of them."""
WINDOWS = ("sliding_window", "attention_chunk_size", "keep_window_size")
"""What a config calls the length of what a local layer sees."""
NARROW = 5
"""A window that the prompt is longer than."""
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
        error = max(packing_error(model), *map(partial(_error_beyond, model), _windows(model)), 0.0)
    except Exception as failure:
        raise UnsupportedLLMError(f"{kind} cannot be asked about a tree of tokens: {failure}") from failure
    allowed = TOLERANCE if model.dtype in (torch.float32, torch.float64) else HALF_TOLERANCE
    if not error <= allowed:
        raise UnsupportedLLMError(
            f"{kind} cannot be asked exactly: packed and plain forward passes differ by {error:.1g} of the spread of"
            f" the logits, more than {allowed:g}{_suspects(model)}"
        )


def _windows(model: Any) -> list[str]:
    """Of `WINDOWS` those that the first test is too short for, and that the LLM's context is long enough for."""
    config = model.config.get_text_config()
    context = getattr(config, "max_position_embeddings", None) or float("inf")
    sizes = {name: getattr(config, name, None) for name in WINDOWS}
    return [name for name, size in sizes.items() if isinstance(size, int) and PROMPT < size < context]


def _suspects(model: Any) -> str:
    windows = _windows(model)
    return f"; its config has {' and '.join(windows)}, which its code may not heed" if windows else ""


def _error_beyond(model: Any, window: str) -> float:
    """`packing_error` of a prompt that is longer than a window.

    A narrower window, which is looked at in no time, does for all whose code looks it up in the config.
    """
    config = model.config.get_text_config()
    size = getattr(config, window)
    setattr(config, window, NARROW)
    try:
        error = packing_error(model)
    except Exception:  # the whole length says whether that is due to a changed config
        error = float("inf")
    finally:
        setattr(config, window, size)
    return error if error <= TOLERANCE else packing_error(model, size + NARROW)


@torch.inference_mode()
def packing_error(model: Any, prompt: int = PROMPT) -> float:
    """The root mean square difference of packed and plain logits, as a share of the logits' standard deviation.

    Args:
        model: a causal LM in eval mode.
        prompt: tokens of the prompt.
    """
    table = model.get_input_embeddings().weight
    parents = (*range(-1, prompt), prompt - 1, prompt)
    token_ids = torch.arange(len(parents), device=table.device) * STRIDE % len(table)
    visible = torch.eye(len(parents), dtype=torch.bool, device=table.device)
    depths = torch.zeros_like(token_ids)
    for place, parent in enumerate(parents):
        if parent >= 0:
            visible[place] |= visible[parent]
            depths[place] = depths[parent] + 1
    embeds = embed_tokens(model, token_ids)
    states = decoder_states(model, embeds[None], depths[None], visible[None])[0]
    ends = [prompt + 1, prompt + 2]
    packed = Head(model).all_logits(states[ends])
    paths = [embeds[visible[end]][None] for end in ends]
    plain = torch.cat([model(inputs_embeds=path, use_cache=False, logits_to_keep=1).logits[:, -1] for path in paths])
    return float((packed - plain.float()).square().mean().sqrt() / plain.float().std())
