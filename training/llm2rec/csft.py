"""Collaborative supervised fine-tuning (LLM2Rec section 3.1): the next title from the titles before it, no
instruction; the loss is on the target's tokens alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from training.data.splits import Holdout
from training.llm2rec.batches import Dealt, Padded, mixed_batches, padded
from training.llm2rec.config import CSFTConfig
from training.llm2rec.corpus import Corpus, Sentence
from training.llm2rec.model import TitleHead, next_token_losses
from training.runs.loop import Task, epoch_rng

VALIDATION_TOKENS = 4096


class CSFT:
    """The stage.

    Args:
        corpus: what is learned from.
        config: how.
        seed: of the batches.
    """

    def __init__(self, corpus: Corpus, config: CSFTConfig, seed: int) -> None:
        self._corpus, self._config, self._seed = corpus, config, seed
        self._sentences = corpus.sentences()
        self._places = np.concatenate(
            [
                np.column_stack([np.full(len(part), index), np.arange(len(part))])
                for index, part in enumerate(self._sentences)
            ]
        )
        self._lengths = np.concatenate([part.lengths for part in self._sentences])

    def task(self, model: Any, weights: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Task[np.ndarray]:
        """What the loop drives; validation is the mean log-likelihood of a token of a held-out title."""
        head = TitleHead(model, self._corpus.vocabulary)
        validation = self.validation_sentences()

        def batches(epoch: int) -> Sequence[np.ndarray]:
            rng = epoch_rng(self._seed, epoch)
            return mixed_batches(self._lengths, rng, most_padded=self._config.batch_tokens)

        def sentences_of(rows: np.ndarray) -> list[Sentence]:
            return [self._sentences[domain][row] for domain, row in self._places[rows].tolist()]

        def loss(rows: np.ndarray) -> torch.Tensor:
            return sentence_losses(model, head, sentences_of(rows)).mean()

        def part(rows: np.ndarray, index: int, count: int) -> tuple[np.ndarray | None, float]:
            targets = np.asarray([sum(sentence.targets) for sentence in sentences_of(rows)])
            dealt, share = Dealt(rows).part(index, count, targets)
            return None if dealt is None else rows[dealt.mine], share

        def validate() -> dict[str, float]:
            lengths = np.asarray([len(sentence.ids) for sentence in validation])
            parts = mixed_batches(lengths, np.random.default_rng(0), most_padded=VALIDATION_TOKENS)
            losses = [sentence_losses(model, head, [validation[row] for row in rows]) for rows in parts]
            return {"log_likelihood": -float(torch.cat(losses).mean())}

        return Task(weights, optimizer, batches, loss, validate if validation else None, part)

    def validation_sentences(self) -> list[Sentence]:
        """Validation items after their histories, of users spread evenly over all domains."""
        config, found = self._config, []
        each = -(-config.validation_users // len(self._corpus.domains))
        for domain, titles in zip(self._corpus.domains, self._corpus.titles, strict=True):
            split = domain.split
            users = np.flatnonzero(split.target(Holdout.VALIDATION))
            chosen = users[np.unique(np.linspace(0, len(users) - 1, min(each, len(users))).astype(np.int64))]
            for user in chosen.tolist():
                known = split.known(user, Holdout.VALIDATION)
                found.append(titles.sentence(known[-config.history_items - 1 :], targets=1))
        return found


def sentence_losses(model: Any, head: TitleHead, sentences: Sequence[Sentence]) -> torch.Tensor:
    """(M,) -log P of the target tokens of all sentences."""
    inputs = padded([sentence.ids for sentence in sentences], model.device)
    targets = padded([sentence.targets for sentence in sentences], model.device)
    return next_token_losses(model, head, inputs, Padded(inputs.ids, targets.ids))
