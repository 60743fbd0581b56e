"""What backbones are trained for.

Axes: M positions, K negatives, N items, D embedding size.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import torch
from torch.nn import functional

from models.catalogue import PADDING_ITEM

MOST_LOGITS = 1 << 24
"""Of full softmax at a time: 64 MiB in fp32."""


class Objective(StrEnum):
    """What the backbone is trained for."""

    BCE = "bce"
    """Binary cross-entropy of the next item against one sampled negative, as in the paper."""
    SOFTMAX = "softmax"
    """Cross-entropy over all items with training interactions."""
    SAMPLED_SOFTMAX = "sampled_softmax"
    """Cross-entropy over the next item and `negatives` of them that the whole batch shares, corrected for how often
    each is drawn."""


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
    outputs_M_D: torch.Tensor,
    targets_M: torch.Tensor,
    negatives_K: torch.Tensor,
    log_expected_K: torch.Tensor,
    table: torch.Tensor,
) -> torch.Tensor:
    """Cross-entropy of each target against itself and the K negatives, those equal to it left out.

    Args:
        outputs_M_D: x.
        targets_M: rows of `table`.
        negatives_K: rows of `table`.
        log_expected_K: log of how often each is expected among K draws, subtracted from its logit: what is drawn often
            counts for less, and the sum over negatives is an unbiased estimate of that over all items (Bengio and
            Senecal 2008; "logQ correction"). Targets are always there and need none.
        table: E.
    """
    positive_M = (outputs_M_D * functional.embedding(targets_M, table)).sum(dim=-1)
    negative_M_K = outputs_M_D @ functional.embedding(negatives_K, table).T - log_expected_K
    negative_M_K = negative_M_K.masked_fill(targets_M[:, None] == negatives_K, -torch.inf)
    return (torch.logsumexp(torch.cat([positive_M[:, None], negative_M_K], dim=1), dim=1) - positive_M).mean()


def full_softmax(
    outputs_M_D: torch.Tensor, targets_M: torch.Tensor, table: torch.Tensor, most_logits: int = MOST_LOGITS
) -> torch.Tensor:
    """Cross-entropy of each target over all rows of `table` (N, d), without ever holding all M x N logits.

    Args:
        outputs_M_D: x.
        targets_M: rows of `table`.
        table: E.
        most_logits: how many are held at a time.
    """
    loss: torch.Tensor = _FullSoftmax.apply(  # type: ignore[no-untyped-call]
        outputs_M_D.float(), targets_M, table.float(), most_logits
    )
    return loss


class _FullSoftmax(torch.autograd.Function):
    """Works out the gradients with the loss, chunk by chunk, so that no logits are kept or made twice."""

    @staticmethod
    def forward(
        ctx: Any, outputs_M_D: torch.Tensor, targets_M: torch.Tensor, table: torch.Tensor, most_logits: int
    ) -> torch.Tensor:
        """The mean loss."""
        wanted = any(ctx.needs_input_grad)
        total = outputs_M_D.new_zeros(())
        to_outputs, to_table = torch.zeros_like(outputs_M_D), torch.zeros_like(table)
        rows = max(1, most_logits // len(table))
        with torch.autocast(outputs_M_D.device.type, enabled=False):
            for start in range(0, len(outputs_M_D), rows):
                x_m_D, targets_m = outputs_M_D[start : start + rows], targets_M[start : start + rows, None]
                logits_m_N = x_m_D @ table.T
                norms_m = torch.logsumexp(logits_m_N, dim=1, keepdim=True)
                total += (norms_m - logits_m_N.gather(1, targets_m)).sum()
                if wanted:
                    errors_m_N = logits_m_N.sub_(norms_m).exp_()
                    errors_m_N.scatter_add_(1, targets_m, errors_m_N.new_full((len(x_m_D), 1), -1.0))
                    to_outputs[start : start + rows] = errors_m_N @ table
                    to_table.addmm_(errors_m_N.T, x_m_D)
        if wanted:
            ctx.save_for_backward(to_outputs.div_(len(outputs_M_D)), to_table.div_(len(outputs_M_D)))
        return total / len(outputs_M_D)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients of outputs and table."""
        to_outputs, to_table = ctx.saved_tensors
        return gradients[0] * to_outputs, None, gradients[0] * to_table, None
