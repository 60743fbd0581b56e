"""How near the engines come to the floor: a prompt's floating-point operations at the machine's own matrix rate."""

from __future__ import annotations

import time
from typing import Any

import torch

from models.composer import Question
from models.llm.loading import load_config


def matmul_ceiling(dtype: str, device: str, size: int | None = None, repeats: int = 12) -> float:
    """FLOP/s of a large square matrix product, the best of several."""
    size = size or (8192 if device == "cuda" else 2048)
    a, b = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2))
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def prompt_flops(llm: str, question: Question) -> float:
    """FLOPs that no exact engine can avoid: every weight at every prompt token, attention over the causal half."""
    config: Any = load_config(llm)
    size, layers, inner = config.hidden_size, config.num_hidden_layers, config.ffn_dim
    tokens = len(question.prompt.token_ids)
    weights = layers * (4 * size * size + 2 * size * inner)
    return float(2 * weights * tokens + layers * 2 * size * tokens * tokens)
