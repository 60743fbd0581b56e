"""LLMs of a known shape with random weights: what such an LLM costs, on a machine that no hub reaches.

Random weights say nothing of what an LLM would answer, and take as long as trained ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoModelForCausalLM, OPTConfig

from models.llm.loading import EMBEDDED, load_tokenizer

VOCABULARY, CONTEXT = 50_272, 2048
SHAPES: dict[str, dict[str, int]] = {
    "opt-125m": {"hidden_size": 768, "ffn_dim": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    "opt-1.3b": {"hidden_size": 2048, "ffn_dim": 8192, "num_hidden_layers": 24, "num_attention_heads": 32},
    "opt-6.7b": {"hidden_size": 4096, "ffn_dim": 16_384, "num_hidden_layers": 32, "num_attention_heads": 32},
}
"""Zhang et al., "OPT" (2022), table 1."""


@contextmanager
def random_llm(shape: str, dtype: str, device: str) -> Iterator[str]:
    """The folder of an LLM of `shape`, for as long as the block lasts. Its tokenizer is the embedded LLM's.

    Args:
        shape: one of `SHAPES`.
        dtype: of its weights.
        device: where they are drawn.
    """
    sizes: dict[str, Any] = {**SHAPES[shape], "word_embed_proj_dim": SHAPES[shape]["hidden_size"]}
    config = OPTConfig(vocab_size=VOCABULARY, max_position_embeddings=CONTEXT, dropout=0.0, **sizes)
    torch.manual_seed(0)
    with TemporaryDirectory(prefix="allmrec-random-") as folder:
        with torch.device(device):
            AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).save_pretrained(folder)
        load_tokenizer(EMBEDDED).save_pretrained(folder)
        yield folder
