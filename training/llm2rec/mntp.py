"""Masked next-token prediction (LLM2Rec section 3.2, after LLM2Vec, BehnamGhader et al., COLM 2024): with attention
both ways, blanked tokens of a text are read off the positions before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from models.prompts.titles import encode_plain
from training.llm2rec.batches import Dealt, Padded, mixed_batches, padded
from training.llm2rec.config import MNTPConfig
from training.llm2rec.corpus import Corpus
from training.llm2rec.model import TitleHead, next_token_losses
from training.runs.loop import Task, epoch_rng

BLANK = "_"
"""Of LLMs without a token for masks."""


class MNTP:
    """The stage.

    Args:
        corpus: what is learned from.
        config: how.
        seed: of batches and blanks.
    """

    def __init__(self, corpus: Corpus, config: MNTPConfig, seed: int) -> None:
        self._corpus, self._config, self._seed = corpus, config, seed
        self._texts = [ids for ids in corpus.texts if len(ids) > 1]
        self._lengths = np.asarray([len(ids) for ids in self._texts])
        self._blank = blank_token(corpus.tokenizer)

    def task(self, model: Any, weights: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Task[Dealt]:
        """What the loop drives."""
        head = TitleHead(model, self._corpus.vocabulary)

        def batches(epoch: int) -> Sequence[Dealt]:
            rows = mixed_batches(self._lengths, epoch_rng(self._seed, epoch), most_rows=self._config.batch_size)
            return [Dealt(chosen, (self._seed, epoch, index)) for index, chosen in enumerate(rows)]

        def blanked(batch: Dealt) -> list[np.ndarray]:
            """Drawn for all rows, whoever computes them."""
            rng = np.random.default_rng(batch.seed)
            return [blanks_of(len(self._texts[row]), self._config.blanked, rng) for row in batch.rows]

        def loss(batch: Dealt) -> torch.Tensor:
            texts = [self._texts[row] for row in batch.rows[batch.mine]]
            return mntp_loss(model, head, texts, blanked(batch)[batch.mine], self._blank)

        def part(batch: Dealt, index: int, count: int) -> tuple[Dealt | None, float]:
            return batch.part(index, count, np.asarray([mask.sum() for mask in blanked(batch)]))

        return Task(weights, optimizer, batches, loss, part=part)


def mntp_loss(
    model: Any, head: TitleHead, texts: Sequence[Sequence[int]], blanks: Sequence[np.ndarray], blank: int
) -> torch.Tensor:
    """Mean -log P of the blanked tokens.

    Args:
        model: a causal LM that sees both ways.
        head: makes logits.
        texts: tokens of each text.
        blanks: of each text a mask of its tokens, True where blanked; never the first.
        blank: what stands in their places.
    """
    true = padded(texts, model.device)
    blanked = padded(blanks, model.device).ids
    inputs = Padded(torch.where(blanked.bool(), blank, true.ids), true.real)
    return next_token_losses(model, head, inputs, Padded(true.ids, blanked)).mean()


def blanks_of(length: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """(length,) bool: so many of the tokens after the first, at least one, drawn without replacement."""
    count = max(1, round(share * (length - 1)))
    mask = np.zeros(length, dtype=bool)
    mask[1 + rng.choice(length - 1, count, replace=False)] = True
    return mask


def blank_token(tokenizer: Any) -> int:
    """The tokenizer's own mask, or the underscore, as in LLM2Vec."""
    if tokenizer.mask_token_id is not None:
        return int(tokenizer.mask_token_id)
    return encode_plain(tokenizer, [BLANK])[0][-1]
