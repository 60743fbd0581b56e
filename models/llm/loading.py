"""Loading the frozen LLM: the embedded OPT or any Hugging Face causal LM by name or path."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from models.errors import ConfigError
from models.llm.interface import TokenInterface

EMBEDDED = "embedded"
EMBEDDED_DIRECTORY = Path(__file__).parent / "embedded"

_IDENTITY = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "word_embed_proj_dim",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)


@dataclass(frozen=True)
class LanguageModel:
    """A frozen causal LM with all that the prompts need of it.

    Attributes:
        name: as the user named it: "embedded", a hub name or a path.
        model: the transformers model in eval mode, without gradients.
        tokenizer: its fast tokenizer.
        fingerprint: SHA-256 of its identity and embedding table, by which a bundle knows its LLM.
        interface: the convention for injected tokens it was trained with, if any.
    """

    name: str
    model: Any
    tokenizer: Any
    fingerprint: str
    interface: TokenInterface | None

    @property
    def token_size(self) -> int:
        """d_tok."""
        return int(self.model.get_input_embeddings().embedding_dim)

    @property
    def context_length(self) -> int:
        """The context in tokens."""
        return int(self.model.config.max_position_embeddings)


def resolve(name: str) -> str:
    """What transformers and vLLM load for `name`: the package's own folder for "embedded"."""
    return str(EMBEDDED_DIRECTORY) if name == EMBEDDED else name


def load_tokenizer(name: str) -> Any:
    """The tokenizer of LLM `name`.

    Raises:
        ConfigError: it cannot be found, or is not a fast tokenizer.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(resolve(name))
    except (OSError, ValueError) as error:
        raise ConfigError(f"LLM '{name}': no tokenizer can be loaded: {error}") from error
    if not tokenizer.is_fast:
        raise ConfigError(f"LLM '{name}': a fast tokenizer (tokenizer.json) is needed")
    return tokenizer


def load_llm(name: str = EMBEDDED, device: str = "cpu", dtype: torch.dtype = torch.float32) -> LanguageModel:
    """Load LLM `name` frozen onto `device`.

    Raises:
        ConfigError: it cannot be found or loaded.
    """
    tokenizer = load_tokenizer(name)
    try:
        model = AutoModelForCausalLM.from_pretrained(resolve(name), dtype=dtype, attn_implementation="sdpa")
    except (OSError, ValueError) as error:
        raise ConfigError(f"LLM '{name}' cannot be loaded: {error}") from error
    model = model.to(device).eval().requires_grad_(False)
    directory = Path(resolve(name))
    return LanguageModel(
        name=name,
        model=model,
        tokenizer=tokenizer,
        fingerprint=fingerprint(model.config, model.get_input_embeddings().weight),
        interface=TokenInterface.load(directory) if directory.is_dir() else None,
    )


def load_config(name: str) -> Any:
    """The transformers config of LLM `name`."""
    return AutoConfig.from_pretrained(resolve(name))


def fingerprint(config: Any, embedding_table: torch.Tensor) -> str:
    """SHA-256 over the config's identity and the embedding table in bf16, the same for every load dtype."""
    identity = {key: getattr(config, key, None) for key in _IDENTITY}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    table = embedding_table.detach().to("cpu", torch.bfloat16).contiguous()
    digest.update(table.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()
