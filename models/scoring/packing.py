"""A prompt and all branching paths of its choice trie in one forward pass.

The paths are appended to the prompt as a tree: every tree token sees the prompt, its ancestors and itself, and has
the position it would have on its own path. So one pass gives the logits of all branching nodes exactly, whatever
their number. Stage 2, LLM pre-training, evaluation and the transformers engine all score through here.

Axes: B prompts, L packed positions, S soft tokens of all prompts, M branching nodes of all prompts, C children,
H the LLM's hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from models.llm.forward import decoder_states, embed_tokens
from models.llm.head import head_of
from models.prompts.layout import Prompt
from models.scoring.choices import Branching

NO_CHILD = -1


@dataclass(frozen=True)
class PackedBatch:
    """Prompts packed with their branching paths, padded on the right.

    Attributes:
        token_ids_B_L: token ids; arbitrary at soft positions and padding.
        position_ids_B_L: depth of each token on its own path.
        visible_B_L_L: bool, True where the row's token sees the column's.
        soft_rows: (S,) prompt of each soft token, in the order in which the prompts list them.
        soft_columns: (S,) its packed position.
        node_rows: (M,) prompt of each branching node.
        node_columns: (M,) packed position whose output predicts the node's children.
        children_M_C: token ids of the children, NO_CHILD beyond a node's own.
        node_counts: (B,) branching nodes of each prompt.
    """

    token_ids_B_L: torch.Tensor
    position_ids_B_L: torch.Tensor
    visible_B_L_L: torch.Tensor
    soft_rows: torch.Tensor
    soft_columns: torch.Tensor
    node_rows: torch.Tensor
    node_columns: torch.Tensor
    children_M_C: torch.Tensor
    node_counts: list[int]

    def to(self, device: torch.device | str) -> PackedBatch:
        """The same batch on another device."""
        moved = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if isinstance(value, torch.Tensor)
        }
        return PackedBatch(**moved, node_counts=self.node_counts)


def pack(
    token_ids: Sequence[np.ndarray],
    soft_positions: Sequence[np.ndarray],
    tries: Sequence[Branching],
) -> PackedBatch:
    """Pack B prompts (each (L,) ids with (S,) slots) with the branching paths of their tries."""
    shared = {number: tree_of(trie) for number, trie in {id(trie): trie for trie in tries}.items()}
    trees = [shared[id(trie)] for trie in tries]
    sizes = [len(ids) + len(tree.tokens) for ids, tree in zip(token_ids, trees, strict=True)]
    rows, longest = len(sizes), max(sizes)
    packed_ids = np.zeros((rows, longest), dtype=np.int64)
    positions = np.zeros((rows, longest), dtype=np.int64)
    visible = np.zeros((rows, longest, longest), dtype=bool)
    visible[:, np.arange(longest), np.arange(longest)] = True
    node_rows: list[int] = []
    node_columns: list[int] = []
    causal = np.tri(longest, dtype=bool)
    for row, (ids, tree) in enumerate(zip(token_ids, trees, strict=True)):
        length, size = len(ids), sizes[row]
        packed_ids[row, :length] = ids
        packed_ids[row, length:size] = tree.tokens
        positions[row, :length] = np.arange(length)
        positions[row, length:size] = length - 1 + tree.depths
        visible[row, :length, :length] = causal[:length, :length]
        visible[row, length:size, :length] = True
        visible[row, length:size, length:size] = tree.visible
        node_rows += [row] * len(tree.nodes)
        node_columns += (length + tree.nodes).tolist()

    soft_rows = np.repeat(np.arange(rows), [len(slots) for slots in soft_positions])
    soft_columns = np.concatenate([np.asarray(slots, dtype=np.int64) for slots in soft_positions])
    return PackedBatch(
        token_ids_B_L=torch.from_numpy(packed_ids),
        position_ids_B_L=torch.from_numpy(positions),
        visible_B_L_L=torch.from_numpy(visible),
        soft_rows=torch.from_numpy(soft_rows),
        soft_columns=torch.from_numpy(soft_columns),
        node_rows=torch.tensor(node_rows, dtype=torch.int64),
        node_columns=torch.tensor(node_columns, dtype=torch.int64),
        children_M_C=children_of(tries),
        node_counts=[len(trie.branches) for trie in tries],
    )


def soft_tokens_of(prompts: Sequence[Prompt], token_size: int, device: torch.device | str) -> torch.Tensor:
    """(S, H) the soft tokens of all prompts, wherever each has its own."""
    return torch.cat([prompt.soft_tokens.reshape(-1, token_size).to(device) for prompt in prompts])


def embed(model: Any, batch: PackedBatch, soft_tokens_S_H: torch.Tensor) -> torch.Tensor:
    """The input embeddings (B, L, H): token embeddings with the soft tokens in their slots."""
    embeds_B_L_H = embed_tokens(model, batch.token_ids_B_L)
    soft = soft_tokens_S_H.to(embeds_B_L_H.dtype)
    return embeds_B_L_H.index_put((batch.soft_rows, batch.soft_columns), soft)


def hidden_states(model: Any, batch: PackedBatch, soft_tokens_S_H: torch.Tensor) -> torch.Tensor:
    """The LLM's last hidden states (B, L, H) under the tree mask, those that `models.llm.head` takes."""
    embeds_B_L_H = embed(model, batch, soft_tokens_S_H)
    return decoder_states(model, embeds_B_L_H, batch.position_ids_B_L, batch.visible_B_L_L)


