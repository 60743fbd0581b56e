"""The loss of LLM pre-training: the divergence from the true distribution at every branching node."""

from __future__ import annotations

from typing import Any

import torch
from torch.func import functional_call
from torch.nn import functional

from models.precision import training_dtype
from models.scoring.opt_training import PackedReader
from models.scoring.packing import NO_CHILD
from training.pretraining.batch import TrainingBatch

FLAT = 4.0
"""Temperature of the flattened distributions: at a median spread of 2.5 nats it leaves .6, where every place counts."""
_LEAST = 1e-12
"""A probability of 0 has no logarithm."""
_NEVER = -1e4
"""The logit of a child that a node does not have: finite, because 0 * inf is no number."""


class Objective:
    """Loss of a model on a batch.

    Args:
        model: an OPT in fp32.
        vocabulary_weight: weight of the cross-entropy over the whole vocabulary, which teaches the model to
            generate candidates even if nothing constrains it.
        order_weight: weight of the divergence between the distributions flattened by the temperature `FLAT`, which
            asks for the order of unlikely candidates too. It counts `FLAT` squared times, as in distillation, so
            that its gradient does not shrink with the temperature.
        text_weight: weight of the free text's cross-entropy per token.
        dtype: of the forward and backward pass; bfloat16 where hardware has it if not given, else float32.
    """

    def __init__(
        self,
        model: Any,
        vocabulary_weight: float,
        order_weight: float,
        text_weight: float,
        dtype: torch.dtype | None = None,
    ) -> None:
        self._reader = PackedReader(model)
        self._vocabulary_weight, self._order_weight = vocabulary_weight, order_weight
        self._text_weight = text_weight
        self._dtype = training_dtype("auto", "cpu") if dtype is None else dtype

    def __call__(self, batch: TrainingBatch) -> torch.Tensor:
        """The scalar loss, per prompt.

        Nodes count by the root of the probability to get there: by the probability itself the many rare nodes would
        teach nothing, and alike for all they would be most of the loss.
        """
        packed = batch.packed
        cast = {name: weight.to(self._dtype) for name, weight in self._reader.named_parameters()}
        rows_O = torch.cat([packed.node_rows, batch.text_rows_X])
        columns_O = torch.cat([packed.node_columns, batch.text_columns_X])
        hidden_O_H = functional_call(self._reader, cast, (packed, batch.soft_tokens_S_H, rows_O, columns_O))
        table_V_H = self._reader.model.get_input_embeddings().weight
        logits_O_V = functional.linear(hidden_O_H, table_V_H.to(self._dtype)).float()

        nodes = len(packed.node_rows)
        children_M_C = packed.children_M_C.clamp_min(0)
        own_M_C = packed.children_M_C != NO_CHILD
        targets_M_C = batch.targets_M_C
        weights_M = batch.reach_M.sqrt()
        log_probs_M_V = functional.log_softmax(logits_O_V[:nodes], dim=1)
        child_log_probs_M_C = log_probs_M_V.gather(1, children_M_C)
        divergence_M = _divergence(targets_M_C, child_log_probs_M_C, own_M_C)
        order_M = FLAT**2 * _divergence(_flattened(targets_M_C, own_M_C), child_log_probs_M_C / FLAT, own_M_C)
        surprise_M = -(targets_M_C * child_log_probs_M_C).sum(dim=1)
        per_node_M = divergence_M + self._order_weight * order_M + self._vocabulary_weight * surprise_M
        loss = (weights_M * per_node_M).sum()
        if len(batch.text_rows_X):
            text = functional.cross_entropy(logits_O_V[nodes:], batch.text_targets_X, reduction="sum")
            loss = loss + self._text_weight * text
        return loss / len(packed.node_counts)


def _divergence(targets_M_C: torch.Tensor, logits_M_C: torch.Tensor, own_M_C: torch.Tensor) -> torch.Tensor:
    """(M,) Kullback-Leibler divergence from the targets to the softmax of the logits over each node's own children."""
    log_probs_M_C = functional.log_softmax(logits_M_C.masked_fill(~own_M_C, _NEVER), dim=1)
    return (torch.special.xlogy(targets_M_C, targets_M_C) - targets_M_C * log_probs_M_C).sum(dim=1)


def _flattened(targets_M_C: torch.Tensor, own_M_C: torch.Tensor) -> torch.Tensor:
    """The targets at a temperature of `FLAT`."""
    logits_M_C = targets_M_C.clamp_min(_LEAST).log() / FLAT
    return functional.softmax(logits_M_C.masked_fill(~own_M_C, _NEVER), dim=1)
