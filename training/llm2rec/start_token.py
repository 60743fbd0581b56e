"""The token that every text begins with. LMs were trained on documents that begin with one, and some, Gemma among
them, make nothing of a text without.
"""

from __future__ import annotations

from typing import Any

from tokenizers.processors import TemplateProcessing

from models.errors import ConfigError


def start_token(tokenizer: Any) -> tuple[str, int]:
    """Its text and id: BOS, or what parts documents where there is none.

    Raises:
        ConfigError: the tokenizer has neither.
    """
    for name in ("bos_token", "eos_token"):
        if (text := getattr(tokenizer, name, None)) is not None:
            return str(text), int(getattr(tokenizer, f"{name}_id"))
    raise ConfigError("llm2rec: the LLM's tokenizer has neither BOS nor EOS, so no text can begin with one")


def with_start_token(tokenizer: Any) -> Any:
    """The same tokenizer, changed so that it puts the start token, and nothing else, before every text.

    Also pads on the right and has a token to pad with.
    """
    text, number = start_token(tokenizer)
    if getattr(tokenizer, "add_bos_token", None) is False and text == tokenizer.bos_token:
        tokenizer.add_bos_token = True
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{text} $A", pair=f"{text} $A {text} $B", special_tokens=[(text, number)]
    )
    # As attribute for now, as argument for whoever loads it from a folder.
    tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = text
    return tokenizer
