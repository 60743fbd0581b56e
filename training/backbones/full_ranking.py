"""Where held-out items stand among the whole catalogue: what backbones are validated and chosen by.

Axes: E users, B users of a batch, N items, D embedding size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from models.backbones import Backbone, represent_all
from models.catalogue import PADDING_ITEM
from training.data.sequences import Sequences
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.metrics import hit_at, ndcg_at

MOST_SCORES = 1 << 24
"""Held at a time: 64 MiB in fp32."""


@dataclass(frozen=True)
class FullRanking:
    """Held-out items, to be found among all items that their users do not know.

    Attributes:
        users: (E,) their rows in the split.
        histories: of E users, before the held-out item.
        positives: (E,) the held-out items.
        groups: name to (E,) mask by the positive, as in `training.evaluation.held_out`.
    """

    users: np.ndarray
    histories: Sequences
    positives: np.ndarray
    groups: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, split: SequenceSplit, holdout: Holdout, users: int | None = None) -> FullRanking:
        """The held-out items of `split`: of at most so many users, spread evenly; of all if not given.

        Who had met every item is left out: there is nothing to rank.
        """
        rows = np.flatnonzero(split.rankable(holdout))
        if users is not None and len(rows) > users:
            rows = rows[np.linspace(0, len(rows) - 1, users).astype(np.int64)]
        positives = split.target(holdout)[rows]
        masks = {"warm": split.warm_items, "cold": split.cold_items, "unseen": ~split.catalogue.trained}
        groups = {"overall": np.ones(len(rows), dtype=bool)} | {name: mask[positives] for name, mask in masks.items()}
        histories = Sequences.of(split.history(int(row), holdout) for row in rows)
        return cls(rows, histories, positives, groups)

    def metrics(self, backbone: Backbone) -> dict[str, float]:
        """NDCG@10 and Recall@100 of all users, and NDCG@10 of those whose item is cold."""
        ranks = self.ranks(backbone)
        means = {"ndcg@10": ndcg_at(ranks, 10), "recall@100": hit_at(ranks, 100)}
        metrics = {name: float(values.mean()) if len(values) else 0.0 for name, values in means.items()}
        cold = self.groups["cold"]
        return metrics | ({"cold_ndcg@10": float(means["ndcg@10"][cold].mean())} if cold.any() else {})

    @torch.no_grad()
    def ranks(self, backbone: Backbone) -> np.ndarray:
        """(E,) of the positives, 1 being best; ties, and what is not a number, count against them."""
        table = backbone.item_vectors
        return self.ranks_by(represent_all(backbone, self.histories, table, 1 + self.users), table)

    @torch.no_grad()
    def ranks_by(self, users_E_D: torch.Tensor, table: torch.Tensor) -> np.ndarray:
        """As `ranks`, by vectors of users (E, D) and of items (N+1, D) that anybody made."""
        batch = max(1, MOST_SCORES // len(table))
        parts = [
            self._ranks(users_E_D[start : start + batch], table, start)
            for start in range(0, len(self.positives), batch)
        ]
        return np.concatenate([np.zeros(0, dtype=np.int64), *parts])

    def _ranks(self, users_B_D: torch.Tensor, table: torch.Tensor, start: int) -> np.ndarray:
        """(B,) of the users from row `start` on."""
        rows = range(start, start + len(users_B_D))
        positives_B = torch.from_numpy(self.positives[rows.start : rows.stop]).to(table.device)
        scores_B_N = users_B_D @ table.T
        own_B_1 = scores_B_N.gather(1, positives_B[:, None])
        ahead_B_N = ~(scores_B_N < own_B_1)
        # A positive that the user met before counts as new, as it does among candidates.
        known_rows, known_items = _pairs([self.histories[row] for row in rows])
        ahead_B_N[known_rows.to(table.device), known_items.to(table.device)] = False
        ahead_B_N[:, PADDING_ITEM] = False
        ahead_B_N.scatter_(1, positives_B[:, None], True)
        return ahead_B_N.sum(dim=1).cpu().numpy()


def _pairs(histories: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """The row and the item of everything in `histories`."""
    flat = Sequences.of(histories)
    return torch.from_numpy(flat.owners), torch.from_numpy(flat.items)
