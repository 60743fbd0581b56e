"""Writing an LLM as others load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from models.llm.token_interface import TokenInterface


def save(model: Any, tokenizer: Any, interface: TokenInterface, directory: Path) -> None:
    """Write the LLM as transformers and vLLM load it, in bf16, with its tokenizer and interface."""
    directory.mkdir(parents=True, exist_ok=True)
    shipped = type(model)(model.config)
    shipped.load_state_dict(model.state_dict())
    shipped.to(torch.bfloat16).save_pretrained(directory)
    tokenizer.init_kwargs.pop("local_files_only", None)  # how it was loaded, not what it is
    tokenizer.save_pretrained(directory)
    interface.save(directory)
