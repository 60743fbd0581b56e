"""RECFORMER (Li et al., KDD 2023): items as key-value text, a user as the text of what was met, read by Longformer.

Pre-training predicts masked words and tells the next item from those of the batch (its section 2.4). Fine-tuning tells
it from all items, in two steps (section 2.5, Algorithm 1): first their vectors are encoded anew every epoch, then those
that were best on validation items rest, and the network alone learns on.

Axes: B users of a batch, L tokens, N items, M masked tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from models.rankers.base import Audience, LocalRanker, Ranker
from models.rankers.collaborative import candidate_logits
from training.backbones.texts import encoder_inputs
from training.baselines.bench import Bench
from training.baselines.port import Fitted, Shop, system
from training.baselines.recformer_network import ItemTexts, Recformer, RecformerConfig, built
from training.data.splits import Holdout
from training.evaluation.held_out import HeldOut
from training.evaluation.metrics import mean_metrics
from training.runs.loop import LoopConfig, Task, epoch_rng, seed_everything
from training.runs.stage_run import StageRun

WEIGHTS_FILE = "recformer.safetensors"
MASKED = 0.15
"""Share of words that pre-training asks for."""
HIDDEN, WRITTEN_OVER = 0.8, 0.9
"""Shares of these: hidden, and hidden or written over by a word drawn of all; the others stay."""
VALIDATION_USERS = 500
Pairs = list[tuple[list[int], int]]
"""Of a batch the histories, and what came next."""


class RecformerRanker(LocalRanker):
    """Cosines of users' texts and items' vectors, over the temperature.

    Args:
        network: trained.
        texts: of the items.
        items_N_D: (N+1, D) of the items, row 0 zeros.
        temperature: of the config.
    """

    id, title = "recformer", "RECFORMER"
    ranks_catalogue = True

    def __init__(self, network: Recformer, texts: ItemTexts, items_N_D: torch.Tensor, temperature: float) -> None:
        self._network, self._texts, self._temperature = network, texts, temperature
        self._items_N_D = items_N_D

    def compute(self, users: Audience, candidates_E_C: np.ndarray) -> np.ndarray:
        """See `Ranker.score`."""
        users_E_D = self._network.encode(self._texts, [history.tolist() for history in users.histories])
        return candidate_logits(users_E_D / self._temperature, self._items_N_D, candidates_E_C)


@system("recformer", "RECFORMER", takes="interactions, texts")
def recformer(bench: Bench) -> Fitted:
    """Items of its own catalogue have the vectors that rested in training; those of another one are encoded at last."""
    config = bench.config("recformer", RecformerConfig)
    inputs = encoder_inputs(config.text_encoder, config.weights)
    directory = bench.trained("recformer", config, inputs, lambda run: _train(bench, config, run))
    network, tokenizer = built(config, len(bench.split.catalogue))
    network.load_state_dict(load_file(directory / WEIGHTS_FILE))
    network = network.eval().requires_grad_(False)

    def ranker(shop: Shop) -> Ranker:
        texts = ItemTexts(tokenizer, shop.catalogue, config)
        items_N_D = network.encode_items(texts) if shop.foreign else network.table
        return RecformerRanker(network, texts, items_N_D, config.temperature)

    return ranker


class Training:
    """All phases on one split.

    Args:
        bench: has the split.
        config: budgets and sizes.
    """

    def __init__(self, bench: Bench, config: RecformerConfig) -> None:
        seed_everything(config.seed)
        self.config, self.split = config, bench.split
        self.network, tokenizer = built(config, len(self.split.catalogue))
        self.texts = ItemTexts(tokenizer, self.split.catalogue, config)
        self.users = [user for user, items in enumerate(self.split.train) if len(items) > 1]
        self.trained = np.flatnonzero(self.split.catalogue.trained)
        self.held_out = HeldOut.of(self.split, Holdout.VALIDATION, config.seed, VALIDATION_USERS)

    def phases(self) -> dict[str, tuple[Task[Pairs], LoopConfig]]:
        """What is done one after the other, by name, each with an optimizer of its own, and how long."""

        def task(
            batches: Callable[[int], Sequence[Pairs]],
            loss: Callable[[Pairs], torch.Tensor],
            validate: Callable[[], dict[str, float]] | None = None,
        ) -> Task[Pairs]:
            optimizer = torch.optim.AdamW(self.network.parameters(), lr=self.config.learning_rate)
            return Task(self.network, optimizer, batches, loss, validate)

        return {
            "pre-training": (task(self.batches, self.pretraining), self.config.pretraining),
            "fine-tuning": (task(self.encoded_batches, self.fine_tuning, self.validate), self.config.loop),
            "second step": (task(self.batches, self.fine_tuning, self.validate), self.config.second_step),
        }

    def batches(self, epoch: int) -> Sequence[Pairs]:
        """Histories, each cut at a random place, and what came next."""
        rng = epoch_rng(self.config.seed, epoch)
        users = [self.users[row] for row in rng.permutation(len(self.users))]
        ends = [int(rng.integers(1, len(self.split.train[user]))) for user in users]
        pairs = [
            (self.split.train[u][:end].tolist(), int(self.split.train[u][end]))
            for u, end in zip(users, ends, strict=True)
        ]
        starts = range(0, len(pairs), self.config.batch_size)
        return [part for start in starts if len(part := pairs[start : start + self.config.batch_size]) > 1]

    def encoded_batches(self, epoch: int) -> Sequence[Pairs]:
        """As `batches`, with all items encoded anew at the start of an epoch: the first step of fine-tuning."""
        if int(self.network.table_epoch) != epoch:
            self.network.table = self.network.encode_items(self.texts)
            self.network.table_epoch = torch.tensor(epoch)
        return self.batches(epoch)

    def pretraining(self, batch: Pairs) -> torch.Tensor:
        """The next item among those of the batch, and masked words."""
        network, pad = self.network, self.texts.pad
        told = [self.texts.of(history) for history, _ in batch]
        hidden, places, words = masked(told, self.texts.mask, self.texts.size, int(torch.randint(1 << 31, ())))
        outputs_B_L_D = network(hidden, pad)
        distinct, answers = np.unique([item for _, item in batch], return_inverse=True)
        items_N_D = network.vectors([self.texts.of([int(item)]) for item in distinct], pad)
        users_B_D = functional.normalize(outputs_B_L_D[:, 0], dim=-1)
        found = network.contrast(users_B_D, items_N_D, torch.from_numpy(answers).to(users_B_D.device))
        if not words:
            return found
        logits_M_V = network.word_logits(outputs_B_L_D[tuple(torch.tensor(places).T)])
        return found + self.config.word_weight * functional.cross_entropy(
            logits_M_V, torch.tensor(words).to(found.device)
        )

    def fine_tuning(self, batch: Pairs) -> torch.Tensor:
        """The next item among all that were met in training, as they were encoded last."""
        users_B_D = self.network.vectors([self.texts.of(history) for history, _ in batch], self.texts.pad)
        answers = np.searchsorted(self.trained, [item for _, item in batch])
        table = self.network.table[torch.from_numpy(self.trained)]
        return self.network.contrast(users_B_D, table, torch.from_numpy(answers).to(users_B_D.device))

    def validate(self) -> dict[str, float]:
        """On validation items among sampled ones, by the vectors that fine-tuning compares with."""
        ranker = RecformerRanker(self.network, self.texts, self.network.table, self.config.temperature)
        return mean_metrics(ranker.compute(self.held_out.users, self.held_out.candidates.items))


def masked(
    texts: Sequence[tuple[list[int], list[int], list[int]]], mask: int, vocabulary: int, seed: int
) -> tuple[list[tuple[list[int], list[int], list[int]]], list[tuple[int, int]], list[int]]:
    """Texts with some of their words hidden, where these stood (row, place), and what they were. [CLS] is never one.

    As in BERT, of the words to be told eight in ten are masked, one is any other word and one stays as it is.
    """
    rng = np.random.default_rng(seed)
    hidden, where, words = [], [], []
    for row, (tokens, types, places) in enumerate(texts):
        chosen = 1 + np.flatnonzero(rng.random(len(tokens) - 1) < MASKED)
        where += [(row, int(place)) for place in chosen]
        words += [tokens[place] for place in chosen]
        changed = list(tokens)
        for place, how in zip(chosen, rng.random(len(chosen)), strict=True):
            if how < WRITTEN_OVER:
                changed[place] = mask if how < HIDDEN else int(rng.integers(vocabulary))
        hidden.append((changed, types, places))
    return hidden, where, words


def _train(bench: Bench, config: RecformerConfig, run: StageRun) -> dict[str, Any]:
    training = Training(bench, config)
    network, metrics = training.network, {}
    for name, (task, loop) in training.phases().items():
        metrics[name] = run.train(task, loop, f"recformer {name}", name).summary
    save_file(
        {name: tensor.contiguous() for name, tensor in network.state_dict().items()}, run.directory / WEIGHTS_FILE
    )
    return metrics