def child_logits(model: Any, batch: PackedBatch, hidden_B_L_H: torch.Tensor) -> torch.Tensor:
    """The logits (M, C) of every branching node's children in fp32, -inf beyond a node's own."""
    return node_logits(model, hidden_B_L_H[batch.node_rows, batch.node_columns], batch.children_M_C)


def node_logits(model: Any, hidden_M_H: torch.Tensor, children_M_C: torch.Tensor) -> torch.Tensor:
    """As `child_logits`, from the last hidden states of the branching nodes alone."""
    logits_M_C = head_of(model).logits(hidden_M_H, children_M_C.clamp_min(0))
    return logits_M_C.masked_fill(children_M_C == NO_CHILD, -torch.inf)


def children_of(tries: Sequence[Branching]) -> torch.Tensor:
    """(M, C) token ids of the children of all branching nodes, NO_CHILD beyond a node's own."""
    branches = [branch for trie in tries for branch in trie.branches]
    widest = max((len(branch.children) for branch in branches), default=1)
    children = np.full((len(branches), widest), NO_CHILD, dtype=np.int64)
    for node, branch in enumerate(branches):
        children[node, : len(branch.children)] = branch.children
    return torch.from_numpy(children)


def split_nodes(logits_M_C: torch.Tensor, tries: Sequence[Branching]) -> list[list[np.ndarray]]:
    """Per prompt and branch the (C,) logits, as `ChoiceTrie.log_probs` takes them."""
    values = logits_M_C.detach().float().cpu().numpy()
    start, result = 0, []
    for trie in tries:
        nodes = values[start : start + len(trie.branches)]
        result.append([row[: len(branch.children)] for row, branch in zip(nodes, trie.branches, strict=True)])
        start += len(trie.branches)
    return result


@dataclass(frozen=True)
class Tree:
    """The tokens that lead to the branching nodes of one trie, as they follow the prompt.

    Attributes:
        tokens: (n,) token ids.
        depths: (n,) length of the path that ends in each.
        visible: (n, n) bool, True where the row's token sees the column's: its ancestors and itself.
        nodes: (M,) offsets of the branching nodes from the end of the prompt: -1 is the prompt's last token, the root.
    """

    tokens: np.ndarray
    depths: np.ndarray
    visible: np.ndarray
    nodes: np.ndarray


def tree_of(trie: Branching) -> Tree:
    """The tokens on the way to the branching nodes of `trie`, shallow ones first."""
    prefixes: set[tuple[int, ...]] = set()
    for branch in trie.branches:
        path = branch.path
        while path and path not in prefixes:
            prefixes.add(path)
            path = path[:-1]
    paths = sorted(prefixes, key=lambda path: (len(path), path))
    offset = {path: index for index, path in enumerate(paths)}
    visible = np.eye(len(paths), dtype=bool)
    for path, index in offset.items():
        if len(path) > 1:
            visible[index] |= visible[offset[path[:-1]]]
    return Tree(
        tokens=np.asarray([path[-1] for path in paths], dtype=np.int64),
        depths=np.asarray([len(path) for path in paths], dtype=np.int64),
        visible=visible,
        nodes=np.asarray([offset[b.path] if b.path else -1 for b in trie.branches], dtype=np.int64),
    )
