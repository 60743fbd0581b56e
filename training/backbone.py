"""Training the collaborative-filtering backbone (A-LLMRec section 3; SASRec's own objective by default).

Axes: B windows of a batch, T positions, M real positions of a batch, K negatives, D embedding size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from rich.console import Console
from torch.nn import functional

from models.backbones import Backbone, create_backbone, load_backbone, represent_all, save_backbone
from models.catalogue import PADDING_ITEM
from models.config import Config
from training.data.sampling import NegativeSampler
from training.data.splits import Candidates, Holdout, SequenceSplit
from training.loop import LoopConfig, Outcome, Task, epoch_rng, seed_everything, train
from training.metrics import mean_metrics
from training.run import StageRun

POOL_BATCHES = 50


class Objective(StrEnum):
    """What the backbone is trained for."""

    BCE = "bce"
    """Binary cross-entropy of the next item against one sampled negative, as in the paper."""
    SOFTMAX = "softmax"
    """Cross-entropy over all items."""
    SAMPLED_SOFTMAX = "sampled_softmax"
    """Cross-entropy over the next item and `negatives` uniform items that the whole batch shares."""


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


class Windows:
    """Training sequences cut into windows of inputs and next items.

    A sequence longer than `max_length` gives several windows, counted from its latest item, so that no interaction
    is lost; sequences of one item give none.

    Args:
        sequences: U arrays of item numbers, oldest first.
        max_length: T, the longest window.

    Attributes:
        items: (W, T+1) item numbers padded with 0 on the left: inputs are `[:, :-1]`, targets `[:, 1:]`.
        users: (W,) row of the user of each window.
        lengths: (W,) inputs of each window.
    """

    def __init__(self, sequences: Sequence[np.ndarray], max_length: int) -> None:
        spans = [
            (user, max(0, end - max_length - 1), end)
            for user, sequence in enumerate(sequences)
            for end in range(len(sequence), 1, -max_length)
        ]
        self.users = np.asarray([user for user, _, _ in spans], dtype=np.int64)
        self.lengths = np.asarray([end - start - 1 for _, start, end in spans], dtype=np.int64)
        self.items = np.zeros((len(spans), max_length + 1), dtype=np.int64)
        for row, (user, start, end) in enumerate(spans):
            self.items[row, start - end :] = sequences[user][start:end]

    def batches(self, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Rows of an epoch's batches in random order; windows of like length share a batch, to save padding."""
        order = rng.permutation(len(self.users))
        pool = batch_size * POOL_BATCHES
        pools = [order[start : start + pool] for start in range(0, len(order), pool)]
        ordered = [rows[np.argsort(self.lengths[rows], kind="stable")] for rows in pools]
        batches = [rows[at : at + batch_size] for rows in ordered for at in range(0, len(rows), batch_size)]
        return [batches[index] for index in rng.permutation(len(batches))]


def train_backbone(
    split: SequenceSplit, config: BackboneTrainingConfig, run: StageRun, console: Console | None = None
) -> Backbone:
    """Run the stage, or load its result if it is done.

    Args:
        split: the data.
        config: the stage's config, of which `run` was made.
        run: the stage's directory. Gets `backbone.json` and `backbone.safetensors`.
        console: where progress is shown.

    Raises:
        ConfigError: the backbone's kind or settings are wrong.
        Interrupted: by Ctrl-C; the same call goes on.
    """
    if run.is_done:
        return load_backbone(run.directory)
    run.start()
    seed_everything(config.seed)
    backbone = create_backbone(config.kind, {"num_items": len(split.catalogue), **config.settings})
    outcome = fit_backbone(backbone, split, config, run.checkpoint, console)
    save_backbone(backbone, run.directory)
    run.write_curve(outcome.curve, config.kind)
    run.finish(
        {
            "validation": outcome.best,
            "best_step": outcome.best_step,
            "steps": outcome.steps,
            "epochs": outcome.epochs,
            "minutes": outcome.minutes,
            "ended_by": outcome.ended_by,
        }
    )
    return load_backbone(run.directory)


def fit_backbone(
    backbone: Backbone,
    split: SequenceSplit,
    config: BackboneTrainingConfig,
    checkpoint: Path,
    console: Console | None = None,
) -> Outcome:
    """Train `backbone` in place."""
    windows = Windows(split.train, backbone.max_length)
    objective = _Loss(backbone, windows, split.negative_sampler(), config)
    candidates = some(split.candidates(Holdout.VALIDATION, config.seed), config.validation_users)
    histories = [split.history(int(user), Holdout.VALIDATION) for user in candidates.users]

    def batches(epoch: int) -> Sequence[_Batch]:
        rows = windows.batches(config.batch_size, epoch_rng(config.seed, epoch))
        return [_Batch(chosen, (config.seed, epoch, index)) for index, chosen in enumerate(rows)]

    def validate() -> dict[str, float]:
        users_E_D = represent_all(backbone, histories)
        return mean_metrics(score_candidates(users_E_D, backbone.item_vectors, candidates))

    optimizer = torch.optim.Adam(
        backbone.parameters(),
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=True,
    )
    task = Task(backbone, optimizer, batches, objective, validate)
    return train(task, config.loop, checkpoint, "backbone", console)


@torch.no_grad()
def score_candidates(users_E_D: torch.Tensor, item_vectors: torch.Tensor, candidates: Candidates) -> np.ndarray:
    """(E, C) logits `x_u . E_i` of every user's candidates, -inf at padding."""
    items_E_C = torch.from_numpy(candidates.items).to(item_vectors.device)
    scores_E_C = torch.einsum("ed,ecd->ec", users_E_D, functional.embedding(items_E_C, item_vectors))
    return scores_E_C.masked_fill(items_E_C == PADDING_ITEM, -torch.inf).cpu().numpy()


def some(candidates: Candidates, users: int) -> Candidates:
    """The candidates of at most `users` users, spread evenly: enough to validate on."""
    rows = np.unique(np.linspace(0, len(candidates.users) - 1, min(users, len(candidates.users))).astype(np.int64))
    return Candidates(candidates.users[rows], candidates.items[rows])


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


def bce(
    outputs_M_D: torch.Tensor, targets_M: torch.Tensor, negatives_M: torch.Tensor, table: torch.Tensor
) -> torch.Tensor:
    """-log sigma(x . target) - log(1 - sigma(x . negative)), the mean over positions.

    A position whose negative is padding, because its user has everything, counts its target alone.
    """
    pairs_2_M = torch.stack([targets_M, negatives_M])
    logits_2_M = (outputs_M_D * functional.embedding(pairs_2_M, table)).sum(dim=-1)
    missed_M = functional.softplus(logits_2_M[1]) * (negatives_M != PADDING_ITEM)
    return (functional.softplus(-logits_2_M[0]) + missed_M).mean()


def sampled_softmax(
    outputs_M_D: torch.Tensor, targets_M: torch.Tensor, negatives_K: torch.Tensor, table: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy of each target against itself and the K negatives, those equal to it left out."""
    positive_M = (outputs_M_D * functional.embedding(targets_M, table)).sum(dim=-1)
    negative_M_K = outputs_M_D @ functional.embedding(negatives_K, table).T
    negative_M_K = negative_M_K.masked_fill(targets_M[:, None] == negatives_K, -torch.inf)
    return (torch.logsumexp(torch.cat([positive_M[:, None], negative_M_K], dim=1), dim=1) - positive_M).mean()
