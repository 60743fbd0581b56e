"""Item-level contrastive learning (LLM2Rec section 3.2, after SimCSE, Gao et al., EMNLP 2021): two views of a text by
dropout are near each other, and far from those of the batch's other texts.

Axes: B texts of a batch, P of them computed by one process, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from training.llm2rec.batches import Dealt, mixed_batches, padded
from training.llm2rec.config import ContrastiveConfig
from training.llm2rec.corpus import Corpus
from training.llm2rec.model import hidden_states, mean_pooled
from training.runs.distributed import processes
from training.runs.loop import Task, epoch_rng


class Contrastive:
    """The stage.

    Args:
        corpus: what is learned from.
        config: how.
        seed: of the batches; dropout draws from torch's own generator.
    """

    def __init__(self, corpus: Corpus, config: ContrastiveConfig, seed: int) -> None:
        self._texts, self._config, self._seed = corpus.texts, config, seed
        self._lengths = np.asarray([len(ids) for ids in corpus.texts])

    def task(self, model: Any, weights: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Task[Dealt]:
        """What the loop drives. A batch of one text, which has no negative, is left out."""

        def batches(epoch: int) -> Sequence[Dealt]:
            rows = mixed_batches(self._lengths, epoch_rng(self._seed, epoch), most_rows=self._config.batch_size)
            return [Dealt(chosen) for chosen in rows if len(chosen) > 1]

        def loss(batch: Dealt) -> torch.Tensor:
            # Both views in one pass: dropout draws anew for every row.
            rows = batch.rows[batch.mine]
            texts = padded([self._texts[row] for row in [*rows, *rows]], model.device)
            first_P_H, second_P_H = mean_pooled(hidden_states(model, texts), texts.real).chunk(2)
            second_B_H = second_P_H if batch.count == 1 else processes().deal_in(second_P_H, len(batch.rows))
            return info_nce(first_P_H, second_B_H, self._config.temperature, batch.mine)

        return Task(weights, optimizer, batches, loss, part=Dealt.part)


def info_nce(
    first_P_H: torch.Tensor, second_B_H: torch.Tensor, temperature: float, mine: slice = slice(None)
) -> torch.Tensor:
    """Mean over texts of -log softmax_j cos(first_i, second_j) / temperature at j = i.

    Args:
        first_P_H: of those of the batch's texts that are `mine`.
        second_B_H: of all of the batch's texts.
        temperature: of the cosines.
        mine: which of the texts the first are.
    """
    first, second = (functional.normalize(each.float(), dim=1) for each in (first_P_H, second_B_H))
    same = torch.arange(len(second), device=first.device)[mine]
    return functional.cross_entropy(first @ second.T / temperature, same)
