"""Where torch runs, known to be there before anything is loaded onto it."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from models.errors import ConfigError


def steady_attention(device: str) -> None:
    """Leave cuDNN's attention out on a GPU, for the rest of the process.

    It is compiled anew for every length that is met, which takes longer than an LLM's pass.
    """
    if device.startswith("cuda"):
        torch.backends.cuda.enable_cudnn_sdp(False)


def check_devices(names: Iterable[str], *, for_another: bool = False) -> None:
    """Put a number onto each device.

    Args:
        names: as torch has them, such as "cpu", "cuda" or "cuda:1".
        for_another: it is another process that will run there: a GPU is counted, and nothing put onto it, as this
            process would keep some hundred MiB of it.

    Raises:
        ConfigError: torch cannot run there.
    """
    for name in dict.fromkeys(names):
        try:
            device = torch.device(name)
            if not for_another or device.type != "cuda":
                torch.zeros(1, device=device).item()
            elif (device.index or 0) >= torch.cuda.device_count():
                raise RuntimeError("it is not there")
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            raise ConfigError(
                f"device '{name}' cannot be used: {reason}. torch {torch.__version__} sees"
                f" {torch.cuda.device_count()} GPUs here; 'cpu' is always there"
            ) from error
