"""OPT's forward pass over packed prompts, for training on a CPU.

It computes what `models.scoring.packing.hidden_states` computes, at the positions asked for. It is twice as fast:
attention by plain matrix products, whose backward pass is faster here than that of the fused kernel, and the last
layer only where its output is used.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from models.scoring.packing import PackedBatch, embed

POSITION_OFFSET = 2
"""OPT's position table begins with two rows that it does not use."""
_BLOCKED = -1e4


class PackedReader(nn.Module):
    """An OPT with the output positions as part of its input."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, batch: PackedBatch, soft_tokens_S_H: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
    ) -> torch.Tensor:
        """The last hidden states (O, H) at O packed positions `rows`, `columns`; rows need not be sorted."""
        decoder = self.model.model.decoder
        states = embed(self.model, batch, soft_tokens_S_H)
        states = states + decoder.embed_positions.weight[batch.position_ids_B_L + POSITION_OFFSET]
        mask = torch.zeros_like(batch.visible_B_L_L, dtype=states.dtype)
        mask = mask.masked_fill_(~batch.visible_B_L_L, _BLOCKED)[:, None]
        for layer in decoder.layers[:-1]:
            states = _layer(layer, states, states, mask)

        counts = torch.bincount(rows, minlength=len(states))
        order = rows.argsort(stable=True)
        slots = torch.empty_like(rows)
        starts = counts.cumsum(0) - counts
        slots[order] = torch.arange(len(rows), device=rows.device) - starts[rows[order]]
        wanted = torch.zeros(len(states), max(1, int(counts.max())), dtype=torch.int64, device=rows.device)
        wanted[rows, slots] = columns
        queries = states.gather(1, wanted[..., None].expand(-1, -1, states.shape[2]))
        seen = mask.gather(2, wanted[:, None, :, None].expand(-1, -1, -1, mask.shape[3]))
        output = decoder.final_layer_norm(_layer(decoder.layers[-1], queries, states, seen))
        return output[rows, slots]


def _layer(layer: Any, queries: torch.Tensor, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """One pre-norm OPT layer for `queries` (B, n, H) that attend to `states` (B, L, H)."""
    attention = layer.self_attn
    normed = layer.self_attn_layer_norm(states)
    asking = normed if queries is states else layer.self_attn_layer_norm(queries)

    def heads(projection: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
        return projection(inputs).unflatten(2, (attention.num_heads, attention.head_dim)).transpose(1, 2)

    scores = heads(attention.q_proj, asking) * attention.scaling @ heads(attention.k_proj, normed).transpose(2, 3)
    mixed = torch.softmax(scores + mask, dim=-1) @ heads(attention.v_proj, normed)
    queries = queries + attention.out_proj(mixed.transpose(1, 2).flatten(2))
    inner = functional.relu(layer.fc1(layer.final_layer_norm(queries)))
    return queries + layer.fc2(inner)
