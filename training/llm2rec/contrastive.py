"""Item-level contrastive learning (LLM2Rec section 3.2, after SimCSE, Gao et al., EMNLP 2021): two views of a text by
dropout are near each other, and far from those of the batch's other texts.

Axes: B texts of a batch, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from training.llm2rec.batches import mixed_batches, padded
from training.llm2rec.config import ContrastiveConfig
from training.llm2rec.corpus import Corpus
from training.llm2rec.model import hidden_states, mean_pooled
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

    def task(self, model: Any, weights: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Task[np.ndarray]:
        """What the loop drives. A batch of one text, which has no negative, is left out."""

        def batches(epoch: int) -> Sequence[np.ndarray]:
            rows = mixed_batches(self._lengths, epoch_rng(self._seed, epoch), most_rows=self._config.batch_size)
            return [chosen for chosen in rows if len(chosen) > 1]

        def loss(rows: np.ndarray) -> torch.Tensor:
            # Both views in one pass: dropout draws anew for every row.
            batch = padded([self._texts[row] for row in [*rows, *rows]], model.device)
            first_B_H, second_B_H = mean_pooled(hidden_states(model, batch), batch.real).chunk(2)
            return info_nce(first_B_H, second_B_H, self._config.temperature)

        return Task(weights, optimizer, batches, loss)


def info_nce(first_B_H: torch.Tensor, second_B_H: torch.Tensor, temperature: float) -> torch.Tensor:
    """Mean over texts of -log softmax_j cos(first_i, second_j) / temperature at j = i."""
    first, second = (functional.normalize(each.float(), dim=1) for each in (first_B_H, second_B_H))
    return functional.cross_entropy(first @ second.T / temperature, torch.arange(len(first), device=first.device))
