"""Training a sequential network on windows, for the baselines that are built on SASRec."""

from __future__ import annotations

from collections.abc import Sequence

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


def train_windows(
    network: Backbone,
    split: SequenceSplit,
    preset: Preset,
    loop: LoopConfig,
    run: RunContext,
    phase: str,
    groups: Sequence[dict[str, object]] | None = None,
    seed: int = 0,
) -> Outcome:
    """Train `network` to predict the next items of all training sequences; the best by validation NDCG@10 is kept.

    Args:
        network: a backbone, fresh or pre-trained.
        split: the data.
        preset: objective, batch size and learning rate.
        loop: when to end.
        run: keeps the checkpoint.
        phase: its name.
        groups: parameters by learning rates of their own; all alike if not given.
        seed: of the order of windows and of negatives.
    """
    windows = Windows(split.train, network.max_length)
    validation = FullRanking.of(split, Holdout.VALIDATION, VALIDATION_USERS)

    def batches(epoch: int) -> Sequence[WindowBatch]:
        rows = windows.batches(preset.batch_size, epoch_rng(seed, epoch))
        return [WindowBatch(chosen, (seed, epoch, index)) for index, chosen in enumerate(rows)]

    parameters = groups or [{"params": list(network.parameters())}]
    optimizer = torch.optim.Adam(parameters, lr=preset.learning_rate, betas=preset.betas)
    loss = WindowLoss(network, windows, split, preset)
    task = Task(network, optimizer, batches, loss, lambda: validation.metrics(network), windows.part)
    return run.train(task, loop, phase, phase)
