"""Training the collaborative-filtering backbone (A-LLMRec section 3; SASRec's own objective by default).

Axes: B windows of a batch, T positions, M real positions of a batch, K negatives, D embedding size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional

from models.backbones import Backbone, create_backbone, load_backbone, represent_all, save_backbone
from models.catalogue import PADDING_ITEM
from models.config import Config
from models.rankers.collaborative import candidate_logits
from training.backbones.objectives import Objective, bce, sampled_softmax
from training.backbones.windows import Windows
from training.data.negatives import NegativeSampler
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.candidates import draw_candidates
from training.evaluation.metrics import mean_metrics
from training.runs.context import RunContext
from training.runs.loop import LoopConfig, Outcome, Task, epoch_rng, seed_everything
from training.runs.stage_run import StageRun


class BackboneTrainingConfig(Config):
    """The stage `backbone`.

    Attributes:
        kind: a name in the backbone registry.
        settings: the backbone's own fields, such as `embedding_size` or `dropout`.
        objective: the training objective.
        negatives: shared negatives of `sampled_softmax`.
        batch_size: windows a step. The paper has 128.
        learning_rate: of Adam.
        betas: of Adam.
        weight_decay: of Adam (L2 on all weights).
        validation_users: at most this many users are validated on.
        loop: when to stop, validate and save.
        seed: of everything random.
    """

    kind: str = "sasrec"
    settings: dict[str, Any] = Field(default_factory=dict)
    objective: Objective = Objective.BCE
    negatives: int = Field(256, gt=0)
    batch_size: int = Field(128, gt=0)
    learning_rate: float = Field(1e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = Field(0.0, ge=0)
    validation_users: int = Field(10_000, gt=0)
    loop: LoopConfig = LoopConfig(epochs=60, validate_every=2, patience=8)
    seed: int = 0


def train_backbone(split: SequenceSplit, config: BackboneTrainingConfig, run: StageRun) -> Backbone:
    """Run the stage, or load its result if it is done.

    Args:
        split: the data.
        config: the stage's config, of which `run` was made.
        run: the stage's directory. Gets `backbone.json` and `backbone.safetensors`.

    Raises:
        ConfigError: the backbone's kind or settings are wrong.
        Interrupted: by Ctrl-C; the same call goes on.
    """
    if run.is_done:
        return load_backbone(run.directory)
    run.start()
    seed_everything(config.seed)
    backbone = create_backbone(config.kind, {"num_items": len(split.catalogue), **config.settings})
    outcome = fit_backbone(backbone, split, config, run)
    save_backbone(backbone, run.directory)
    run.write_curve(outcome.curve, config.kind)
    run.finish(outcome.summary)
    return load_backbone(run.directory)


def fit_backbone(backbone: Backbone, split: SequenceSplit, config: BackboneTrainingConfig, run: RunContext) -> Outcome:
    """Train `backbone` in place."""
    windows = Windows(split.train, backbone.max_length)
    objective = _Loss(backbone, windows, split.negative_sampler(), config)
    candidates = draw_candidates(split, Holdout.VALIDATION, config.seed).at_most(config.validation_users)
    histories = [split.history(int(user), Holdout.VALIDATION) for user in candidates.users]

    def batches(epoch: int) -> Sequence[_Batch]:
        rows = windows.batches(config.batch_size, epoch_rng(config.seed, epoch))
        return [_Batch(chosen, (config.seed, epoch, index)) for index, chosen in enumerate(rows)]

    def validate() -> dict[str, float]:
        users_E_D = represent_all(backbone, histories)
        return mean_metrics(candidate_logits(users_E_D, backbone.item_vectors, candidates.items))

    optimizer = torch.optim.Adam(
        backbone.parameters(),
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=True,
    )
    task = Task(backbone, optimizer, batches, objective, validate)
    return run.train(task, config.loop, "backbone")


@dataclass(frozen=True)
class _Batch:
    """Rows of the windows, and what seeds their negatives."""

    rows: np.ndarray
    seed: tuple[int, int, int]


class _Loss:
    """A batch of windows to the mean loss over its positions."""

    def __init__(
        self, backbone: Backbone, windows: Windows, sampler: NegativeSampler, config: BackboneTrainingConfig
    ) -> None:
        self.backbone, self.windows, self.sampler, self.config = backbone, windows, sampler, config

    def __call__(self, batch: _Batch) -> torch.Tensor:
        width = int(self.windows.lengths[batch.rows].max()) + 1
        items_B_W = self.windows.items[batch.rows, -width:]
        negatives = self._negatives(batch)
        table = self.backbone.item_vectors
        if self.config.objective is not Objective.SOFTMAX:
            # Gather each item once: gradients into the whole table would cost more than the network's.
            needed = np.concatenate([[PADDING_ITEM], items_B_W.ravel(), negatives])
            distinct, places = np.unique(needed, return_inverse=True)
            table = functional.embedding(torch.from_numpy(distinct).to(table.device), table)
            items_B_W = places[1 : 1 + items_B_W.size].reshape(items_B_W.shape)
            negatives = places[1 + items_B_W.size :]
        items = torch.from_numpy(items_B_W).to(table.device)
        inputs_B_T, targets_B_T = items[:, :-1], items[:, 1:]
        real_B_T = inputs_B_T != PADDING_ITEM
        outputs_M_D = self.backbone.outputs(inputs_B_T, table)[real_B_T]
        targets_M = targets_B_T[real_B_T]
        match self.config.objective:
            case Objective.BCE:
                return bce(outputs_M_D, targets_M, torch.from_numpy(negatives).to(table.device), table)
            case Objective.SOFTMAX:
                return functional.cross_entropy(outputs_M_D @ table[1:].T, targets_M - 1)
            case Objective.SAMPLED_SOFTMAX:
                return sampled_softmax(outputs_M_D, targets_M, torch.from_numpy(negatives).to(table.device), table)

    def _negatives(self, batch: _Batch) -> np.ndarray:
        """(M,) one per position, (K,) for the whole batch, or none, as the objective has it."""
        rng = np.random.default_rng(batch.seed)
        match self.config.objective:
            case Objective.BCE:
                users = np.repeat(self.windows.users[batch.rows], self.windows.lengths[batch.rows])
                return self.sampler.sample(users, 1, rng)[:, 0]
            case Objective.SOFTMAX:
                return np.zeros(0, dtype=np.int64)
            case Objective.SAMPLED_SOFTMAX:
                return rng.integers(1, self.backbone.num_items + 1, size=self.config.negatives)
