"""Loading the frozen LLM: the embedded OPT or any Hugging Face causal LM by name or path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from models.devices import steady_attention
from models.errors import ConfigError
from models.llm.checkpoint import fingerprint_checkpoint
from models.llm.families import attention_of, check_family, context_length_of, token_size_of, without_noise
from models.llm.self_test import check_exact
from models.llm.token_interface import TokenInterface

EMBEDDED = "embedded"
EMBEDDED_DIRECTORY = Path(__file__).parent / "embedded"


@dataclass(frozen=True)
class LanguageModel:
    """A frozen causal LM with all that the prompts need of it.

    Attributes:
        name: as the user named it: "embedded", a hub name or a path.
        model: the transformers model in eval mode, without gradients.
        tokenizer: its fast tokenizer.
        fingerprint: SHA-256 of its config and all of its weights, by which a bundle knows its LLM.
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
        return token_size_of(self.model.config)

    @property
    def precision(self) -> str:
        """What its answers are rounded by, where that is not float32."""
        if getattr(self.model, "is_loaded_in_8bit", False):
            return "8bit"
        return "" if self.model.dtype == torch.float32 else str(self.model.dtype).removeprefix("torch.")

    @property
    def identity(self) -> dict[str, str]:
        """What a run depends on: fingerprints of the LLM and of its interface, and its precision if it is not full."""
        precision = {"precision": self.precision} if self.precision else {}
        return {**_identity(self.fingerprint, self.interface), **precision}

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
        return context_length_of(self.model.config)


def identity_of(name: str) -> dict[str, str]:
    """`LanguageModel.identity` of the LLM `name`, which is not loaded.

    Raises:
        ConfigError: there are no weights.
    """
    return _identity(fingerprint_checkpoint(resolve(name)), _interface_of(name))


def _identity(fingerprint: str, interface: TokenInterface | None) -> dict[str, str]:
    return {"llm": fingerprint, **({"interface": interface.fingerprint} if interface else {})}


def _interface_of(name: str) -> TokenInterface | None:
    directory = Path(resolve(name))
    return TokenInterface.load(directory) if directory.is_dir() else None


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
    except Exception as error:  # files may be anything, and so are the errors that they end in
        raise ConfigError(_unreadable(name, "tokenizer", error)) from error
    if not tokenizer.is_fast:
        raise ConfigError(f"LLM '{name}': a fast tokenizer (tokenizer.json) is needed")
    return tokenizer


def _unreadable(name: str, what: str, error: Exception) -> str:
    first = str(error).strip().splitlines()[0] if str(error).strip() else ""
    said = first if isinstance(error, OSError | ValueError) and first else f"{type(error).__name__} {first}".strip()
    if Path(resolve(name)).is_dir():
        return f"LLM '{name}': no {what} can be loaded: {said}"
    return f"LLM '{name}': there is no folder of that name, and none can be had from a hub: {said}"


def load_llm(
    name: str = EMBEDDED, device: str = "cpu", dtype: torch.dtype = torch.float32, load_in_8bit: bool = False
) -> LanguageModel:
    """Load LLM `name` frozen onto `device`. In training mode, too, it is without dropout.

    Args:
        name: "embedded", a hub name or a path.
        device: where torch runs it.
        dtype: of the weights, or, with `load_in_8bit`, of all that is not in 8 bits.
        load_in_8bit: the layers' matrices as LLM.int8(), by bitsandbytes, on a GPU.

    Raises:
        ConfigError: it cannot be found or loaded.
        UnsupportedLLMError: it cannot be asked exactly.
    """
    tokenizer = load_tokenizer(name)
    config = check_llm(name, device, load_in_8bit)
    placing: dict[str, Any] = {}
    if load_in_8bit:
        placing = {"quantization_config": BitsAndBytesConfig(load_in_8bit=True), "device_map": {"": device}}
    steady_attention(device)
    config = without_noise(config)
    model = load_weights(name, config, dtype=dtype, attn_implementation=attention_of(config), **placing)
    model = (model if load_in_8bit else model.to(device)).eval().requires_grad_(False)
    check_exact(name, model)
    return LanguageModel(
        name=name,
        model=model,
        tokenizer=tokenizer,
        fingerprint=fingerprint_checkpoint(resolve(name)),
        interface=_interface_of(name),
    )


def check_llm(name: str, device: str = "cpu", load_in_8bit: bool = False) -> Any:
    """The transformers config of an LLM of which nothing but its weights can show that it cannot be asked.

    Args:
        name: as in `load_llm`, and so are the others.

    Raises:
        ConfigError: it cannot be found, or not be loaded so.
        UnsupportedLLMError: it is of a family that cannot be asked exactly.
    """
    config = load_config(name)
    check_family(name, config)
    if load_in_8bit and not device.startswith("cuda"):
        raise ConfigError(f"LLM '{name}' can be loaded in 8 bits onto a GPU only, not onto '{device}'")
    return config


def load_weights(name: str, config: Any, **how: Any) -> Any:
    """The causal LM `name` with all of its weights from its files.

    Args:
        name: "embedded", a hub name or a path.
        config: the transformers config.
        how: what else `from_pretrained` takes.

    Raises:
        ConfigError: it cannot be loaded, or its files lack weights, which would be drawn at random.
    """
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            resolve(name), config=config, output_loading_info=True, **how
        )
    except Exception as error:  # files may be anything, and so are the errors that they end in
        raise ConfigError(_unreadable(name, "weights", error)) from error
    lacking = sorted(found["missing_keys"])
    if lacking:
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        raise ConfigError(
            f"LLM '{name}': its files lack weights that its config has: {', '.join(lacking[:3])}{more};"
            " is it whole, and a causal LM?"
        )
    return model


def load_config(name: str) -> Any:
    """The transformers config of LLM `name`.

    Raises:
        ConfigError: it cannot be found, or is of a family that transformers does not know.
    """
    try:
        return AutoConfig.from_pretrained(resolve(name))
    except Exception as error:  # files may be anything, and so are the errors that they end in
        raise ConfigError(_unreadable(name, "config", error)) from error
