"""Several processes that train one model: the one module that knows how many there are.

`torchrun` starts them, or `accelerate launch` on GPUs. All run the same program on the same data and a file system
that they share. Of every batch each computes its part, gradients are summed, and so all go the same way, which is that
of one process. What cannot be shared, the first does alone: deciding, validating, writing, showing.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, TypeVar

import torch
from torch import nn

Value = TypeVar("Value")


class Processes:
    """This process among those that train together.

    Args:
        accelerator: connects them; None if there is one process.

    Attributes:
        count: how many there are.
        index: which this one is, 0 for the first.
    """

    def __init__(self, accelerator: Any | None = None) -> None:
        self._accelerator = accelerator
        self.count: int = 1 if accelerator is None else accelerator.num_processes
        self.index: int = 0 if accelerator is None else accelerator.process_index

    @property
    def is_first(self) -> bool:
        """Whether this one decides, writes and shows."""
        return self.index == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes of a tensor of one shape."""
        if self._accelerator is None or self.count == 1:
            return values
        shared = values.to(self._accelerator.device)
        return self._accelerator.reduce(shared, reduction="sum").to(values.device)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every parameter the sum of its gradients in all processes; none where none has one."""
        if self.count == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        device = trained[0].device
        has = torch.tensor([float(parameter.grad is not None) for parameter in trained], device=device)
        own = [
            parameter.new_zeros(parameter.shape) if parameter.grad is None else parameter.grad for parameter in trained
        ]
        summed = self.sum(torch.cat([has, *(gradient.float().flatten() for gradient in own)]))
        gradients = torch.split(summed[len(trained) :], [parameter.numel() for parameter in trained])
        for parameter, gradient, held in zip(trained, gradients, summed[: len(trained)].tolist(), strict=True):
            parameter.grad = gradient.view_as(parameter).to(parameter.dtype) if held else None

    def deal_in(self, own_P_H: torch.Tensor, rows: int) -> torch.Tensor:
        """The (B, H) rows of a batch that was dealt out, of which this process has every `count`-th, P of them.

        Gradients go back to the process that has the row, summed over all.

        Args:
            own_P_H: this process's, in their order; each process has one at least.
            rows: of the batch, B.
        """
        from torch.distributed.nn.functional import all_gather  # noqa: PLC0415 - where there are several

        most = -(-rows // self.count)
        missing = own_P_H.new_zeros(most - len(own_P_H), own_P_H.shape[1])
        parts = all_gather(torch.cat([own_P_H, missing]))  # type: ignore[no-untyped-call]
        return torch.stack(parts, dim=1).flatten(0, 1)[:rows]

    def gather(self, value: Value) -> list[Value]:
        """What each process has, in their order."""
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object  # noqa: PLC0415 - an extra

        return gather_object([value])

    def alone(self, work: Callable[[], Value]) -> Value:
        """What `work` returns in the first process; the others wait for it.

        Within `work` the first is alone: what it asks of other processes is answered by itself.

        Raises:
            SystemExit: in the others, when it failed in the first.
        """
        if self.count == 1:
            return work()
        outcome: list[Any] = [None, True]
        try:
            if self.is_first:
                outcome = self._by_itself(work)
        finally:
            result, failed = self.gather(outcome)[0]
        if failed:
            raise SystemExit(1)
        return result

    def _by_itself(self, work: Callable[[], Value]) -> list[Any]:
        count, self.count = self.count, 1
        try:
            return [work(), False]
        finally:
            self.count = count

    def go_on_alone(self) -> None:
        """End all processes but the first.

        Raises:
            SystemExit: in the others.
        """
        if not self.is_first:
            raise SystemExit(0)
        self.count = 1


@cache
def processes() -> Processes:
    """Those that were launched together, or this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes()
    from accelerate import Accelerator  # noqa: PLC0415 - an extra, and seconds to import

    atexit.register(_disconnect)
    return Processes(Accelerator())


def _disconnect() -> None:
    """End the connections' threads: a process that exits with them running may abort, and all count as failed."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
