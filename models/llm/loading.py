"""Loading the frozen LLM: the embedded OPT or any Hugging Face causal LM by name or path."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import cached_file

from models.errors import ConfigError
from models.llm.token_interface import TokenInterface

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
    def identity(self) -> dict[str, str]:
        """Fingerprints of all that a run depends on: of the LLM, and of its interface if it has one."""
        return {"llm": self.fingerprint, **({"interface": self.interface.fingerprint} if self.interface else {})}

    def required_interface(self) -> TokenInterface:
        """The interface.

        Raises:
            ConfigError: the LLM has none.
        """
        if self.interface is None:
            raise ConfigError(f"LLM '{self.name}' has no interface for injected tokens beside its weights")
        return self.interface

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


def load_embedding_table(name: str) -> torch.Tensor:
    """The input embedding table (vocabulary, d_tok) of LLM `name`, read from its checkpoint without the rest.

    Raises:
        ConfigError: no checkpoint file holds it.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(load_config(name))
    table = model.get_input_embeddings().weight
    wanted = next(key for key, parameter in model.named_parameters() if parameter is table)
    for file in _checkpoint_files(resolve(name)):
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as tensors:
                if key := _same_parameter(wanted, tensors.keys()):
                    return tensors.get_tensor(key)
        else:
            weights = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
            if key := _same_parameter(wanted, weights):
                return weights[key]
    raise ConfigError(f"LLM '{name}': no checkpoint file holds '{wanted}'")


def _checkpoint_files(name: str) -> Iterator[Path]:
    """The weight files, in either format, whole or in shards."""
    for whole in ("model.safetensors", "pytorch_model.bin"):
        for file in (whole, f"{whole}.index.json"):
            path = cached_file(name, file, _raise_exceptions_for_missing_entries=False)
            if path is None:
                continue
            if path.endswith(".index.json"):
                shards = json.loads(Path(path).read_text(encoding="utf-8"))["weight_map"]
                for shard in sorted(set(shards.values())):
                    yield Path(cached_file(name, shard))
            else:
                yield Path(path)


def _same_parameter(wanted: str, keys: Iterable[str]) -> str | None:
    """The key that names `wanted`, with or without the prefix of the base model."""
    return next((key for key in keys if wanted == key or wanted.endswith(f".{key}")), None)


def fingerprint(config: Any, embedding_table: torch.Tensor) -> str:
    """SHA-256 over the config's identity and the embedding table in bf16, the same for every load dtype."""
    identity = {key: getattr(config, key, None) for key in _IDENTITY}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    table = embedding_table.detach().to("cpu", torch.bfloat16).contiguous()
    digest.update(table.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()
