"""The frozen LLM as stage 2 reads it: the one in memory, in the precision of training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from models.scoring.opt_inference import OPTScorer
from models.scoring.opt_training import PackedReader
from models.scoring.packing import PackedBatch, hidden_states


class FrozenReader:
    """The last hidden states of a frozen LLM at given positions, for a loss to be taken on them.

    Args:
        model: the LLM.
        dtype: of the forward and backward pass of an LLM in float32; any other keeps to its own.
        gradient_checkpointing: keep activations at the borders of layers only.
    """

    def __init__(self, model: Any, dtype: torch.dtype, gradient_checkpointing: bool = False) -> None:
        self._model = model
        self._dtype = dtype if model.dtype == torch.float32 else model.dtype
        self._checkpointing = gradient_checkpointing
        fast = model.device.type == "cpu" and OPTScorer.supports(model) and not gradient_checkpointing
        self._packed = PackedReader(model) if fast else None

    def __call__(
        self, batch: PackedBatch, soft_S_H: torch.Tensor, rows_O: torch.Tensor, columns_O: torch.Tensor
    ) -> torch.Tensor:
        """(O, H) at packed positions `rows_O`, `columns_O`."""
        with self._cast():
            if self._packed is not None:
                return self._packed(batch, soft_S_H, rows_O, columns_O)
            with checkpointed(self._model) if self._checkpointing else nullcontext():
                return hidden_states(self._model, batch, soft_S_H)[rows_O, columns_O]

    def _cast(self) -> AbstractContextManager[Any]:
        if self._dtype == self._model.dtype:
            return nullcontext()
        return torch.autocast(self._model.device.type, self._dtype)


@contextmanager
def checkpointed(model: Any) -> Iterator[None]:
    """A frozen LLM whose layers compute their activations anew for the backward pass of what is run inside.

    Layers do that in training mode only, in which an LLM by `load_llm` does nothing else otherwise: it has no dropout.
    """
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    try:
        yield
    finally:
        model.eval()
        model.gradient_checkpointing_disable()
