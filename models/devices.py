"""Where torch runs, known to be there before anything is loaded onto it."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from models.errors import ConfigError


def check_devices(names: Iterable[str]) -> None:
    """Put a number onto each device.

    Args:
        names: as torch has them, such as "cpu", "cuda" or "cuda:1".

    Raises:
        ConfigError: torch cannot run there.
    """
    for name in dict.fromkeys(names):
        try:
            torch.zeros(1, device=name).item()
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            raise ConfigError(
                f"device '{name}' cannot be used: {reason}. torch {torch.__version__} sees"
                f" {torch.cuda.device_count()} GPUs here; 'cpu' is always there"
            ) from error
