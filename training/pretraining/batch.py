"""Examples packed into batches, with what they should answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from models.scoring.packing import PackedBatch, pack
from training.pretraining.example import Example


@dataclass(frozen=True)
class TrainingBatch:
    """Packed examples with what they should answer.

    Attributes:
        packed: the prompts and their branching paths.
        soft_tokens_S_H: in the order of the packed batch's slots.
        targets_M_C: the true distribution at each branching node, 0 beyond a node's own children.
        reach_M: the probability that the constrained decoder gets to the node.
        text_rows_X, text_columns_X, text_targets_X: positions of free text and the tokens that follow.
        tokens: tokens in the batch without padding.
    """

    packed: PackedBatch
    soft_tokens_S_H: torch.Tensor
    targets_M_C: torch.Tensor
    reach_M: torch.Tensor
    text_rows_X: torch.Tensor
    text_columns_X: torch.Tensor
    text_targets_X: torch.Tensor
    tokens: int


def collate(examples: Sequence[Example]) -> TrainingBatch:
    """Pack examples into one batch."""
    packed = pack(
        [example.layout.token_ids for example in examples],
        [example.layout.soft_positions for example in examples],
        [example.trie for example in examples],
    )
    targets_M_C = torch.zeros(packed.children_M_C.shape)
    reach: list[np.ndarray] = []
    text: list[tuple[int, int, int]] = []
    node = 0
    for row, example in enumerate(examples):
        targets, reached = example.node_targets()
        reach.append(reached)
        for target_C in targets:
            targets_M_C[node, : len(target_C)] = torch.from_numpy(target_C)
            node += 1
        ids = example.layout.token_ids
        text += [(row, at - 1, int(ids[at])) for at in range(len(ids) - example.written, len(ids))]
    rows_X, columns_X, targets_X = torch.tensor(text, dtype=torch.int64).reshape(-1, 3).T
    return TrainingBatch(
        packed=packed,
        soft_tokens_S_H=torch.cat([example.soft_tokens for example in examples]),
        targets_M_C=targets_M_C,
        reach_M=torch.from_numpy(np.concatenate(reach)).float(),
        text_rows_X=rows_X,
        text_columns_X=columns_X,
        text_targets_X=targets_X,
        tokens=sum(example.length for example in examples),
    )


def bucketed(examples: Sequence[Example], tokens: int) -> list[list[Example]]:
    """Group examples of similar length into batches of at most `tokens` padded tokens."""
    batches: list[list[Example]] = []
    for example in sorted(examples, key=lambda e: e.length):
        if not batches or example.length * (len(batches[-1]) + 1) > tokens:
            batches.append([])
        batches[-1].append(example)
    return batches
