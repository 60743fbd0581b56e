"""The decoder's pass over tokens that stand in a tree: what each sees is given, whatever the family of the LLM.

A token of a tree sees its ancestors, and of these what the family's own attention would show it on its path alone:
all, or those of a local window or chunk. So the family's own masks, for a plain sequence, are looked up by the
positions of the two tokens.

Axes: B sequences, L packed positions, P positions on a path, H the LLM's hidden size.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.masking_utils import create_masks_for_generate

from models.errors import ConfigError


def decoder_states(
    model: Any, embeds_B_L_H: torch.Tensor, position_ids_B_L: torch.Tensor, visible_B_L_L: torch.Tensor
) -> torch.Tensor:
    """The last hidden states (B, L, H), as the LLM's head takes them.

    Args:
        model: a causal LM of a family that `models.llm.families` allows.
        embeds_B_L_H: what stands at each place, as `embed_tokens` gives it; injected tokens live in that space, too.
        position_ids_B_L: the position of each token on its own path.
        visible_B_L_L: bool, True where the row's token follows the column's on one path, or is it.
    """
    output = model.get_decoder()(
        inputs_embeds=embeds_B_L_H,
        attention_mask=_attention_masks(model, embeds_B_L_H.dtype, position_ids_B_L, visible_B_L_L),
        position_ids=position_ids_B_L,
        use_cache=False,
    )
    return output.last_hidden_state


def embed_tokens(model: Any, token_ids: torch.Tensor) -> torch.Tensor:
    """The input embeddings (..., H) of token ids (...), scaled where the family's embedding does that itself."""
    return model.get_input_embeddings()(token_ids)


def _attention_masks(
    model: Any, dtype: torch.dtype, position_ids_B_L: torch.Tensor, visible_B_L_L: torch.Tensor
) -> torch.Tensor | dict[str, torch.Tensor]:
    """Additive masks (B, 1, L, L), by layer type where these differ."""
    by_type = _path_masks(model, int(position_ids_B_L.max()) + 1, position_ids_B_L.device)
    rows, columns = position_ids_B_L[:, :, None], position_ids_B_L[:, None, :]
    masks = {
        kind: _additive(visible_B_L_L if mask_P_P is None else visible_B_L_L & mask_P_P[rows, columns], dtype)
        for kind, mask_P_P in by_type.items()
    }
    if len(set(map(id, by_type.values()))) == 1:
        # One for all layers is taken by every family, a mapping only by those that mix layers.
        return next(iter(masks.values()))
    return masks


def _path_masks(model: Any, length: int, device: torch.device) -> dict[str, torch.Tensor | None]:
    """By layer type what a token of a plain sequence sees, bool (P, P); None where that is all before it.

    Raises:
        ConfigError: it is none of these.
    """
    create = getattr(model, "create_masks_for_generate", create_masks_for_generate)
    sequence = torch.empty(1, length, 1, device=device, dtype=torch.float32)
    masks = create(
        config=model.config, inputs_embeds=sequence, attention_mask=None, past_key_values=None, position_ids=None
    )
    by_type = masks if isinstance(masks, dict) else {"": masks}
    return {kind: _seen(mask) for kind, mask in by_type.items()}


def _seen(mask: torch.Tensor | None) -> torch.Tensor | None:
    if mask is None:
        return None
    if mask.dim() != 4:
        raise ConfigError(f"the LLM has layers whose mask has the shape {tuple(mask.shape)}: not plain attention")
    seen_P_P = mask[0, 0] if mask.dtype == torch.bool else mask[0, 0] == 0
    return None if bool((seen_P_P == torch.ones_like(seen_P_P).tril()).all()) else seen_P_P


def _additive(visible_B_L_L: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    mask = torch.zeros_like(visible_B_L_L, dtype=dtype)
    return mask.masked_fill_(~visible_B_L_L, torch.finfo(dtype).min)[:, None]
