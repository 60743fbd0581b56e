"""Tiny random LLMs of many families, each a line: what all of them must be exact with, or be refused for.

A window of 8 tokens is far shorter than the prompts.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from models.llm.families import attention_of, without_noise

VOCABULARY = 96
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,
}
"""Weights are large, so that whoever sees a wrong token says something else."""
HEADS = {"head_dim": 8}
MOE = {
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
WINDOW = {"sliding_window": 8}
MIXED = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
HALF = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}

EXACT: dict[str, dict[str, Any]] = {
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32, "init_std": 0.3},
    "opt, projected": {"ffn_dim": 48, "word_embed_proj_dim": 16, "init_std": 0.3, "do_layer_norm_before": False},
    "gpt2": {},
    "gpt_bigcode": {},
    "gpt_neox": {},
    "gptj": {"rotary_dim": 4},
    "codegen": {"rotary_dim": 4},
    "llama": {},
    "mistral": WINDOW,
    "mixtral": WINDOW | MOE,
    "ministral": MIXED | HEADS,
    "qwen2": HALF,
    "qwen2_moe": HALF | MOE,
    "qwen3": HALF | HEADS,
    "qwen3_moe": MOE | HEADS,
    "gemma": HEADS,
    "gemma2": MIXED | HEADS,
    "gemma3_text": MIXED | HEADS,
    "vaultgemma": MIXED | HEADS,
    "phi": {},
    "phi3": WINDOW,
    "phimoe": WINDOW | MOE,
    "olmo": {},
    "olmo2": {},
    "olmo3": MIXED,
    "olmoe": MOE,
    "smollm3": MIXED | {"use_sliding_window": True},
    "falcon": {"alibi": False, "multi_query": True},
    "granite": {
        "logits_scaling": 4.0,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.5,
        "attention_multiplier": 0.2,
    },
    "granitemoe": MOE | {"logits_scaling": 4.0},
    "cohere": {"logit_scale": 0.25},
    "cohere2": MIXED | {"logit_scale": 0.25},
    "gpt_oss": MIXED | MOE | HEADS,
    "stablelm": {},
    "starcoder2": WINDOW,
    "glm4": HEADS,
    "exaone4": MIXED | HEADS,
    "nemotron": {},
    "ernie4_5": HEADS,
    "xglm": {"d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4},
}
"""By model type, and what distinguishes the case where a type has several."""


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "bloom": ({}, "ALiBi counts places"),
    "mpt": ({"d_model": 32, "n_layers": 2, "n_heads": 4}, "ALiBi counts places"),
    "falcon, alibi": ({"alibi": True}, "ALiBi counts places"),
    "gpt_neo": ({"attention_types": [[["global", "local"], 1]], "num_layers": 2}, "local layers count places"),
    "mamba": ({}, "other than attention: linear_attention"),
    "jamba": (MOE, "other than attention: linear_attention"),
    "qwen3_next": (MOE, "other than attention: linear_attention"),
    "lfm2": ({"layer_types": ["conv", "full_attention"]}, "other than attention: conv"),
    "falcon_h1": ({}, "other than attention: hybrid"),
    "rwkv": ({}, "recurrent"),
    "recurrent_gemma": ({}, "recurrent"),
    "gemma3n_text": ({}, "look up token ids"),
    "gemma4_text": ({}, "look up token ids"),
    "llama4_text": (MOE | {"attention_chunk_size": 8}, "cannot be asked about a tree"),
    "llava": ({}, "no causal LM"),
    "mistral3": ({}, "no causal LM"),
    "qwen2_vl": ({}, "no causal LM"),
    "bart": ({"is_encoder_decoder": False}, "counts places"),
    "mbart": ({"is_encoder_decoder": False}, "counts places"),
    "pegasus": ({"is_encoder_decoder": False}, "counts places"),
    "marian": ({"is_encoder_decoder": False}, "counts places"),
    "t5": ({}, "reads its prompt by another network"),
}
"""With the reason that is given."""


def tiny_config(case: str, settings: dict[str, Any]) -> Any:
    """The config of (case, settings) of a table above."""
    return without_noise(AutoConfig.for_model(case.partition(",")[0], **(SIZES | settings)))


def tiny(case: str, settings: dict[str, Any], seed: int = 0) -> Any:
    """A random causal LM in eval mode: (case, settings) of a table above."""
    torch.manual_seed(seed)
    config = tiny_config(case, settings)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention_of(config))
    return model.eval().requires_grad_(False)
