"""Which families of LLMs can be asked exactly, and which are refused, with the reason.

Asking packs a prompt and all branching paths of its choices into one sequence, a tree. That is exact where a token
learns of others by attention alone, and of their distance by position ids and masks alone. What is known to be
otherwise is refused by its config; `models.llm.self_test` tries every LLM that is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

from models.errors import ConfigError

PATH_LAYERS = frozenset({"full_attention", "sliding_attention", "chunked_attention"})
"""Layer types whose masks transformers makes from positions alone."""
ALIBI = "its ALiBi counts places of a sequence where a path's are asked for"
PLACES = "it counts places of a sequence where a path's are asked for"
REFUSED = {
    **dict.fromkeys(("bart", "mbart", "plbart", "mvp", "marian", "pegasus", "blenderbot", "blenderbot-small"), PLACES),
    "bloom": ALIBI,
    "mpt": ALIBI,
    "gpt_neo": "its local layers count places of a sequence where a path's are asked for",
}
"""By model type."""


_NOISE = re.compile(r"dropout|_pdrop$|^layerdrop$|jitter")


class UnsupportedLLMError(ConfigError):
    """An LLM of a family that cannot be asked exactly."""


def check_family(name: str, config: Any) -> None:
    """Refuse what its config shows to be no LLM that can be asked exactly.

    Args:
        name: as the user named it.
        config: the transformers config.

    Raises:
        UnsupportedLLMError: with the reason.
    """
    text = config.get_text_config()
    kind, reason = text.model_type, REFUSED.get(text.model_type)
    others = set(getattr(text, "layer_types", None) or ()) - PATH_LAYERS
    if getattr(config, "is_encoder_decoder", False):
        reason = "it reads its prompt by another network than it continues it by"
    elif type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        kind, reason = config.model_type, "it is no causal LM of transformers: one inside it can be saved by itself"
    elif getattr(text, "alibi", False):
        reason = ALIBI
    elif others:
        reason = f"it has layers other than attention: {', '.join(sorted(others))}"
    elif getattr(text, "hidden_size_per_layer_input", None):
        reason = "its layers look up token ids, which injected tokens have not"
    if reason is not None:
        raise UnsupportedLLMError(f"LLM '{name}' ({kind}) cannot be asked exactly: {reason}")


def attention_of(config: Any) -> str | None:
    """The implementation of attention that computes what the family means; None is the fastest there is."""
    # The fused kernels leave a soft cap on attention out, without a word.
    return "eager" if getattr(config.get_text_config(), "attn_logit_softcapping", None) else None


def without_noise(config: Any) -> Any:
    """`config`, changed in place, without dropout, jitter and whatever else families do to their states in training."""
    text = config.get_text_config()
    for key, value in list(vars(text).items()):
        if _NOISE.search(key) and isinstance(value, float):
            setattr(text, key, 0.0)
    return config


def token_size_of(config: Any) -> int:
    """d_tok, the size of input embeddings."""
    text = config.get_text_config()
    return int(getattr(text, "word_embed_proj_dim", None) or text.hidden_size)


def context_length_of(config: Any) -> int:
    """The longest context in tokens in which an answer does not depend on what else is computed beside it.

    Raises:
        UnsupportedLLMError: the config says nothing of it.
    """
    text = config.get_text_config()
    longest = getattr(text, "max_position_embeddings", None)
    if longest is None:
        raise UnsupportedLLMError(f"an LLM of type '{text.model_type}' does not say how long its context is")
    # LongRoPE turns all tokens of a batch otherwise as soon as one is beyond the original context.
    original = getattr(text, "original_max_position_embeddings", longest)
    scaled = [rope for rope in _ropes(getattr(text, "rope_parameters", None)) if rope["rope_type"] == "longrope"]
    return min([int(longest), *(int(rope.get("original_max_position_embeddings", original)) for rope in scaled)])


def _ropes(parameters: Any) -> Iterator[dict[str, Any]]:
    """Rotary settings, of all layers or by layer type."""
    if isinstance(parameters, dict):
        if "rope_type" in parameters:
            yield parameters
        else:
            for value in parameters.values():
                yield from _ropes(value)
