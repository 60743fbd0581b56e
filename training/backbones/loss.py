"""From a batch of windows to its loss.

Axes: B windows of a batch, W their positions, M real positions of all of them, K negatives, D embedding size.
"""

from __future__ import annotations

import numpy as np
import torch

from models.backbones import Backbone
from models.catalogue import PADDING_ITEM
from training.backbones.config import Preset
from training.backbones.negatives import SharedNegatives
from training.backbones.objectives import Objective, bce, full_softmax, sampled_softmax
from training.backbones.windows import WindowBatch, Windows
from training.data.splits import SequenceSplit


class WindowLoss:
    """The mean loss over the positions of a batch.

    Vectors of items are gathered once a batch, each item once: gradients into the whole table would cost more than
    the network's.

    Args:
        backbone: in training.
        windows: of `split.train`.
        split: the data.
        preset: says what it is trained for.
    """

    def __init__(self, backbone: Backbone, windows: Windows, split: SequenceSplit, preset: Preset) -> None:
        self.backbone, self.windows, self.preset = backbone, windows, preset
        self._sampler = split.negative_sampler(trained_only=preset.trained_negatives)
        # An item that nobody has in training is never a target, so it would only be learned to lose.
        self._choices = windows.distinct_items
        counts = split.catalogue.interactions[self._choices]
        self._shared = SharedNegatives(self._choices, counts, preset.popularity_share)
        self._places = np.zeros(len(split.catalogue) + 1, dtype=np.int64)
        self._places[self._choices] = 1 + np.arange(len(self._choices))

    def __call__(self, batch: WindowBatch) -> torch.Tensor:
        """The scalar loss."""
        rng = np.random.default_rng(batch.seed)
        items_B_W = self.windows.items_of(batch.own)
        match self.preset.objective:
            case Objective.BCE:
                users = np.repeat(self.windows.users[batch.rows], self.windows.lengths[batch.rows])
                negatives_M = self._sampler.sample(users, 1, rng)[self.windows.positions_of(batch), 0]
                table, places_B_W, negatives = self._gather(items_B_W, negatives_M)
                return bce(*self._outputs(batch, places_B_W, table), negatives, table)
            case Objective.SAMPLED_SOFTMAX:
                negatives_K, log_expected = self._shared.draw(self.preset.negatives, rng)
                table, places_B_W, negatives = self._gather(items_B_W, negatives_K)
                log_expected_K = torch.from_numpy(log_expected).to(table.device)
                return sampled_softmax(*self._outputs(batch, places_B_W, table), negatives, log_expected_K, table)
            case Objective.SOFTMAX:
                table = self._table(np.concatenate([[PADDING_ITEM], self._choices]))
                places_B_W = torch.from_numpy(self._places[items_B_W]).to(table.device)
                outputs_M_D, targets_M = self._outputs(batch, places_B_W, table)
                return full_softmax(outputs_M_D, targets_M - 1, table[1:])

    def _gather(
        self, items_B_W: np.ndarray, negatives_K: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A table of the items in question, padding first, and where in it items and negatives are."""
        needed = np.concatenate([[PADDING_ITEM], items_B_W.ravel(), negatives_K])
        distinct, places = np.unique(needed, return_inverse=True)
        found = torch.from_numpy(places[1:]).to(self.backbone.device)
        return self._table(distinct), found[: items_B_W.size].view(items_B_W.shape), found[items_B_W.size :]

    def _table(self, items: np.ndarray) -> torch.Tensor:
        return self.backbone.vectors_of(torch.from_numpy(items).to(self.backbone.device))

    def _outputs(
        self, batch: WindowBatch, places_B_W: torch.Tensor, table: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Outputs (M, d) and targets (M,) at real positions; both places are of `table`, whose row 0 is padding."""
        inputs_B_T, targets_B_T = places_B_W[:, :-1], places_B_W[:, 1:]
        real_B_T = inputs_B_T != PADDING_ITEM
        users_B = torch.from_numpy(1 + self.windows.users[batch.own]).to(table.device)
        return self.backbone.outputs(inputs_B_T, table, users_B)[real_B_T], targets_B_T[real_B_T]
