"""Choice scoring with an OPT model, doing only what it needs.

The same tree as in `models.scoring.packing`, exactly, but without its waste: prompts stand one after the other without
padding, each attends to itself alone and plainly causally, only the few tree tokens need a mask, and the last layer
is computed at the branching nodes only.

Axes: L tokens of all prompts and trees, one behind the other, M branching nodes of all prompts, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import relu, scaled_dot_product_attention

from models.prompts.layout import Prompt
from models.scoring.choices import Branching
from models.scoring.packing import tree_of

QUERY_BLOCK = 128


@dataclass(frozen=True)
class _Segment:
    """Where one prompt and its tree lie among the L tokens.

    Attributes:
        start, end: its first token and the one behind its last.
        tree: its first tree token.
        nodes: its nodes among the M.
        node_tokens: (n,) their tokens among the L.
        tree_visible: bool, what each tree token (row) sees of the segment's tokens (columns).
        node_visible: bool, the same for its nodes.
    """

    start: int
    tree: int
    end: int
    nodes: slice
    node_tokens: torch.Tensor
    tree_visible: torch.Tensor
    node_visible: torch.Tensor


class OPTScorer:
    """Last hidden states at branching nodes.

    Args:
        model: an `OPTForCausalLM` that `supports` allows, in eval mode.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._decoder = model.model.decoder

    @staticmethod
    def supports(model: Any) -> bool:
        """Whether `model` is an OPT of the usual build (all published sizes but 350m)."""
        config = model.config
        return (
            config.model_type == "opt"
            and config.do_layer_norm_before
            and config.activation_function == "relu"
            and config.word_embed_proj_dim == config.hidden_size
            and model.model.decoder.final_layer_norm is not None
        )

    @torch.inference_mode()
    def node_states(self, prompts: Sequence[Prompt], tries: Sequence[Branching]) -> torch.Tensor:
        """The last hidden states (M, H) of all branching nodes of B prompts."""
        device = self._model.device
        token_ids, positions, segments = _lay_out(prompts, tries, device)
        x_L_H = self._model.get_input_embeddings()(token_ids.to(device))
        for prompt, segment in zip(prompts, segments, strict=True):
            prompt.inject(x_L_H, segment.start)
        embed_positions = self._decoder.embed_positions
        x_L_H = x_L_H + nn.functional.embedding(positions.to(device) + embed_positions.offset, embed_positions.weight)

        *layers, last = self._decoder.layers
        for layer in layers:
            x_L_H = _feed_forward(layer, x_L_H + _attend(layer, x_L_H, segments))
        nodes_M = torch.cat([segment.node_tokens for segment in segments])
        x_M_H = x_L_H[nodes_M] + _attend_at_nodes(last, x_L_H, nodes_M, segments)
        return self._decoder.final_layer_norm(_feed_forward(last, x_M_H))


def _lay_out(
    prompts: Sequence[Prompt], tries: Sequence[Branching], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, list[_Segment]]:
    token_ids, positions, segments = [], [], []
    start = nodes = 0
    for prompt, trie in zip(prompts, tries, strict=True):
        tree = tree_of(trie)
        length, size = len(prompt.token_ids), len(tree.tokens)
        token_ids += [prompt.token_ids, tree.tokens]
        positions += [np.arange(length), length - 1 + tree.depths]
        visible = np.ones((1 + size, length + size), dtype=bool)
        visible[0, length:] = False
        visible[1:, length:] = tree.visible
        segments.append(
            _Segment(
                start=start,
                tree=start + length,
                end=start + length + size,
                nodes=slice(nodes, nodes + len(tree.nodes)),
                node_tokens=torch.from_numpy(start + length + tree.nodes).to(device),
                tree_visible=torch.from_numpy(visible[1:]).to(device),
                node_visible=torch.from_numpy(visible[1 + tree.nodes]).to(device),
            )
        )
        start += length + size
        nodes += len(tree.nodes)
    return torch.from_numpy(np.concatenate(token_ids)), torch.from_numpy(np.concatenate(positions)), segments


def _attend(layer: Any, x_L_H: torch.Tensor, segments: Sequence[_Segment]) -> torch.Tensor:
    attention = layer.self_attn
    x_L_H = layer.self_attn_layer_norm(x_L_H)
    query, key, value = (
        _heads(attention, project(x_L_H)) for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    mixed_L_H = torch.empty_like(x_L_H)
    for s in segments:
        prompt, tree, both = slice(s.start, s.tree), slice(s.tree, s.end), slice(s.start, s.end)
        mixed_L_H[prompt] = _merged(_causal(query[:, :, prompt], key[:, :, prompt], value[:, :, prompt]))
        if s.tree < s.end:
            masked = scaled_dot_product_attention(
                query[:, :, tree], key[:, :, both], value[:, :, both], attn_mask=s.tree_visible
            )
            mixed_L_H[tree] = _merged(masked)
    return attention.out_proj(mixed_L_H)


def _causal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Causal attention (1, heads, n, head size), by blocks of queries.

    Torch's own on a CPU computes what the mask hides, too.
    """
    if query.device.type != "cpu":
        return scaled_dot_product_attention(query, key, value, is_causal=True)
    query = query * query.shape[-1] ** -0.5
    later = torch.ones(QUERY_BLOCK, QUERY_BLOCK, dtype=torch.bool, device=query.device).triu(1)
    blocks = []
    for start in range(0, query.shape[2], QUERY_BLOCK):
        end = min(start + QUERY_BLOCK, query.shape[2])
        scores = query[:, :, start:end] @ key[:, :, :end].transpose(2, 3)
        scores[..., start:].masked_fill_(later[: end - start, : end - start], -torch.inf)
        blocks.append(scores.softmax(dim=-1) @ value[:, :, :end])
    return torch.cat(blocks, dim=2)


def _attend_at_nodes(
    layer: Any, x_L_H: torch.Tensor, nodes_M: torch.Tensor, segments: Sequence[_Segment]
) -> torch.Tensor:
    attention = layer.self_attn
    x_L_H = layer.self_attn_layer_norm(x_L_H)
    query = _heads(attention, attention.q_proj(x_L_H[nodes_M]))
    key, value = (_heads(attention, project(x_L_H)) for project in (attention.k_proj, attention.v_proj))
    mixed = [
        scaled_dot_product_attention(
            query[:, :, s.nodes], key[:, :, s.start : s.end], value[:, :, s.start : s.end], attn_mask=s.node_visible
        )
        for s in segments
    ]
    return attention.out_proj(_merged(torch.cat(mixed, dim=2)))


def _heads(attention: Any, x_L_H: torch.Tensor) -> torch.Tensor:
    """(L, H) as (1, heads, L, head size)."""
    return x_L_H.view(1, len(x_L_H), attention.num_heads, attention.head_dim).transpose(1, 2)


def _merged(by_head: torch.Tensor) -> torch.Tensor:
    """(1, heads, L, head size) as (L, H)."""
    return by_head[0].transpose(0, 1).flatten(1)


def _feed_forward(layer: Any, x_L_H: torch.Tensor) -> torch.Tensor:
    inner = layer.fc1(layer.final_layer_norm(x_L_H))
    return x_L_H + layer.fc2(relu(inner, inplace=True))
