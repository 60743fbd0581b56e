"""The backbone of stage 2's examples: one that was not fitted to what they predict (ADR 20).

It has a space of its own, which is turned into that of the backbone that is served, so that the projections that are
learned from one suit the other. Turning changes no logit.

Axes: N items, D CF size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from models.alignment.placement import Placement, place
from models.backbones import Backbone, represent_all
from models.bundle.catalogue_model import CatalogueModel
from models.catalogue import PADDING_ITEM
from training.allmrec.stage1.aligned import Aligned
from training.data.splits import SequenceSplit

MOST_USERS = 20_000
"""By whose vectors spaces are compared."""


class Turned(Backbone):
    """A frozen backbone whose vectors are turned.

    Args:
        backbone: whose.
        turn_D_D: orthogonal; vectors are multiplied by it from the right.
    """

    kind = "turned"

    def __init__(self, backbone: Backbone, turn_D_D: torch.Tensor) -> None:
        super().__init__(backbone.config)
        self.backbone = backbone
        self.register_buffer("turn", turn_D_D)

    @property
    def embedding_size(self) -> int:
        """d."""
        return self.backbone.embedding_size

    @property
    def item_vectors(self) -> torch.Tensor:
        """See `Backbone.item_vectors`."""
        return self.backbone.item_vectors @ self.get_buffer("turn")

    def places(self, trained_N: torch.Tensor) -> torch.Tensor:
        """See `Backbone.places`."""
        return self.backbone.places(trained_N)

    def outputs(
        self,
        history_B_T: torch.Tensor,
        item_vectors: torch.Tensor | None = None,
        users_B: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """See `Backbone.outputs`."""
        turn = self.get_buffer("turn")
        own = None if item_vectors is None else item_vectors @ turn.T
        return self.backbone.outputs(history_B_T, own, users_B) @ turn


def turn_between(backbone: Backbone, other: Backbone, split: SequenceSplit, seed: int = 0) -> torch.Tensor:
    """(D, D) the orthogonal matrix that brings the vectors of `backbone` nearest to those of `other`.

    Orthogonal Procrustes (Schoenemann 1966) on the items that both were trained on and on a sample of users, which
    count alike.

    Args:
        backbone: trained on `split`.
        other: trained on these sequences at least.
        split: gives items and histories.
        seed: of the sample.
    """
    rows = np.random.default_rng(seed).permutation(len(split))[:MOST_USERS]
    histories = [split.train[row] for row in rows]
    trained = torch.from_numpy(split.catalogue.trained)
    with torch.no_grad():
        cross_D_D = torch.zeros(backbone.embedding_size, backbone.embedding_size, dtype=torch.float64)
        users = [represent_all(each, histories, users=1 + rows) for each in (backbone, other)]
        items = [each.item_vectors[trained.to(each.device)] for each in (backbone, other)]
        for pair in (users, items):
            ours, theirs = (vectors.double().cpu() / vectors.double().norm().cpu() for vectors in pair)
            cross_D_D += ours.T @ theirs
        left, _, right = torch.linalg.svd(cross_D_D)
    return (left @ right).float()


@dataclass(frozen=True)
class HeldBack:
    """What stage 2's examples are told by.

    Attributes:
        split: what the backbone was trained on: sequences without what the examples predict.
        backbone: in the space of the one that is served.
        placement: of the N+1 items by it, and by stage 1 as it is.
    """

    split: SequenceSplit
    backbone: Backbone
    placement: Placement

    @classmethod
    def of(cls, split: SequenceSplit, backbone: Backbone, aligned: Aligned, seed: int = 0) -> HeldBack:
        """Bring a backbone into the space of another.

        Args:
            split: what `backbone` was trained on.
            backbone: of the same size as the one that is served.
            aligned: what stage 1 made of the one that is served.
            seed: of the users by whom the spaces are compared.
        """
        turned = Turned(backbone, turn_between(backbone, aligned.backbone, split, seed)).eval().requires_grad_(False)
        known = turned.places(torch.from_numpy(split.catalogue.trained))
        placement = place(aligned.alignment, aligned.text_vectors, turned.item_vectors, known)
        tables = {name: table.clone() for name, table in vars(placement).items()}
        for table in tables.values():
            table[PADDING_ITEM] = 0.0
        return cls(split, turned, Placement(**tables))

    def told(self, model: CatalogueModel) -> CatalogueModel:
        """`model`, projector and all, with items and users as this backbone knows them."""
        return replace(model.placed(self.placement), backbone=self.backbone.to(model.cf_vectors.device))
