"""Training a sequential network on windows, for the baselines that are built on SASRec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from models.backbones import Backbone
from training.backbones.config import Preset
from training.backbones.full_ranking import FullRanking
from training.backbones.loss import WindowLoss
from training.backbones.windows import WindowBatch, Windows
from training.data.splits import Holdout, SequenceSplit
from training.runs.context import RunContext
from training.runs.loop import LoopConfig, Outcome, Task, epoch_rng

VALIDATION_USERS = 2000


@dataclass(frozen=True)
class Phase:
    """Of a training.

    Attributes:
        name: of it, and of its checkpoint.
        loop: when it ends.
        seed: of the order of windows and of negatives.
    """

    name: str
    loop: LoopConfig
    seed: int


def train_windows(
    network: Backbone,
    split: SequenceSplit,
    preset: Preset,
    phase: Phase,
    run: RunContext,
    groups: Sequence[dict[str, object]] | None = None,
) -> Outcome:
    """Train `network` to predict the next items of all training sequences; the best by validation NDCG@10 is kept.

    Args:
        network: a backbone, fresh or pre-trained.
        split: the data.
        preset: objective, batch size and learning rate.
        phase: what it is called, when it ends, and its seed.
        run: keeps the checkpoint.
        groups: parameters by learning rates of their own; all alike if not given.
    """
    windows = Windows(split.train, network.max_length)
    validation = FullRanking.of(split, Holdout.VALIDATION, VALIDATION_USERS)

    def batches(epoch: int) -> Sequence[WindowBatch]:
        rows = windows.batches(preset.batch_size, epoch_rng(phase.seed, epoch))
        return [WindowBatch(chosen, (phase.seed, epoch, index)) for index, chosen in enumerate(rows)]

    parameters = groups or [{"params": list(network.parameters())}]
    optimizer = torch.optim.Adam(parameters, lr=preset.learning_rate, betas=preset.betas)
    loss = WindowLoss(network, windows, split, preset)
    task = Task(network, optimizer, batches, loss, lambda: validation.metrics(network), windows.part)
    return run.train(task, phase.loop, phase.name, phase.name)
