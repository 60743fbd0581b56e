"""What backbones are trained for."""

from __future__ import annotations

from enum import StrEnum

import torch
from torch.nn import functional

from models.catalogue import PADDING_ITEM


class Objective(StrEnum):
    """What the backbone is trained for."""

    BCE = "bce"
    """Binary cross-entropy of the next item against one sampled negative, as in the paper."""
    SOFTMAX = "softmax"
    """Cross-entropy over all items."""
    SAMPLED_SOFTMAX = "sampled_softmax"
    """Cross-entropy over the next item and `negatives` uniform items that the whole batch shares."""


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
