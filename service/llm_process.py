"""What the service has the LLM's process do: log and compute as it does itself, and tell what vLLM measures there.

That process imports this module, and no more of the service than logs and measures.
"""

from __future__ import annotations

from typing import Literal

import torch

from service.logs import configure_logging
from service.metrics import engine_exposition


def prepare(log_level: str, log_format: Literal["json", "console"], torch_threads: int | None) -> None:
    """Called there before anything else, with the settings of these names."""
    configure_logging(log_level, log_format)
    if torch_threads is not None:
        torch.set_num_threads(torch_threads)


def measure() -> bytes:
    """What stands beside the service's own metrics."""
    return engine_exposition()
